"""Captures that are stopped, or fail, at moments that are easily forgotten."""

from __future__ import annotations

import io
import socket
import threading
from dataclasses import replace

import pytest

from tests.fakes.scripted_server import ScriptedServer, answer_import
from tests.waiting import wait_until
from usbip_capture import PcapWriter
from usbip_capture.demo import device as demo
from usbip_capture.demo.device import DemoDevice, DemoServer
from usbip_capture.device import Device, Transfer
from usbip_capture.errors import UsbipError
from usbip_capture.probe.group import ProbeGroup
from usbip_capture.probe.listen import Listener
from usbip_capture.probe.settings import ProbeSettings
from usbip_capture.servers.address import ServerAddress
from usbip_capture.tap import Tapped
from usbip_capture.usb.descriptors import parse_configuration
from usbip_capture.usb.endpoints import EndpointMap
from usbip_capture.usb.setup import set_configuration
from usbip_capture.usb.urb import Urb

TIMEOUT = 20.0


def test_stopped_while_it_connects() -> None:
    asked, stopped, released = threading.Event(), threading.Event(), threading.Event()

    def script(sock: socket.socket) -> None:
        sock.recv(1, socket.MSG_PEEK)
        asked.set()
        assert stopped.wait(TIMEOUT)
        answer_import(sock)
        while sock.recv(4096):
            pass
        released.set()

    with ScriptedServer(script) as server:
        group = ProbeGroup(ServerAddress("127.0.0.1", server.port), "1-1", ProbeSettings())
        connects = threading.Thread(target=group.connect)
        connects.start()
        assert asked.wait(TIMEOUT)
        group.stop()
        stopped.set()
        connects.join(TIMEOUT)
        assert released.wait(TIMEOUT)  # the device, which nobody wants any more
        with PcapWriter(io.BytesIO()) as writer:
            group.run(writer)


def test_a_device_without_a_thread_is_an_error_and_the_others_are_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    server = DemoServer()
    other = replace(demo.INFO, busid="1-2")

    def second() -> DemoDevice:
        device = DemoDevice()
        device.info = other
        return device

    server.add(demo.INFO, DemoDevice)
    server.add(other, second)
    group = ProbeGroup(ServerAddress(*server.listen("127.0.0.1", 0)), "all", ProbeSettings())
    start, listening = threading.Thread.start, threading.Event()

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "usbip-session":
            raise RuntimeError("can't start new thread")
        start(thread)

    group.connect()
    errors: list[UsbipError] = []

    def run() -> None:
        with PcapWriter(io.BytesIO()) as writer:
            try:
                group.run(writer)
            except UsbipError as error:
                errors.append(error)
            finally:
                listening.set()

    monkeypatch.setattr(threading.Thread, "start", refuse)
    runs = threading.Thread(target=run, name="test")
    runs.start()
    wait_until("the first one is read", lambda: group._sessions[0]._listener)
    monkeypatch.undo()
    group.stop()
    runs.join(TIMEOUT)
    (error,) = errors
    assert "threads" in str(error)
    server.close()


class Refusing(Tapped):
    """Raises what no Device should, for its first transfers."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.info = device.info
        self.refused = 0
        self.submitted: list[Transfer] = []

    @property
    def pending(self) -> int:
        return sum(transfer.completion is None for transfer in self.submitted)

    def submit(self, transfer: Transfer) -> None:
        if self.refused < 3:
            self.refused += 1
            raise ZeroDivisionError
        self.submitted.append(transfer)
        self._device.submit(transfer)


def test_listening_survives_what_a_device_raises() -> None:
    inner = DemoDevice()
    device = Refusing(inner)
    endpoints = EndpointMap(None, inner.info.speed)
    endpoints.add_configuration(parse_configuration(demo.DESCRIPTORS.configurations[0]))
    assert inner.run(Urb.control(set_configuration(1).pack())).status == 0
    endpoints.activate(1)
    notes: list[str] = []
    listener = Listener(device, list(endpoints), notes.append)
    listener.listen_to(None)
    wait_until("all are read", lambda: device.refused == 3 and device.pending >= 6)
    listener.stop(TIMEOUT)
    assert not device.pending
    assert notes == []
    inner.close()
