"""What the tests of collectors share: a TLS certificate, a device that offers its log, and messages that came."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from usbip_capture.collector import SyslogReceiver
from usbip_capture.syslog.message import Message


def certificate(folder: Path) -> tuple[Path, Path]:
    """A new certificate for localhost: alone, and in one file with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    alone, key, both = folder / "certificate.pem", folder / "key.pem", folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(alone)]
    subprocess.run(command, check=True, capture_output=True)
    both.write_text(alone.read_text() + key.read_text())
    return alone, both


class Messages:
    """A callback that keeps what came; `wait` for so many."""

    def __init__(self) -> None:
        self.all: list[Message] = []
        self._changed = threading.Condition()

    def __call__(self, message: Message) -> None:
        with self._changed:
            self.all.append(message)
            self._changed.notify_all()

    def wait(self, count: int) -> list[Message]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.all) >= count, 20), f"{len(self.all)} of {count} came"
            return list(self.all)

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.all]


class Device:
    """Listens as an ESP32 bridge does; each `accept` is one connection."""

    def __init__(self, port: int = 0) -> None:
        self.listener = socket.create_server(("127.0.0.1", port))
        self.listener.settimeout(20)
        self.port: int = self.listener.getsockname()[1]

    def accept(self) -> socket.socket:
        return self.listener.accept()[0]

    def close(self) -> None:
        self.listener.close()


def esp(uptime_ms: int, line: str, severity: int = 6) -> bytes:
    """A message as the bridge's firmware frames it."""
    seconds, ms = divmod(uptime_ms, 1000)
    stamp = f"2000-01-01T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{ms:03}Z"
    message = f"<{8 + severity}>1 {stamp} esp32 esp - - - {line}\n".encode()
    return b"%d %s" % (len(message), message)


def port_of(receiver: SyslogReceiver, transport: str) -> int:
    """Where a listening receiver really is."""
    (port,) = {place.port for place in receiver.bound if place.transport == transport}
    return port
