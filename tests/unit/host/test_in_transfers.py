"""IN transfers in flight: as many as wanted, none lost, no recursion, none after the end."""

from __future__ import annotations

import pytest

from tests.fakes.idle_device import IdleDevice
from usbip_capture.device import Device, Transfer
from usbip_capture.host.in_transfers import InTransfers
from usbip_capture.usb.endpoints import Endpoint
from usbip_capture.usb.status import ECONNRESET, EMSGSIZE, EPROTO
from usbip_capture.usb.urb import Completion, TransferType

ENDPOINT = Endpoint(0x81, TransferType.BULK, 64, 64, 0, 0, 0, 0, 0xFF, 0, 0)


class Endless(IdleDevice):
    """Finishes a transfer within `submit` as long as it has messages; raises the first `raising` times."""

    def __init__(self, messages: int = 0) -> None:
        super().__init__()
        self.messages = messages
        self.raising = 0

    def submit(self, transfer: Transfer) -> None:
        if self.raising:
            self.raising -= 1
            raise ZeroDivisionError
        if self.messages:
            self.messages -= 1
            transfer.finish(Completion(0, 1, b"x"))
        else:
            super().submit(transfer)


class Reader:
    """What `completed` is called with; fills again while `wanted`."""

    def __init__(self, device: Device, depth: int, size: int = 512) -> None:
        self.seen: list[tuple[int, int]] = []
        self.wanted = True
        self.transfers = InTransfers(device, ENDPOINT, size, depth, self.completed)

    def completed(self, size: int, completion: Completion, seconds: float) -> None:
        assert seconds >= 0
        self.seen.append((size, completion.status))
        if self.wanted:
            self.transfers.fill()


def test_as_many_as_wanted_are_in_flight() -> None:
    device = Endless()
    reader = Reader(device, 3)
    reader.transfers.fill()
    reader.transfers.fill()
    assert [(t.urb.endpoint, t.urb.length) for t in device.pending] == [(0x81, 512)] * 3
    device.pending.pop(0).finish(Completion(0, 1, b"x"))
    assert len(device.pending) == 3


def test_a_device_that_finishes_at_once_is_no_recursion() -> None:
    device = Endless(50_000)
    reader = Reader(device, 2)
    reader.transfers.fill()
    assert len(reader.seen) == 50_000
    assert len(device.pending) == 2


def test_nothing_is_submitted_for_those_after_which_nothing_is_wanted() -> None:
    device = Endless(10)
    reader = Reader(device, 2)
    reader.wanted = False
    reader.transfers.fill()
    assert len(reader.seen) == 2
    assert not device.pending
    reader.transfers.fill()
    assert len(reader.seen) == 4


def test_a_device_that_raises_has_failed_the_transfer() -> None:
    device = Endless()
    device.raising = 2
    reader = Reader(device, 2)
    reader.transfers.fill()
    assert reader.seen == [(512, -EPROTO)] * 2
    assert len(device.pending) == 2


@pytest.mark.parametrize(("size", "expected"), [(512, 256), (100, 64)])
def test_too_large_is_halved_once_for_all_in_flight(size: int, expected: int) -> None:
    device = Endless()
    reader = Reader(device, 2, size)
    reader.transfers.fill()
    reader.wanted = False
    first, second = device.pending
    assert reader.transfers.halve(first.urb.length)
    assert reader.transfers.halve(second.urb.length)
    assert reader.transfers.size == expected
    for transfer in (first, second):
        transfer.finish(Completion(-EMSGSIZE))
    reader.transfers.fill()
    assert [t.urb.length for t in device.pending[2:]] == [expected] * 2


def test_less_than_a_packet_is_not_asked_for() -> None:
    reader = Reader(Endless(), 1, 64)
    assert not reader.transfers.halve(64)
    assert reader.transfers.size == 64


def test_after_the_end_what_is_in_flight_is_unlinked_and_nothing_follows() -> None:
    device = Endless()
    reader = Reader(device, 2)
    reader.transfers.fill()
    left = reader.transfers.end()
    assert sorted(map(id, left)) == sorted(map(id, device.pending))
    device.unlink(left, 0.0)
    assert sorted(map(id, device.cancelled)) == sorted(map(id, left))
    reader.transfers.fill()
    assert reader.seen == [(512, -ECONNRESET)] * 2
    assert reader.transfers.end() == []
    assert len(device.pending) == 2
