"""What a URB costs a device by libusb does not depend on how many are pending, in libusb or waiting for room there.

Nor does anything stay of it once it has ended.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.builders.local_usb import local_usb
from tests.growth import assert_grows_linearly
from tests.waiting import wait_until
from usbip_capture.demo.device import BULK_IN, BULK_OUT
from usbip_capture.device import Transfer
from usbip_capture.devices.libusb import device as device_module
from usbip_capture.devices.libusb import handle
from usbip_capture.devices.libusb.budget import Budget
from usbip_capture.devices.libusb.device import LibusbDevice
from usbip_capture.usb.status import ECONNRESET
from usbip_capture.usb.urb import TransferType, Urb

TIMEOUT = 20.0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def cancelled(device: LibusbDevice, transfers: list[Transfer]) -> None:
    for transfer in reversed(transfers):
        device.cancel(transfer)


def closed(device: LibusbDevice, transfers: list[Transfer]) -> None:
    device.close()


@pytest.mark.parametrize("budget", [1000, 1 << 30], ids=["waiting", "in libusb"])
@pytest.mark.parametrize("end", [cancelled, closed])
def test_many_pending(
    budget: int,
    end: Callable[[LibusbDevice, list[Transfer]], None],
    stack: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_module, "shared_budget", Budget(budget))

    def prepare(count: int) -> Callable[[], None]:
        usb = stack.enter_context(local_usb())
        usb.module.memory = 1 << 30
        device = usb.open()
        transfers = [Transfer(Urb(TransferType.BULK, BULK_IN, 600)) for _ in range(count)]

        def run() -> None:
            for transfer in transfers:
                device.submit(transfer)
            end(device, transfers)
            for transfer in transfers:
                assert device.wait(transfer, TIMEOUT)
                assert transfer.completion is not None
                assert transfer.completion.status == -ECONNRESET

        return run

    assert_grows_linearly(prepare, 1000)


class Data(bytearray):
    """That can be watched."""


@pytest.mark.parametrize("end", ["while it is open", "when it is closed"])
def test_data_is_forgotten(end: str, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handle, "_MAX_LARGE", 4)
    gc.disable()  # what is part of a cycle might stay for long
    stack.callback(gc.enable)
    usb = stack.enter_context(local_usb())
    device = usb.open()
    usb.context.hold(True)
    data = [Data(80 << 10) for _ in range(12)]  # which the demo device takes
    kept = [weakref.ref(part) for part in data]
    transfers = [Transfer(Urb(TransferType.BULK, BULK_OUT, len(part), part)) for part in data]
    for transfer in transfers:
        device.submit(transfer)
    usb.context.hold(False)
    for transfer in transfers:
        assert device.wait(transfer, TIMEOUT)
    del data, transfers, transfer
    most = 4  # idle transfers with the buffers that they had
    if end == "when it is closed":
        device.close()
        most = 0
    wait_until("the data is forgotten", lambda: sum(ref() is not None for ref in kept) <= most)
