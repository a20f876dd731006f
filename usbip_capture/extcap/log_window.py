"""The device's log in the toolbar's window."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from usbip_capture.syslog.message import Message

#: Lines a second that the window gets; a flood does not help anybody there.
_SHOWN_PER_SECOND = 100


class LogWindow:
    """`show` gets a line for each message, within reason. with_source: lines also name who sent them."""

    def __init__(self, show: Callable[[str], object]) -> None:
        self.with_source = False
        self._show = show
        self._second = 0
        self._shown = self._left_out = 0

    def add(self, message: Message) -> None:
        """Show a message, unless there are too many."""
        from usbip_capture.collector.display import line

        second = time.time_ns() // 1_000_000_000
        if second != self._second:
            self.report_left_out()
            self._second, self._shown = second, 0
        if self._shown < _SHOWN_PER_SECOND:
            self._shown += 1
            self._show(line(message, with_source=self.with_source) + "\n")
        else:
            self._left_out += 1

    def report_left_out(self) -> None:
        """Show how many messages were not shown."""
        if self._left_out:
            self._show(f"({self._left_out} more messages of the log, not shown here)\n")
        self._left_out = 0
