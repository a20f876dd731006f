"""Counts what passes on each endpoint of a device, for those who watch a capture."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from usbip_capture.tap import Tap
from usbip_capture.usb.status import UNLINKED
from usbip_capture.usb.urb import Completion, TransferType, Urb


@dataclass(slots=True)
class Count:
    """urbs: that came back. bytes: that they moved. errors: URBs with a status; status: the last one's."""

    urbs: int = 0
    bytes: int = 0
    errors: int = 0
    status: int = 0


class Meter(Tap):
    """URBs by endpoint address, 0 for control in both directions. What was unlinked does not count as an error."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[int, Count] = {}

    def counts(self) -> dict[int, Count]:
        """By endpoint address, as they are now."""
        with self._lock:
            return {address: replace(count) for address, count in sorted(self._counts.items())}

    def submitted(self, urb: Urb) -> int:
        return 0

    def completed(self, urb_id: int, urb: Urb, completion: Completion) -> None:
        if completion.status in UNLINKED:
            return
        address = 0 if urb.transfer_type == TransferType.CONTROL else urb.endpoint
        with self._lock:
            count = self._counts.get(address)
            if count is None:
                count = self._counts[address] = Count()
            count.urbs += 1
            count.bytes += completion.actual_length
            count.errors += bool(completion.status or completion.error_count)
            count.status = completion.status

    def unlink(self, urb_id: int, message: bytes) -> None:
        """What a URB comes to is known when it is completed."""
