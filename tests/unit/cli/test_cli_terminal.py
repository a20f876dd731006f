"""Text for people leaves in one piece: another thread's line may come between two pieces."""

from __future__ import annotations

import io
import sys

import pytest

from usbip_capture.cli import terminal


class Pieces(io.StringIO):
    """A stream that keeps what each call wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def write(self, text: str) -> int:
        if text:
            self.written.append(text)
        return len(text)


def test_lines_leave_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    output, errors = Pieces(), Pieces()
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", errors)
    terminal.print_lines(["one", "two\x1b[2J"])
    terminal.report("a sentence")
    terminal.print_log("a message\nof two lines")
    assert output.written == ["one\ntwo\\x1b[2J\n"]
    assert errors.written == ["usbip-capture: a sentence\n", "[syslog] a message\nof two lines\n"]
