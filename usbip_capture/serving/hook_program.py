"""A program that is called by a hook: no shell, what has happened in its environment and on its standard input."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from usbip_capture.errors import UsbipError
from usbip_capture.system.shown import one_line

#: Seconds for a program to end when it is asked to, before it is made to.
_LEAVING = 2.0
#: And between two looks at who is left.
_LOOK = 0.02
#: Bytes of its standard error that are read, and characters of the last line that are shown.
_MAX_ERRORS, _MAX_LINE = 64 << 10, 200
#: What is between systemd and the server only.
_NOT_INHERITED = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


class ProgramCall:
    """One run of `argv`. variables: for its environment, besides the server's own; given: for its standard input."""

    def __init__(self, argv: Sequence[str], variables: Mapping[str, str], given: bytes) -> None:
        self._argv = argv
        inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        self._environment = {**inherited, **{name: one_line(value) for name, value in variables.items()}}
        self._given = given
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled = False

    def run(self, timeout: float) -> str:
        """The outcome, when it has ended. Raises OSError, or UsbipError if it has failed or takes too long."""
        errors, theirs = _error_pipe()
        try:
            process = self._started(theirs)
        except BaseException:
            _close(errors)
            raise
        finally:
            _close(theirs)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._end(process)
            raise UsbipError(f"it did not end within {timeout:g} s, and was made to") from None
        finally:
            last = _last_line(errors)
            _close(errors)
        if self._cancelled:
            raise UsbipError("it was ended with the server")
        if status:
            how = f"ended by signal {-status}" if status < 0 else f"exit status {status}"
            raise UsbipError(f"{how}{f': {last}' if last else ''}")
        return "exit status 0"

    def cancel(self) -> None:
        """End it now, from another thread."""
        with self._lock:
            self._cancelled = True
            process = self._process
        if process is not None:
            self._end(process)

    def _started(self, errors: int) -> subprocess.Popen[bytes]:
        with self._lock, tempfile.TemporaryFile() as given:  # a pipe would have to be written to, and may be full
            if self._cancelled:
                raise UsbipError("the server ends")
            given.write(self._given)
            given.seek(0)
            self._process = subprocess.Popen(
                self._argv,
                stdin=given,
                stdout=subprocess.DEVNULL,  # the server's own may be a capture
                stderr=errors if errors >= 0 else subprocess.DEVNULL,
                env=self._environment,
                start_new_session=True,
            )
            return self._process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """With all that it has started itself, unless that has left its session."""
        if process.poll() is not None:
            return  # what it leaves running when it ends by itself is meant to run
        if hasattr(os, "killpg"):
            deadline = time.monotonic() + _LEAVING
            is_left = _signalled(process.pid, signal.SIGTERM)
            while is_left and time.monotonic() < deadline:
                time.sleep(_LOOK)
                process.poll()  # until then, it counts as left itself
                is_left = _signalled(process.pid, 0)
            if is_left:
                _signalled(process.pid, signal.SIGKILL)
        else:
            process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LEAVING)


def _signalled(group: int, number: int) -> bool:
    """Whether anybody of these is left, who gets this signal; 0 is none. The program itself may have ended already."""
    try:
        os.killpg(group, number)
    except OSError:
        return False
    return True


def _error_pipe() -> tuple[int, int]:
    """Where its standard error is read, and written: what does not fit is lost, and what it starts may keep it open."""
    if os.name == "nt":  # where no pipe can be read without waiting
        return -1, -1
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends


def _last_line(errors: int) -> str:
    if errors < 0:
        return ""
    try:
        text = os.read(errors, _MAX_ERRORS).decode("utf-8", "replace")
    except OSError:  # BlockingIOError: it has printed nothing
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return one_line(lines[-1])[:_MAX_LINE] if lines else ""


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
