"""The capture process as Wireshark runs it, through the placed launcher."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.oracles.pcapng_reader import read_capture

SHB = b"\x0a\x0d\x0d\x0a"
ISB = (5).to_bytes(4, "little")


class Reader:
    """Reads a FIFO as dumpcap does, and keeps what came."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.data = b""
        self.opened = threading.Event()
        self.some = threading.Event()
        self.ended = threading.Event()
        self._leave = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with open(self.path, "rb", buffering=0) as fifo:
            self.opened.set()
            while not self._leave and (data := fifo.read(65536)):
                self.data += data
                if len(self.data) > 4000:
                    self.some.set()
                    if self._leave:
                        break
        self.ended.set()

    def leave_after_some(self) -> None:
        """Go away once some packets have come."""
        self._leave = True


@contextlib.contextmanager
def started(extcap: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(extcap), "--capture", "--extcap-interface", "usbip-remote", *options]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def run(extcap: Path, *options: str, timeout: float = 30) -> tuple[int, bytes, str]:
    command = [str(extcap), "--capture", "--extcap-interface", "usbip-remote", *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
    return done.returncode, done.stdout, done.stderr.decode()


def assert_sentence(stderr: str, *words: str) -> None:
    assert stderr.endswith("\n")
    assert stderr.count("\n") == 1, stderr
    for word in words:
        assert word in stderr


def assert_complete(data: bytes, tmp_path: Path) -> int:
    """A whole pcapng file with statistics at its end; how many packets it has."""
    path = tmp_path / "read-back.pcapng"
    path.write_bytes(data)
    assert data[:4] == SHB
    size = int.from_bytes(data[-4:], "little")
    assert data[-size:][:4] == ISB
    return len(list(read_capture(path)))


def failing(extcap: Path, tmp_path: Path, *options: str, status: int = 1) -> str:
    """Run with a FIFO; the sentence. Asserts all that must hold whatever fails."""
    reader = Reader(tmp_path / "fifo")
    code, out, err = run(extcap, *options, "--fifo", str(reader.path))
    assert reader.opened.wait(10)
    assert reader.ended.wait(10)
    assert code == status
    assert out == b""
    assert reader.data[:4] == SHB
    assert_sentence(err)
    return err
