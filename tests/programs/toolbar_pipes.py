"""Wireshark's ends of the toolbar's pipes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from usbip_capture.extcap.controls import Message, Parser, pack


class Window:
    """Wireshark's ends of the two pipes."""

    def __init__(self, folder: Path) -> None:
        self.control_in, self.control_out = folder / "control-in", folder / "control-out"
        for pipe in (self.control_in, self.control_out):
            os.mkfifo(pipe)
        self.messages: list[Message] = []
        self.options = ["--extcap-control-in", str(self.control_in), "--extcap-control-out", str(self.control_out)]
        self._writing: int | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def open(self) -> None:
        """As the window does: it blocks until the extcap has opened its end."""
        self._writing = os.open(self.control_in, os.O_WRONLY)

    def send(self, control: int, command: int, text: str = "") -> None:
        self.raw(pack(control, command, text))

    def raw(self, data: bytes) -> None:
        assert self._writing is not None
        os.write(self._writing, data)

    def close(self) -> None:
        if self._writing is not None:
            os.close(self._writing)
            self._writing = None

    def texts(self, control: int, command: int) -> list[str]:
        return [m.payload.decode() for m in self.messages if (m.control, m.command) == (control, command)]

    def _read(self) -> None:
        parser = Parser()
        with open(self.control_out, "rb", buffering=0) as pipe:
            while data := pipe.read(4096):
                self.messages += parser.feed(data)
