"""What a terminal gets that a file or a program does not: colours, and a line that tells what is waited for."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TextIO

# Ref: ECMA-48, 8.3.117 (SGR), 8.3.41 (EL)
_RESET = "\x1b[0m"
_CLEAR_LINE = "\r\x1b[K"
BOLD, DIM, RED, GREEN, YELLOW = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at it."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def is_colourful(stream: TextIO | None) -> bool:
    """Whether it takes colours, and they are wanted. Ref: https://no-color.org"""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Paint:
    """Colours for `stream`, if it takes any."""

    def __init__(self, stream: TextIO | None) -> None:
        self._colourful = is_colourful(stream)

    def __call__(self, colour: str, text: str) -> str:
        """`text` in this colour."""
        return f"{colour}{text}{_RESET}" if self._colourful and text else text


def harmless(text: str) -> str:
    """`text` without what a terminal might take for a command: a device or a server decides what is in it."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def tell(text: str) -> None:
    """A sentence for the person at standard error."""
    print(f"usbip-capture: {text}", file=sys.stderr, flush=True)


class Waiting:
    """A line on a terminal's standard error while something is waited for; nothing elsewhere."""

    def __init__(self, text: str) -> None:
        self._shown = is_terminal(sys.stderr)
        self._text = text

    def show(self, text: str = "") -> None:
        """Put the line (back) there."""
        if self._shown:
            self._text = text or self._text
            print(f"{_CLEAR_LINE}{self._text} ... (Ctrl-C ends)", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take it away, for other output."""
        if self._shown:
            print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Waiting:
        self.show()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.clear()
