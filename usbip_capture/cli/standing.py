"""Lines that stand at the bottom of a terminal while other text scrolls by above them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import TypeVar

from usbip_capture.cli.terminal import BOLD, CLEAR_LINE, Paint, cut, takes_escapes, terminal_size

V = TypeVar("V", bound="LiveLines")

# Ref: ECMA-48, 8.3.12 (CPL), 8.3.41 (EL), 8.3.39 (ED)
_UP, _END_OF_LINE, _REST = "\x1b[{}F", "\x1b[K", "\x1b[J"
_STDERR = 2
_CHUNK = 64 << 10
#: Seconds for what was written to standard error to reach the terminal; a child process may hold it open for longer.
_DRAIN_TIMEOUT = 1.0


class StandingLines:
    """Lines at the bottom of the terminal of standard error, in a `with` block.

    File descriptor 2 is a pipe meanwhile, so that whatever writes to it, be it logging, warnings or a child process, is
    printed above the lines, which are then drawn again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: Sequence[str] = ()
        self._drawn = 0
        self._drawn_columns = 0
        self._terminal = -1
        self._rest = b""  # a line that is not complete
        self._reader: threading.Thread | None = None

    def show(self, lines: Sequence[str]) -> None:
        """These lines from now on, as much of them as the terminal has room for."""
        with self._lock:
            self._lines = lines
            self._write(self._erased() + self._drawing())

    def __enter__(self) -> StandingLines:
        sys.stderr.flush()
        self._terminal = os.dup(_STDERR)
        ours, theirs = os.pipe()
        os.dup2(theirs, _STDERR)
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, args=(ours,), name="usbip-terminal", daemon=True)
        self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """The lines stay where they are; what follows comes below."""
        sys.stderr.flush()
        with self._lock:
            gone = not self._write(CLEAR_LINE)
        if gone:  # closed meanwhile: further output would fail
            os.close(self._terminal)
            self._terminal = os.open(os.devnull, os.O_WRONLY)
        os.dup2(self._terminal, _STDERR)  # and so the pipe is closed, unless a child process has it
        if not os.isatty(_STDERR):  # closed meanwhile: each write would fail
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, _STDERR)
            os.close(nowhere)
        if self._reader is not None:
            self._reader.join(_DRAIN_TIMEOUT)
        with self._lock:
            self._lines, self._drawn = (), 0
            self._write(CLEAR_LINE)  # ^C, as the terminal shows it
        if self._reader is None or not self._reader.is_alive():
            os.close(self._terminal)

    def _read(self, fd: int) -> None:
        while data := os.read(fd, _CHUNK):
            whole, newline, rest = (self._rest + data).rpartition(b"\n")
            if not newline and len(rest) < _CHUNK:
                self._rest = rest
                continue
            self._rest = rest if newline else b""
            self._above(whole + newline if newline else rest + b"\n")
        if self._rest:
            self._above(self._rest + b"\n")
        os.close(fd)

    def _above(self, text: bytes) -> None:
        with self._lock:
            self._write(self._erased(), text, self._drawing())

    def _erased(self) -> str:
        """What erases the lines. Ones that a narrower terminal may have wrapped stay: nothing else is erased."""
        drawn, self._drawn = self._drawn, 0
        if not drawn or self._drawn_columns > terminal_size(self._terminal)[0]:
            return CLEAR_LINE
        return f"{CLEAR_LINE}{_UP.format(drawn)}{_REST}"

    def _drawing(self) -> str:
        columns, height = terminal_size(self._terminal)
        lines = self._lines[: max(height - 1, 1)]
        self._drawn, self._drawn_columns = len(lines), columns
        return "".join(f"{cut(line, columns - 1)}{_END_OF_LINE}\n" for line in lines)

    def _write(self, *parts: str | bytes) -> bool:
        """False if the terminal is gone, which is no reason to end a capture."""
        raw = b"".join(part.encode("utf-8", "replace") if isinstance(part, str) else part for part in parts)
        try:
            while raw:
                raw = raw[os.write(self._terminal, raw) :]
        except OSError:
            return False
        return True


class LiveLines:
    """A title and rows on standard error, again and again.

    On a terminal they stand below whatever else is printed, in a `with` block; elsewhere they follow, for a log.
    """

    def __init__(self) -> None:
        self._standing = StandingLines() if takes_escapes(sys.stderr) else None
        self._paint = Paint(sys.stderr)

    def put(self, title: str, how_to_end: str, heading: str, rows: Sequence[str]) -> None:
        """Show them in place of the last ones."""
        if self._standing is not None:
            self._standing.show([f"{self._paint(BOLD, title)}; {how_to_end}", *([heading] if rows else []), *rows])
        else:
            print("\n".join([f"usbip-capture: {title}", *rows]), file=sys.stderr, flush=True)

    def __enter__(self: V) -> V:
        if self._standing is not None:
            self._standing.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._standing is not None:
            self._standing.__exit__(kind, error, at)
