"""DTR and RTS. Programs change one after the other; edges so close together are meant to happen at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from usbip_capture.system.timetable import Timetable

#: Seconds within which edges of the two lines go out together. The circuit that resets an ESP32 looks at both lines,
#: and with the latency of a network between the two edges it would see a state that nobody meant.
MERGE_WINDOW = 0.002


class ControlLines:
    """The lines that this side drives; True is asserted. send: drives both."""

    def __init__(self, send: Callable[[bool, bool], None]) -> None:
        self._send = send
        self._lock = threading.RLock()
        self._timetable = Timetable("usbip-serial-lines")
        self._changed: set[str] = set()
        self.dtr = self.rts = False

    def start(self, dtr: bool, rts: bool) -> None:
        """What the lines are while nothing was sent yet."""
        with self._lock:
            self._changed.clear()
            self.dtr, self.rts = dtr, rts

    def set(self, name: str, value: bool) -> None:
        """Drive one line, `dtr` or `rts`. A second edge of the same line sends the first one at once."""
        with self._lock:
            if getattr(self, name) == value:
                return
            if name in self._changed:
                self.flush()
            setattr(self, name, value)
            first = not self._changed
            self._changed.add(name)
            if len(self._changed) == 2:
                self.flush()
            elif first:
                try:
                    self._timetable.after(MERGE_WINDOW, self.flush)
                except RuntimeError:  # no thread to be had: at once
                    self.flush()

    def flush(self) -> None:
        """Send what was not sent yet."""
        with self._lock:
            if self._changed:
                self._changed.clear()
                self._send(self.dtr, self.rts)

    def close(self) -> None:
        """Send what was not sent yet; nothing is sent later."""
        self.flush()
        self._timetable.close()
