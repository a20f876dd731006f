"""`Device.unlink`: cancel, one grace for all, abandon; whatever the device does, all are finished afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from usbip_capture.device import Device, Transfer
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.status import ECONNRESET
from usbip_capture.usb.urb import FLAG_DIR_IN, Completion, TransferType, Urb


class Unresponsive(Device):
    """Finishes the transfers on these endpoints when they are cancelled, and no others."""

    def __init__(self, *unlinked: int) -> None:
        self.info = DeviceInfo("1-1", 1, 2, Speed.FULL, 0x1209, 1)
        self.unlinked = unlinked
        self.calls: list[tuple[str, int]] = []
        self.waited: list[float] = []

    @property
    def alive(self) -> bool:
        return True

    def submit(self, transfer: Transfer) -> None:
        pass

    def cancel(self, transfer: Transfer) -> None:
        self.calls.append(("cancel", transfer.urb.endpoint))
        if transfer.urb.endpoint in self.unlinked:
            transfer.finish(Completion(-ECONNRESET))

    def wait(self, transfer: Transfer, timeout: float | None = None) -> bool:
        if transfer.completion is None:
            self.waited.append(timeout or 0.0)
        return transfer.completion is not None

    def abandon(self, transfer: Transfer) -> None:
        self.calls.append(("abandon", transfer.urb.endpoint))
        transfer.finish(Completion(-ECONNRESET))

    def watch(self, on_lost: Callable[[str], None]) -> None:
        pass

    def close(self) -> None:
        pass


def reads(*endpoints: int) -> list[Transfer]:
    return [Transfer(Urb(TransferType.BULK, address, 64, flags=FLAG_DIR_IN)) for address in endpoints]


def test_all_are_cancelled_before_one_is_waited_for() -> None:
    device, transfers = Unresponsive(0x81, 0x83), reads(0x81, 0x82, 0x83)
    device.unlink(transfers, 1.0)
    assert device.calls == [("cancel", 0x81), ("cancel", 0x82), ("cancel", 0x83), ("abandon", 0x82)]
    assert all(transfer.completion is not None for transfer in transfers)


def test_one_grace_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    device, now = Unresponsive(), [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def wait(transfer: Transfer, timeout: float | None = None) -> bool:
        if transfer.completion is None:
            now[0] += timeout or 0.0
        return Unresponsive.wait(device, transfer, timeout)

    monkeypatch.setattr(device, "wait", wait)
    device.unlink(reads(*range(0x81, 0x89)), 0.25)
    assert device.waited == [0.25, *[0.0] * 7]


def test_what_is_finished_is_not_abandoned() -> None:
    device, transfers = Unresponsive(), reads(0x81)
    transfers[0].finish(Completion(0, 2, b"ab"))
    device.unlink(transfers, 0.0)
    assert ("abandon", 0x81) not in device.calls


def test_what_another_thread_is_about_to_submit_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Unresponsive()
    monkeypatch.setattr(device, "abandon", lambda transfer: None)  # not pending yet
    bounds: list[float | None] = []

    def wait(transfer: Transfer, timeout: float | None = None) -> bool:
        bounds.append(timeout)
        return False

    monkeypatch.setattr(device, "wait", wait)
    device.unlink(reads(0x81), 0.0)
    assert None not in bounds
