"""A signal is noticed also if it comes when the main thread is just about to wait, and interrupts nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: SIGTERM is blocked in the main thread, so that another one takes it: Python knows of it, and the wait is not
#: interrupted. So it is when the signal comes after the last look at signals and before the wait.
_PROGRAM = """
import os, queue, signal, sys, threading
from usbip_capture.system.signals import ensure_noticed
ended = queue.SimpleQueue()
signal.signal(signal.SIGTERM, lambda *_: ended.put("noticed"))
ensure_noticed()
ensure_noticed()
if "fork" in sys.argv and (child := os.fork()):
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
if "fork" in sys.argv:
    ensure_noticed()
waiting = threading.Event()
def kill():
    waiting.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()
threading.Thread(target=kill, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
waiting.set()
print(ended.get(), sum(thread.name == "usbip-signals" for thread in threading.enumerate()))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals interrupt nothing on Windows")
@pytest.mark.parametrize("how", ["once", "fork"])
def test_a_signal_that_interrupts_nothing_is_noticed(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, how], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr, done.returncode) == ("noticed 1\n", "", 0)
