"""What is stuck is named and costs its own client only; the service manager is fed while the rest can go on."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.local_bus import FakeBus, OpenedDevice
from tests.fakes.simulated_usb1 import SimulatedUsb1
from tests.waiting import wait_until
from usbip_capture import LocalServer, serve
from usbip_capture.demo.device import INFO, DemoDevice
from usbip_capture.device import Transfer
from usbip_capture.devices.libusb.binding import Libusb
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.serving import watchdog
from usbip_capture.usb.setup import get_descriptor, port_reset
from usbip_capture.usb.urb import Urb

ANY = "127.0.0.1:0"


class AnsweringBus(FakeBus):
    """A bus whose thread answers, or does not."""

    def __init__(self) -> None:
        super().__init__()
        self.answering = True
        self.asked = 0

    def answers(self, timeout: float) -> bool:
        self.asked += 1
        return self.answering


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager, which wants to hear of us often."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "40000")
        yield sock


def named(server: LocalServer) -> ServerAddress:
    return ServerAddress.parse(server.address, timeout=20.0)


def drained(sock: socket.socket) -> list[bytes]:
    """What waits to be received."""
    found = []
    sock.setblocking(False)
    try:
        while True:
            found.append(sock.recv(1000))
    except BlockingIOError:
        return found
    finally:
        sock.settimeout(20)


def test_the_manager_is_fed_while_the_event_thread_answers(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    bus = AnsweringBus()
    bus.plug("1-1")
    with serve(["1-1"], listen=ANY, bus=bus):
        assert manager.recv(1000) == b"WATCHDOG=1\nSTATUS=1 device, 0 in use"
        assert manager.recv(1000) == b"WATCHDOG=1"
        bus.answering = False
        wait_until("it is noticed", lambda: "libusb handles no events any more" in caplog.text)
        drained(manager)
        asked = bus.asked
        wait_until("it has looked again", lambda: bus.asked > asked + 2)
        assert drained(manager) == []
        bus.answering = True
        assert manager.recv(1000) == b"WATCHDOG=1"
    assert caplog.text.count("libusb handles no events any more") == 1


def test_a_stuck_device_is_named_and_the_others_go_on(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(OpenedDevice, "working_since", 0.0, raising=False)
    bus = AnsweringBus()
    stuck, other = bus.plug("1-1"), bus.plug("1-2")
    with serve(["all"], listen=ANY, bus=bus) as server:
        devices = [named(server).import_device(Selector(busid=busid)) for busid in ("1-1", "1-2")]
        wait_until("both are in use", lambda: len([c for c in server.clients if c.busid]) == 2)
        stuck.opened[-1].working_since = time.monotonic() - watchdog.STUCK - 1  # type: ignore[attr-defined]
        other.opened[-1].working_since = time.monotonic()  # type: ignore[attr-defined]
        assert stuck.opened[-1].released.wait(20)
        wait_until("its client is gone", lambda: [c.busid for c in server.clients if c.busid] == ["1-2"])
        assert "device 1-1 (303a:4001) has been stuck in one request for 11 s" in caplog.text
        assert caplog.text.count("has been stuck") == 1
        assert not other.opened[-1].released.is_set()
        drained(manager)
        assert manager.recv(1000).startswith(b"WATCHDOG=1")
        for device in devices:
            device.close()


def test_the_event_thread_of_libusb_answers_unless_it_is_stuck() -> None:
    usb1 = SimulatedUsb1()
    libusb = Libusb(usb1)
    bus = LocalBus(libusb, "/nowhere")
    assert bus.answers(0.01)  # nobody needs it yet
    bus.listen()
    assert bus.answers(20.0)
    stuck, free = threading.Event(), threading.Event()

    def callback() -> None:
        stuck.set()
        free.wait(20)

    usb1.contexts[0].post(callback)
    assert stuck.wait(20)
    assert not bus.answers(0.05)
    free.set()
    assert bus.answers(20.0)
    bus.close()
    libusb.close()
    assert bus.answers(0.01)


def test_a_worker_says_since_when_it_works() -> None:
    usb1 = SimulatedUsb1()
    libusb = Libusb(usb1)
    bus = LocalBus(libusb, "/nowhere")
    attached = usb1.plug(DemoDevice(), (1,))
    device = bus.devices()[0].open()
    assert device.working_since == 0.0
    resetting, free = threading.Event(), threading.Event()
    run = attached.device.run

    def slow(*given: Any, **more: Any) -> Any:
        resetting.set()
        free.wait(20)
        return run(*given, **more)

    attached.device.run = slow  # type: ignore[method-assign]
    before = time.monotonic()
    transfer = Transfer(Urb.control(port_reset(1).pack()))
    device.submit(transfer)
    assert resetting.wait(20)
    assert before <= device.working_since <= time.monotonic()
    free.set()
    assert device.wait(transfer, 20)
    assert transfer.completion is not None
    assert transfer.completion.status == 0
    wait_until("it waits", lambda: device.working_since == 0.0)
    device.close()
    bus.close()
    libusb.close()
    usb1.close()


def test_a_worker_of_libusb_that_is_stuck_costs_its_own_client_only(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel does not come back from a reset: the client is disconnected, another one goes on."""
    monkeypatch.setattr(watchdog, "STUCK", 0.1)
    usb1 = SimulatedUsb1()
    libusb = Libusb(usb1)
    bus = LocalBus(libusb, "/nowhere")
    stuck = usb1.plug(DemoDevice(replace(INFO, devnum=3)), (1,))
    usb1.plug(DemoDevice(replace(INFO, devnum=4)), (2,))
    resetting, free = threading.Event(), threading.Event()
    read = Urb.control(get_descriptor(1, 0, 0, 18).pack())
    with serve(["all"], listen=ANY, bus=bus, reset=False) as server:
        one, other = (named(server).import_device(Selector(busid=busid)) for busid in ("1-1", "1-2"))
        lost = threading.Event()
        one.watch(lambda reason: lost.set())
        run = stuck.device.run

        def never(*given: Any, **more: Any) -> Any:
            resetting.set()
            free.wait(60)
            return run(*given, **more)

        monkeypatch.setattr(stuck.device, "run", never)
        reset = Transfer(Urb.control(port_reset(1).pack()))
        one.submit(reset)
        assert resetting.wait(20)
        assert lost.wait(20)
        assert "device 1-1 (1209:0001) has been stuck in one request for" in caplog.text
        assert other.run(read, 20).status == 0
        drained(manager)
        assert manager.recv(1000).startswith(b"WATCHDOG=1")
        free.set()
        wait_until("its device is free", lambda: [c.busid for c in server.clients if c.busid] == ["1-2"])
        for device in (one, other):
            device.close()
    bus.close()
    libusb.close()
    usb1.close()
