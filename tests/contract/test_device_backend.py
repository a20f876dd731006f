"""A `Device` over a PyUSB backend of somebody else's, which may do anything."""

from __future__ import annotations

import threading

import pytest

from tests.contract.openers import OVER_BACKEND, TIMEOUT, Foreign, bulk_out, control, run
from usbip_capture import get_backend
from usbip_capture.device import Device, Transfer
from usbip_capture.devices import backend as backend_module
from usbip_capture.devices.backend import BackendDevice
from usbip_capture.errors import DeviceNotFound
from usbip_capture.usb import setup as requests
from usbip_capture.usb.status import (
    ECONNRESET,
    EPROTO,
)


@pytest.mark.parametrize("opener", [OVER_BACKEND], indirect=True)
def test_what_a_backend_raises_of_its_own_is_a_protocol_error(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(device, BackendDevice)

    def fails(*_: object) -> int:
        raise Foreign

    with monkeypatch.context() as patch:
        for name in ("ctrl_transfer", "bulk_write"):
            patch.setattr(device._backend, name, fails)
        for urb in [control(requests.Setup(0xC0, 0x10, 0, 0, 4)), bulk_out(b"x")] * 2:
            assert run(device, urb).status == -EPROTO
    assert run(device, bulk_out(b"x")).status == 0
    patched = pytest.MonkeyPatch()
    for name in ("release_interface", "close_device"):
        patched.setattr(device._backend, name, fails)
    device.close()  # never raises
    patched.undo()


@pytest.mark.parametrize("opener", [OVER_BACKEND], indirect=True)
def test_close_returns_although_a_backend_does_not(
    device: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(device, BackendDevice)
    monkeypatch.setattr(backend_module, "_CLOSE_PATIENCE", 0.05)
    begun, goes_on = threading.Event(), threading.Event()

    def hangs(*_: object) -> int:
        begun.set()
        goes_on.wait(TIMEOUT)
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(device._backend, "ctrl_transfer", hangs)
        transfer = Transfer(control(requests.Setup(0xC0, 0x10, 0, 0, 4)))
        device.submit(transfer)
        assert begun.wait(TIMEOUT)
        device.close()
    assert transfer.completion is not None
    assert transfer.completion.status == -ECONNRESET
    assert "stays open" in caplog.text
    goes_on.set()


@pytest.mark.parametrize("failing", ["open_device", "get_device_descriptor", "ctrl_transfer", "get_configuration"])
def test_a_backend_that_fails_when_it_is_opened(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with get_backend("demo") as backend:
        dev = next(backend.enumerate_devices())

        def fails(*_: object) -> object:
            raise Foreign("no such thing")

        monkeypatch.setattr(backend, failing, fails)
        with pytest.raises(DeviceNotFound, match="Foreign no such thing"):
            BackendDevice(backend, dev)
