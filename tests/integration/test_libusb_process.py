"""Real libusb in a process of its own, on whatever USB this machine has: how it begins, forks and ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

#: The event thread runs, in libusb, when the program ends.
STARTED = """
import os, signal, sys, threading
from usbip_capture.devices.libusb.binding import Libusb
from usbip_capture.devices.libusb.bus import LocalBus
bus = LocalBus.shared()
bus.devices()
bus.watch(lambda: None)
Libusb.shared().start()
"""
#: How it ends -> exit code. libusb aborts a process (-6) that ends while a thread is in it.
ENDS = {
    "at its end": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an exception that nobody caught": ("raise SystemError('a fault of the program')", 1),
    "Ctrl-C": ("signal.raise_signal(signal.SIGINT)", -signal.SIGINT),
    "in another order": ("Libusb.shared().close(); bus.close(); bus.devices; LocalBus.shared", 0),
    "a child ends first": (
        "pid = os.fork()\nif not pid: sys.exit(4)\nsys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))",
        4,
    ),
    "a child with a USB of its own": (
        "pid = os.fork()\n"
        "if not pid:\n    again = LocalBus.shared()\n    again.watch(lambda: None)\n    sys.exit(4 + (again is bus))\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))",
        4,
    ),
}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="exit codes of signals, and fork, are POSIX's")
@pytest.mark.parametrize(("end", "code"), ENDS.values(), ids=ENDS.keys())
def test_a_program_ends_as_it_should(end: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STARTED + end], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert "Assertion" not in done.stderr
    assert "aborted" not in done.stderr.lower()
