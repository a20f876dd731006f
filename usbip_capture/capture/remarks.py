"""Remarks: what a capture reports beside its packets."""

from __future__ import annotations

import time

from usbip_capture.records.pcapng import MAX_TEXT

#: The interface of remarks that no packet could carry.
NOTES = "notes0"
#: Bytes that a remark takes beside its text, of which a character takes up to four.
_REMARK_COST = 256


class Remark:
    """A text of a moment of the capture, cut to what an option holds. cost: bytes that it takes."""

    __slots__ = ("cost", "text", "timestamp_ns")

    def __init__(self, text: str) -> None:
        self.text = text[:MAX_TEXT]
        self.cost = _REMARK_COST + 4 * len(self.text)
        self.timestamp_ns = time.time_ns()


class NotesInterface:
    """Queued where the interface NOTES begins."""

    def __init__(self, interface_id: int) -> None:
        self.interface_id = interface_id
