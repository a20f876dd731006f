"""Control requests of a driver: how many at once, and for how long."""

from __future__ import annotations

import time

import pytest

from tests.fakes.idle_device import IdleDevice
from tests.unit.uart.chips import ACM, device, only_port, vendor_port
from usbip_capture.device import UNLINK_GRACE, Transfer
from usbip_capture.errors import DeviceError, DeviceGone, TransferFailed, TransferTimeout
from usbip_capture.serial_port import controls
from usbip_capture.uart.driver import Driver
from usbip_capture.uart.settings import LineSettings
from usbip_capture.usb.status import ENODEV, EPIPE, ETIMEDOUT
from usbip_capture.usb.urb import Completion


class Counted(IdleDevice):
    """Finishes what is waited for, unless silent; `most` were in flight together."""

    def __init__(self, silent: bool = False, status: int = 0) -> None:
        super().__init__()
        self.most = self.count = 0
        self.silent = silent
        self.status = status
        self.timeouts: list[float] = []

    def submit(self, transfer: Transfer) -> None:
        super().submit(transfer)
        self.count += 1
        self.most = max(self.most, len(self.pending))

    def wait(self, transfer: Transfer, timeout: float | None = None) -> bool:
        if not self.silent and transfer in self.pending:
            self.pending.remove(transfer)
            transfer.finish(Completion(self.status))
        elif timeout:
            self.timeouts.append(timeout)
        return transfer.completion is not None


def opened(descriptors: str, vendor: int) -> Driver:
    return only_port(device(vendor, 0x6001, 0x0600), descriptors).driver()


@pytest.mark.parametrize(("descriptors", "vendor", "most"), [(vendor_port(0), 0x0403, 1), (ACM, 0x1209, 2)])
def test_an_ftdi_chip_is_asked_one_thing_at_a_time(descriptors: str, vendor: int, most: int) -> None:
    driver, counted = opened(descriptors, vendor), Counted()
    requests = [*driver.open(), *driver.apply(None, LineSettings()), *driver.set_lines(True, True)]
    controls.run(counted, driver, requests)
    assert (counted.count, counted.most) == (len(requests), most)


@pytest.mark.parametrize(("descriptors", "vendor"), [(vendor_port(0), 0x0403), (ACM, 0x1209)])
def test_a_list_of_requests_has_one_time_out(descriptors: str, vendor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one for each of its requests."""
    driver, counted = opened(descriptors, vendor), Counted(silent=True)
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    requests = [*driver.open(), *driver.apply(None, LineSettings()), *driver.set_lines(True, True)]

    def wait(transfer: Transfer, timeout: float | None = None) -> bool:
        now[0] += (timeout or 0.0) if transfer.completion is None else 0.0
        return Counted.wait(counted, transfer, timeout)

    monkeypatch.setattr(counted, "wait", wait)
    with pytest.raises(TransferTimeout, match="no answer within 5 s"):
        controls.run(counted, driver, requests)
    assert now[0] - 100.0 <= controls.TIMEOUT + UNLINK_GRACE


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (-EPIPE, TransferFailed, "EPIPE .stall."),
        (-ETIMEDOUT, TransferTimeout, "timed out"),
        (-ENODEV, DeviceGone, "no such device"),
    ],
)
def test_a_request_that_fails_is_no_lost_server(status: int, kind: type[DeviceError], words: str) -> None:
    driver, counted = opened(ACM, 0x1209), Counted(status=status)
    with pytest.raises(kind, match=f"does not do what its serial port should: control request .*: .*{words}") as caught:
        controls.run(counted, driver, driver.apply(None, LineSettings()))
    assert caught.value.status == status
