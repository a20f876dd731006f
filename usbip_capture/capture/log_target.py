"""What a log is captured by, as those see it who have one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from usbip_capture.errors import CaptureError


class LogTarget(Protocol):
    """Where messages of a log are captured."""

    def write(self, messages: Sequence[tuple[int, bytes, Sequence[str]]]) -> None:
        """Capture packets: time stamp, packet with its tags, comments."""

    def lost(self, count: int) -> None:
        """So many messages were lost on their way to us."""

    def note(self, text: str) -> None:
        """Comment on the whole log."""


@runtime_checkable
class LogCapture(Protocol):
    """A capture that logs can be a part of."""

    @property
    def error(self) -> CaptureError | None: ...

    def add_log_interface(self, description: str) -> LogTarget:
        """An interface of its own for a log."""

    def comment(self, text: str) -> None:
        """Comment on this moment."""
