"""What the doctor is made of: findings with their remedies, and programs that are asked with a time limit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import IO

OK, WARNING, FAILURE = "ok", "warning", "FAILURE"

#: Seconds that a program gets to answer; tshark with slow extcaps needs several.
LIMIT = 20.0
#: More output than this is not read, in bytes.
_MOST = 4 << 20


@dataclass(slots=True, frozen=True)
class Finding:
    """One thing that was looked at. A remedy is given where it is not well."""

    mark: str
    text: str
    remedy: str = ""

    def lines(self) -> str:
        """As it is printed."""
        first = f"{self.mark:<8} {self.text}"
        return f"{first}\n{'':8} -> {self.remedy}" if self.remedy else first


@dataclass(slots=True, frozen=True)
class Answer:
    """What a program printed. `problem` is empty when it ended well in time, else half a sentence about it."""

    out: str = ""
    error: str = ""
    problem: str = ""
    seconds: float = 0.0
    denied: bool = False


class _Reader(threading.Thread):
    """Reads a pipe until its end, but keeps no more than a person could want."""

    def __init__(self, pipe: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self._data = b""
        self.start()

    def run(self) -> None:
        while len(self._data) < _MOST and (chunk := os.read(self._pipe.fileno(), 65536)):
            self._data += chunk
        self._pipe.close()

    @property
    def text(self) -> str:
        return self._data.decode("utf-8", "replace")


def ask(*command: str, limit: float | None = None) -> Answer:
    """Run a program for its answer, at most `limit` seconds; nothing that it does raises."""
    limit = LIMIT if limit is None else limit
    started = time.monotonic()
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    try:
        process = subprocess.Popen(command, stdin=none, stdout=pipe, stderr=pipe, start_new_session=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Answer(problem=f"cannot be started ({reason})", denied=isinstance(error, PermissionError))
    assert process.stdout
    assert process.stderr
    readers = [_Reader(process.stdout), _Reader(process.stderr)]
    # The end of its output is waited for as Wireshark does it; Popen.wait looks only now and then.
    for reader in readers:
        reader.join(max(0.0, started + limit - time.monotonic()))
    seconds = time.monotonic() - started
    try:
        process.wait(max(0.1, started + limit - time.monotonic()))
        late = any(reader.is_alive() for reader in readers)
    except subprocess.TimeoutExpired:
        late = True
    if late:
        _kill(process)
    out, error_text = readers[0].text, readers[1].text
    return Answer(out, error_text, _problem(process.returncode, late, limit, error_text), seconds)


def ourselves() -> str:
    """How this program is started by hand."""
    if shutil.which("usbip-extcap"):
        return "usbip-extcap"
    path = os.path.abspath(sys.argv[0])
    return path if os.path.basename(path).startswith("usbip-extcap") and os.path.isfile(path) else "usbip-extcap"


def first_line(text: str) -> str:
    """The first line that means something, short enough for a sentence."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip() and "Running as user" not in line]
    return lines[0][:160] if lines else ""


def _problem(code: int | None, late: bool, limit: float, error: str) -> str:
    if late:
        return f"does not end within {limit:g} s"
    if code:
        line = first_line(error)
        return f"ends with code {code}" + (f": {line}" if line else "")
    return ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it started."""
    try:
        if os.name == "nt":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    except OSError:  # all of it has gone meanwhile
        pass
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:  # stuck in the kernel
        pass
