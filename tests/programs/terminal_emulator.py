"""What a person sees of a program on a terminal: a real pseudo-terminal, and an emulator that reads it."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import pyte

from tests.programs.commands import command_environment


class Terminal:
    """A terminal of `columns` x `lines`, with all that has scrolled off it."""

    def __init__(self, columns: int = 110, lines: int = 40) -> None:
        self._screen = pyte.HistoryScreen(columns, lines, history=10_000)
        self._stream = pyte.ByteStream(self._screen)
        self._size = columns, lines
        self._master = -1
        #: All that was written to it.
        self.raw = b""

    def resize(self, columns: int, lines: int) -> None:
        """As a person does with the window."""
        self._size = columns, lines
        self._screen.resize(lines, columns)
        if self._master >= 0:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        """Press keys, such as Ctrl-C."""
        os.write(self._master, keys)

    def run(
        self, line: str, folder: Path, on_output: Callable[[Terminal], object] = lambda terminal: None, **more: str
    ) -> int:
        """Run a line for a shell to its end; `on_output` is called whenever something was written. The exit code."""
        environment = command_environment(folder, **{"TERM": "xterm", **more})
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        self._master, slave = pty.openpty()
        self.resize(*self._size)
        with subprocess.Popen(
            ["setsid", "--ctty", "--wait", "sh", "-c", line],
            cwd=folder,
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        ) as process:
            os.close(slave)
            try:
                while data := os.read(self._master, 65536):
                    self.raw += data
                    self._stream.feed(data)
                    on_output(self)
            except OSError:  # so a terminal ends on Linux
                pass
            os.close(self._master)
            return process.wait(30)

    @property
    def text(self) -> list[str]:
        """Every line from the first one on, without blanks at its end."""
        history = ["".join(row[at].data for at in range(self._screen.columns)) for row in self._screen.history.top]
        lines = [line.rstrip() for line in [*history, *self._screen.display]]
        while lines and not lines[-1]:
            lines.pop()
        return lines
