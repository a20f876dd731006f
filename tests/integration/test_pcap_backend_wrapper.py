"""Any PyUSB backend captured: our own, standing in for libusb's, wrapped."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import usb.core

from tests.fakes.loopback_device import LoopbackServer, loopback_server
from tests.oracles.pcapng_reader import CapturedRecord, read_capture
from usbip_capture import PcapBackendWrapper, PcapWriter, get_backend
from usbip_capture.demo.device import BULK_IN, BULK_OUT, DESCRIPTORS, ISO_IN, ISO_OUT
from usbip_capture.pyusb_backend import UsbipBackend
from usbip_capture.usb.status import ECONNRESET, EPIPE, EPROTO
from usbip_capture.usb.urb import TransferType

BULK, CONTROL, ISO = TransferType.BULK, TransferType.CONTROL, TransferType.ISOCHRONOUS


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with loopback_server() as opened:
        yield opened


@pytest.fixture
def inner(server: LoopbackServer) -> Iterator[UsbipBackend]:
    with get_backend("127.0.0.1", server.port) as opened:
        yield opened


def records(path: Path) -> list[CapturedRecord]:
    return [record for record in read_capture(path) if record.usb]


def test_transfers_are_captured_as_ours_are(inner: UsbipBackend, tmp_path: Path) -> None:
    path = tmp_path / "wrapped.pcapng"
    with PcapBackendWrapper(inner, path) as backend:
        dev = usb.core.find(backend=backend)
        dev.set_configuration()
        assert dev.write(BULK_OUT, b"hello") == 5
        assert bytes(dev.read(BULK_IN, 64)) == b"hello"
        with pytest.raises(usb.core.USBTimeoutError):
            dev.read(BULK_IN, 64, 20)
        with pytest.raises(usb.core.USBError):
            dev.ctrl_transfer(0xC0, 0x77, 0, 0, 4)
        dev.set_interface_altsetting(3, 1)
        dev.write(ISO_OUT, bytes(range(100)))
        assert bytes(dev.read(ISO_IN, 128)) == bytes(range(100))
    seen = [record.usb for record in records(path) if record.usb]
    shape = [(chr(usb.type), usb.xfer_type, usb.epnum, usb.status, bytes(usb.data)) for usb in seen]
    assert ("S", BULK, BULK_OUT, -115, b"hello") in shape
    assert ("C", BULK, BULK_IN, 0, b"hello") in shape
    assert ("C", BULK, BULK_IN, -ECONNRESET, b"") in shape
    assert ("C", CONTROL, 0x80, -EPIPE, b"") in shape
    assert ("C", CONTROL, 0x80, 0, DESCRIPTORS.configurations[0]) in shape
    (iso,) = [usb for usb in seen if usb.xfer_type == ISO and chr(usb.type) == "C" and usb.epnum == ISO_IN]
    assert [packet.length for packet in iso.packets] == [64, 36]


@pytest.mark.parametrize(("error", "status"), [(OSError(5, "odd"), -EPROTO), (KeyboardInterrupt(), -ECONNRESET)])
def test_whatever_a_backend_raises_ends_the_urb(
    inner: UsbipBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int
) -> None:
    path = tmp_path / "wrapped.pcapng"

    def fails(*_: object) -> int:
        raise error

    with PcapBackendWrapper(inner, path) as backend:
        dev = usb.core.find(backend=backend)
        with monkeypatch.context() as patch:
            patch.setattr(inner, "ctrl_transfer", fails)
            if isinstance(error, Exception):
                dev.get_active_configuration()  # opened although its descriptors cannot be read then
            with pytest.raises(type(error)):
                dev.ctrl_transfer(0xC0, 0x10, 0, 0, 4)
    ends = [record.usb for record in records(path) if record.usb and chr(record.usb.type) == "C"]
    assert [end.status for end in ends] == [status] * len(ends)
    assert ends


def test_descriptors_at_the_start_are_marked(inner: UsbipBackend, tmp_path: Path) -> None:
    path = tmp_path / "wrapped.pcapng"
    with PcapBackendWrapper(inner, path) as backend:
        dev = usb.core.find(backend=backend)
        dev.get_active_configuration()
        dev.write(BULK_OUT, b"x")
    marked = [any("descriptors" in comment for comment in record.comments) for record in records(path)]
    assert marked[0]
    assert not marked[-1]


@pytest.mark.parametrize("kind", ["stream", "writer"])
def test_who_closes_the_capture(inner: UsbipBackend, kind: str) -> None:
    stream = io.BytesIO()
    writer = PcapWriter(stream)
    target: Any = stream if kind == "stream" else writer
    with PcapBackendWrapper(inner, target) as backend:
        usb.core.find(backend=backend).write(BULK_OUT, b"x")
    assert not stream.closed
    writer.comment("still open")
    writer.close()


def test_other_attributes_are_the_backend_s(inner: UsbipBackend) -> None:
    inner.lib = "what mtkclient looks for"  # type: ignore[attr-defined]
    with PcapBackendWrapper(inner, io.BytesIO()) as backend:
        assert backend.lib == "what mtkclient looks for"
        with pytest.raises(AttributeError):
            _ = backend.nothing_like_that


def test_not_a_backend(tmp_path: Path) -> None:
    nothing: Any = None
    with pytest.raises(TypeError, match="the library is not installed"):
        PcapBackendWrapper(nothing, tmp_path / "x.pcapng")
    assert not list(tmp_path.iterdir())
