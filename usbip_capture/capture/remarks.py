"""What is said in a capture beside its packets."""

from __future__ import annotations

import time

#: The interface of remarks that no packet could carry.
NOTES = "notes0"


class Remark:
    """Something said at a moment of the capture."""

    __slots__ = ("text", "timestamp_ns")

    def __init__(self, text: str) -> None:
        self.text = text
        self.timestamp_ns = time.time_ns()


class Notes:
    """The interface NOTES, where it begins."""

    def __init__(self, interface_id: int) -> None:
        self.interface_id = interface_id
