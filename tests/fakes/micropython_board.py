"""A board with a MicroPython prompt at the end of a serial line, as far as mpremote uses it.

The code that it is given runs in this Python, with `print` only.

Ref: MicroPython documentation, "The MicroPython Interactive Interpreter Mode", raw mode
"""

from __future__ import annotations

from usbip_capture.simulated.serial.line import Peer

_RAW, _FRIENDLY, _INTERRUPT, _RUN = 0x01, 0x02, 0x03, 0x04
_RAW_PROMPT = b"raw REPL; CTRL-B to exit\r\n>"
_BANNER = b"\r\nMicroPython simulated\r\n>>> "
_PASTE, _NO_PASTE = b"\x05A\x01", b"R\x00"


class MicroPythonBoard(Peer):
    """Friendly prompt: echoes what is typed, and runs a line at its end. Raw: runs what came before Ctrl-D."""

    def __init__(self) -> None:
        self._raw = False
        self._code = bytearray()

    def received(self, data: bytes) -> None:
        if self._raw and data.startswith(_PASTE):
            self.line.send(_NO_PASTE)
            data = data[len(_PASTE) :]
        for byte in data:
            if byte == _RAW:
                self._mode(True, _RAW_PROMPT)
            elif byte == _FRIENDLY:
                self._mode(False, _BANNER)
            elif byte == _INTERRUPT:
                self._mode(self._raw, b"" if self._raw else b"\r\n>>> ")
            elif self._raw:
                self._raw_byte(byte)
            else:
                self._friendly_byte(byte)

    def _mode(self, raw: bool, output: bytes) -> None:
        self._raw = raw
        self._code.clear()
        self.line.send(output)

    def _raw_byte(self, byte: int) -> None:
        if byte != _RUN:
            self._code.append(byte)
        elif self._code.strip():
            out, error = self._run()
            self.line.send(b"OK" + out + b"\x04" + error + b"\x04>")
        else:
            self._code.clear()
            self.line.send(b"OK\r\nMPY: soft reboot\r\n" + _RAW_PROMPT)

    def _friendly_byte(self, byte: int) -> None:
        if byte != ord("\r"):
            self._code.append(byte)
            self.line.send(bytes([byte]))
            return
        out, error = self._run()
        self.line.send(b"\r\n" + out + error + b">>> ")

    def _run(self) -> tuple[bytes, bytes]:
        code, output = self._code.decode(), []
        self._code.clear()
        try:
            exec(code, {"__builtins__": {"print": lambda *what: output.append(" ".join(map(str, what)))}})
        except Exception as error:  # noqa: BLE001  as MicroPython does
            return b"", f"{type(error).__name__}: {error}\r\n".encode()
        return "".join(f"{line}\r\n" for line in output).encode(), b""
