"""The log of a device that this machine gets itself, in the capture of a server: by the server's clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

Messages: TypeAlias = "Sequence[tuple[int, bytes, Sequence[str]]]"


class OwnLog:
    """Has `put` write each message, `comment` what is to be known of all. Its clock is that of `at`."""

    def __init__(
        self, put: Callable[[Messages], None], comment: Callable[[str], None], at: Callable[[int], int]
    ) -> None:
        self._put = put
        self._comment = comment
        self._at = at

    def write(self, messages: Messages) -> None:
        """Capture packets: time stamp of this machine, packet with its tags, comments. Waits for the output."""
        self._put([(self._at(time_ns), packet, comments) for time_ns, packet, comments in messages])

    def lost(self, count: int) -> None:
        """So many messages were lost on their way to us."""
        self._comment(f"usbip-capture: {count} messages of the log were lost on their way")

    def note(self, text: str) -> None:
        """Comment on the whole log."""
        self._comment(text)
