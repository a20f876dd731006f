"""A port as a pseudo-terminal: for programs that open a path. Not on Windows.

The speed that a program sets there is the port's. Modem lines and parity do not pass: Linux's pseudo-terminals have
none.

Ref: Linux pty(7); drivers/tty/pty.c, pty_set_termios
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from serial import Serial

from usbip_capture.errors import LocalProtocolError
from usbip_capture.serial_port.bridge.copying import FarEnd, copy

_CHUNK = 4096


def serve(port: Serial, link: str, announce: Callable[[str], None]) -> None:
    """Serve `port` until it fails. link: a symbolic link to the terminal, or empty; announce: called with its path.

    Raises LocalProtocolError where there are no pseudo-terminals, or when the link cannot be made.
    """
    if sys.platform == "win32":
        raise LocalProtocolError("there are no pseudo-terminals on Windows: use --tcp or --rfc2217")
    with PseudoTerminal(port, link) as terminal:
        announce(link or terminal.path)
        copy(port, terminal)


if sys.platform != "win32":
    import termios
    import tty

    _SPEEDS = {getattr(termios, name): int(name[1:]) for name in dir(termios) if name[0] == "B" and name[1:].isdigit()}

    class PseudoTerminal(FarEnd):
        """`path` is what programs open, one after the other or several at once."""

        def __init__(self, port: Serial, link: str) -> None:
            self._port = port
            self._link = link
            # Ours stays open at both ends, so that programs may come and go.
            self._ours, self._theirs = os.openpty()
            self.path = os.ttyname(self._theirs)
            tty.setraw(self._theirs)
            self._set_speed()
            os.set_blocking(self._ours, False)
            self._speed = self._speed_now()
            if link:
                self._make_link()

        def fileno(self) -> int:
            return self._ours

        def receive(self) -> bytes:
            self.idle()
            return os.read(self._ours, _CHUNK)

        def send(self, data: bytes) -> int:
            return os.write(self._ours, data)

        def idle(self) -> None:
            speed = self._speed_now()
            if speed != self._speed:
                self._speed = speed
                if speed:
                    self._port.baudrate = speed

        def __enter__(self) -> PseudoTerminal:
            return self

        def __exit__(self, *_: object) -> None:
            os.close(self._ours)
            os.close(self._theirs)
            if self._link and os.path.islink(self._link):
                os.unlink(self._link)

        def _speed_now(self) -> int:
            return _SPEEDS.get(termios.tcgetattr(self._theirs)[5], 0)

        def _set_speed(self) -> None:
            """Begin with the port's, if terminals know it."""
            for code, speed in _SPEEDS.items():
                if speed == self._port.baudrate:
                    settings = termios.tcgetattr(self._theirs)
                    settings[4] = settings[5] = code
                    termios.tcsetattr(self._theirs, termios.TCSANOW, settings)

        def _make_link(self) -> None:
            try:
                if os.path.islink(self._link):
                    os.unlink(self._link)
                os.symlink(self.path, self._link)
            except OSError as error:
                link, self._link = self._link, ""
                self.__exit__()
                raise LocalProtocolError(
                    f"the link {link} cannot be made ({error.strerror}): give a path in a folder of yours"
                ) from error
