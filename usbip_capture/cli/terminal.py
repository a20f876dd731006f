"""What a terminal gets that a file or a program does not: colours, and a line that shows what is waited for.

Text leaves for a person by `report` and `print_lines`, which clean it: a server or a device decides what is in it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import TextIO, cast

from usbip_capture.system.shown import one_line

# Ref: ECMA-48, 8.3.117 (SGR), 8.3.41 (EL)
_RESET = "\x1b[0m"
CLEAR_LINE = "\r\x1b[K"
BOLD, DIM, RED, GREEN, YELLOW = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"
_WIDE = ("W", "F")
_COLOURED = re.compile(r"(\x1b\[[0-9;]*m)")


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at it."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def takes_escapes(stream: TextIO | None) -> bool:
    """Whether it is a terminal that knows escape sequences. Ref: terminfo(5), the type `dumb`"""
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def is_colourful(stream: TextIO | None) -> bool:
    """Whether it takes colours, and they are wanted. Ref: https://no-color.org"""
    return takes_escapes(stream) and not os.environ.get("NO_COLOR")


class Paint:
    """Colours for `stream`, if it takes any."""

    def __init__(self, stream: TextIO | None) -> None:
        self._colourful = is_colourful(stream)

    def __call__(self, colour: str, text: str) -> str:
        """`text` in this colour."""
        return f"{colour}{text}{_RESET}" if self._colourful and text else text


def report(text: str) -> None:
    """A sentence for the person at standard error, on one line whatever is in it."""
    _print_line(f"usbip-capture: {one_line(text)}")


def print_log(text: str) -> None:
    """A message of a device's log, of several lines perhaps, which is printable already."""
    _print_line(f"[syslog] {text}")


def _print_line(text: str) -> None:
    # With its end in one piece: print() writes it by itself, and another thread's text may come between.
    print(f"{text}\n", end="", file=sys.stderr, flush=True)


def print_lines(lines: Iterable[str]) -> None:
    """Lines of text, without colours, to standard output: all in one piece, as a log may be printed meanwhile."""
    print("".join(f"{one_line(line)}\n" for line in lines), end="", flush=True)


def fresh_line() -> None:
    """After Ctrl-C: the terminal has shown ^C where the next message is to begin."""
    if is_terminal(sys.stderr):
        print(CLEAR_LINE if takes_escapes(sys.stderr) else "\n", end="", file=sys.stderr, flush=True)


def cut(text: str, columns: int) -> str:
    """As much of `text` as fits: colours take no column, East Asian characters two."""
    import unicodedata

    width = 0
    shown = []
    for part in _COLOURED.split(text):
        if part.startswith("\x1b"):
            shown.append(part)
            continue
        for character in part:
            width += 2 if unicodedata.east_asian_width(character) in _WIDE else 1
            if width <= columns:
                shown.append(character)
    return "".join(shown)


class Waiting:
    """A line on a terminal's standard error while something is waited for; nothing elsewhere.

    What is printed to `sys.stderr` in the meantime is put above it.
    """

    def __init__(self, text: str) -> None:
        from threading import RLock  # not for commands that wait for nothing

        self._text = text
        self._terminal = takes_escapes(sys.stderr)
        self._stream = sys.stderr
        self._lock = RLock()
        self._standing = False

    def show(self, text: str = "") -> None:
        """Put the line (back) there."""
        self._text = text or self._text
        if self._terminal:
            with self._lock:
                self._standing = True
                self._draw()

    def clear(self) -> None:
        """Erase it, for other output."""
        if self._terminal:
            with self._lock:
                self._standing = False
                print(CLEAR_LINE, end="", file=self._stream, flush=True)

    def above(self, text: str) -> int:
        """Print `text`, and the line again below it."""
        with self._lock:
            if self._standing:
                self._stream.write(CLEAR_LINE)
            written = self._stream.write(text)
            if self._standing and text.endswith("\n"):
                self._draw()
        return written

    def _draw(self) -> None:
        shown = cut(f"{one_line(self._text)} ... (Ctrl-C ends)", terminal_size(2)[0] - 1)
        print(f"{CLEAR_LINE}{shown}", end="", file=self._stream, flush=True)

    def __enter__(self) -> Waiting:
        if self._terminal:
            sys.stderr = cast(TextIO, _Above(self))
        self.show()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.clear()
        if self._terminal:
            sys.stderr = self._stream

    @property
    def stream(self) -> TextIO:
        """The terminal."""
        return self._stream


class _Above:
    """In place of `sys.stderr` while a line stands."""

    def __init__(self, waiting: Waiting) -> None:
        from threading import local

        self._waiting = waiting
        self._begun = local()  # each thread's line that is not complete: print() writes its end by itself

    def write(self, text: str) -> int:
        whole, newline, self._begun.text = (getattr(self._begun, "text", "") + text).rpartition("\n")
        if newline:
            self._waiting.above(whole + newline)
        return len(text)

    def flush(self) -> None:
        self._waiting.stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._waiting.stream, name)


def terminal_size(fd: int) -> tuple[int, int]:
    """Columns and lines as they are now; as the environment has them where the terminal does not know."""
    try:
        columns, lines = os.get_terminal_size(fd)
    except OSError:
        columns = lines = 0
    if columns > 0 and lines > 0:
        return columns, lines
    from shutil import get_terminal_size

    return get_terminal_size()
