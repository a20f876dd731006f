"""The tap, when the device is closed between the recording of a URB and its submission."""

from __future__ import annotations

import pytest

from tests.contract.openers import Opener, bulk_in
from usbip_capture.device import Device, Transfer
from usbip_capture.tap import Tap, Tapped
from usbip_capture.usb.setup import get_descriptor
from usbip_capture.usb.status import ECONNRESET, ESHUTDOWN
from usbip_capture.usb.urb import Completion, IsoPacket, TransferType, Urb


class Ending(Tap):
    """Ends the device, by `how`, as the first URB is recorded."""

    def __init__(self, device: Device, how: str, opener: Opener) -> None:
        self.tapped = Tapped(device, self)
        self.statuses: list[int] = []
        self.packets: list[int] = []
        self._how, self._opener = how, opener

    def submitted(self, urb: Urb) -> int:
        if self._how == "lost":
            self._opener.innermost[-1].close()
        self.tapped.close()
        return 1

    def completed(self, urb_id: int, urb: Urb, completion: Completion) -> None:
        self.statuses.append(completion.status)
        self.packets += [packet.status for packet in completion.packets]

    def unlink(self, urb_id: int, message: bytes) -> None:
        """Nothing is in flight."""


@pytest.mark.parametrize("kind", ["simulated", "delayed", "remote", "libusb"])
def test_what_was_being_submitted_when_we_closed_was_unlinked(kind: str) -> None:
    opener = Opener(kind)
    try:
        tap = Ending(opener.open(), "closed", opener)
        first, later = (Transfer(bulk_in(8), lambda _: None) for _ in range(2))
        tap.tapped.submit(first)
        tap.tapped.submit(later)  # never on any wire, and not recorded
        assert tap.statuses == [-ECONNRESET]
        assert [t.completion and t.completion.status for t in (first, later)] == [-ESHUTDOWN] * 2
    finally:
        opener.close()


def test_its_packets_were_not_done() -> None:
    opener = Opener("remote")
    try:
        tap = Ending(opener.open(), "closed", opener)
        packets = [IsoPacket(0, 8), IsoPacket(8, 8)]
        tap.tapped.submit(Transfer(Urb(TransferType.ISOCHRONOUS, 0x85, 16, packets=packets), lambda _: None))
        assert (tap.statuses, len(tap.packets)) == ([-ECONNRESET], 2)
        assert 0 not in tap.packets
    finally:
        opener.close()


def test_what_finds_its_device_lost_finds_it_lost() -> None:
    opener = Opener("simulated")
    try:
        tap = Ending(opener.open(), "lost", opener)
        tap.tapped.submit(Transfer(bulk_in(8), lambda _: None))
        assert tap.statuses == [-ESHUTDOWN]
    finally:
        opener.close()


class Numbering(Tap):
    """Gives numbers from `first` on, and keeps those that come back."""

    def __init__(self, first: int) -> None:
        self._next = first
        self.came: list[int] = []

    def submitted(self, urb: Urb) -> int:
        self._next += 1
        return self._next

    def completed(self, urb_id: int, urb: Urb, completion: Completion) -> None:
        self.came.append(urb_id)

    def unlink(self, urb_id: int, message: bytes) -> None:
        """Nothing is cancelled."""


def test_each_of_several_taps_gets_its_own_number_back() -> None:
    opener = Opener("simulated")
    try:
        inner, outer = Numbering(10), Numbering(70)
        device = Tapped(Tapped(opener.open(), inner), outer)
        for done in (None, lambda _: None):
            transfer = Transfer(Urb.control(get_descriptor(1, 0, 0, 18).pack()), done)
            device.submit(transfer)
            assert device.wait(transfer, 20)
        assert (inner.came, outer.came) == ([11, 12], [71, 72])
    finally:
        opener.close()
