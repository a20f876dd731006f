"""PyUSB over USB/IP, through `usb.core`, on the demo device over a real socket."""

from __future__ import annotations

import errno
import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import usb.core
import usb.util

from tests.oracles.pcapng_reader import read_capture
from tests.waiting import wait_until
from usbip_capture import PcapWriter, get_backend
from usbip_capture.demo.device import DemoServer
from usbip_capture.pyusb_backend import UsbipBackend
from usbip_capture.servers.address import Selector, ServerAddress


@pytest.fixture
def port() -> Iterator[int]:
    server = DemoServer()
    yield server.listen("127.0.0.1", 0)[1]
    server.close()


@pytest.fixture
def backend(port: int) -> Iterator[UsbipBackend]:
    with get_backend("127.0.0.1", port) as opened:
        yield opened


@pytest.fixture
def dev(backend: UsbipBackend) -> usb.core.Device:
    found: usb.core.Device = usb.core.find(backend=backend, idVendor=0x1209, idProduct=0x0001)
    found.set_configuration()
    return found


def test_descriptors_are_the_devices_own(dev: usb.core.Device) -> None:
    assert (dev.bcdUSB, dev.bNumConfigurations, dev.iSerialNumber) == (0x0210, 1, 3)
    assert (dev.bus, dev.address, dev.port_number, dev.port_numbers, dev.speed) == (1, 2, 1, (1,), 3)
    assert (dev.manufacturer, dev.product, dev.serial_number) == ("usbip_capture", "Demo device", "DEMO0001")
    assert dev.langids == (0x0409,)
    (configuration,) = list(dev)
    shape = [(i.bInterfaceNumber, i.bAlternateSetting, [e.bEndpointAddress for e in i]) for i in configuration]
    assert shape == [(0, 0, [0x81]), (1, 0, [0x82, 0x02]), (2, 0, [0x83]), (3, 0, [0x04, 0x84]), (3, 1, [0x05, 0x85])]
    functional = next(iter(configuration)).extra_descriptors
    assert bytes(functional)[:5] == bytes.fromhex("0524002001")


def test_transfers_of_every_kind(dev: usb.core.Device) -> None:
    assert dev.write(0x04, b"hello") == 5
    assert bytes(dev.read(0x84, 64)) == b"hello"
    assert len(dev.read(0x83, 8)) == 8
    assert dev.ctrl_transfer(0x40, 0x10, 0, 0, b"stored") == 6
    assert bytes(dev.ctrl_transfer(0xC0, 0x10, 0, 0, 64)) == b"stored"
    dev.set_interface_altsetting(3, 1)
    assert dev.write(0x05, bytes(range(100))) == 100
    assert bytes(dev.read(0x85, 128)) == bytes(range(100))


def test_time_outs_keep_the_connection(dev: usb.core.Device) -> None:
    for _ in range(3):
        with pytest.raises(usb.core.USBTimeoutError) as caught:
            dev.read(0x84, 64, timeout=20)
        assert (caught.value.errno, caught.value.backend_error_code) == (errno.ETIMEDOUT, -7)
    dev.write(0x04, b"x")
    assert bytes(dev.read(0x84, 64)) == b"x"


def test_errors_are_libusbs(dev: usb.core.Device) -> None:
    with pytest.raises(usb.core.USBError) as caught:
        dev.ctrl_transfer(0xC0, 0x77, 0, 0, 4)
    assert (caught.value.errno, caught.value.backend_error_code) == (errno.EPIPE, -9)
    assert "1-1" in str(caught.value)


def test_a_halt_is_cleared(dev: usb.core.Device) -> None:
    dev.ctrl_transfer(0x02, 3, 0, 0x04)
    with pytest.raises(usb.core.USBError) as caught:
        dev.write(0x04, b"x")
    assert caught.value.errno == errno.EPIPE
    dev.clear_halt(0x04)
    assert dev.write(0x04, b"x") == 1


def test_a_device_in_use_elsewhere_can_still_be_found(port: int) -> None:
    other = ServerAddress("127.0.0.1", port).import_device(Selector("1-1"))
    with get_backend("127.0.0.1", port) as backend:
        assert usb.core.find(backend=backend) is None  # Linux servers do not list it
    other.close()


def test_dropping_the_device_gives_it_back(port: int) -> None:
    with get_backend("127.0.0.1", port) as backend:
        dev = usb.core.find(backend=backend)
        assert dev is not None
        assert ServerAddress("127.0.0.1", port).devices() == []
        del dev
        gc.collect()
        wait_until("the device is listed again", lambda: ServerAddress("127.0.0.1", port).devices())


def test_an_unreachable_server_is_a_usb_error() -> None:
    name = "no-such-host.invalid"
    with get_backend(name) as backend, pytest.raises(usb.core.USBError, match=re.escape(name)):
        usb.core.find(backend=backend)


@pytest.mark.parametrize("kind", ["path", "stream", "writer"])
def test_captured_while_used(port: int, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out.pcapng"
    with target.open("wb") as stream:
        writer = PcapWriter(stream)
        targets: dict[str, Any] = {"path": tmp_path / "by-path.pcapng", "stream": stream, "writer": writer}
        with get_backend("127.0.0.1", port, pcap=targets[kind]) as backend:
            dev = usb.core.find(backend=backend)
            dev.set_configuration()
            dev.write(0x04, b"hello")
        writer.close()
    packets = list(read_capture(tmp_path / "by-path.pcapng" if kind == "path" else target))
    assert any(packet.data.endswith(b"hello") for packet in packets)
