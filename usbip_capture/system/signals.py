"""Signals that are noticed at once, whatever the main thread waits for.

Python runs a handler between two instructions of the main thread. A signal that comes when the last look at signals is
over and the wait has not begun yet, interrupts nothing: its handler would run when the wait ends, perhaps never. The
kernel notifies a thread of ours of each signal, and this interrupts the main thread once more.

Ref: Python's signal module, `set_wakeup_fd`
"""

from __future__ import annotations

import os
import signal
import time

#: Seconds after a signal when the main thread is interrupted: each time it may just be about to wait again.
_AFTER = (0.01, 0.1, 0.5)
_READ_SIZE = 64

_with_thread: set[int] = set()  # process ids: a forked child does not have its parent's thread


def ensure_noticed() -> None:
    """From now on no wait of the main thread holds up a handler of a signal. For the main thread; once is enough.

    Windows cannot interrupt a thread: waits there have to be short.
    """
    if not hasattr(signal, "pthread_kill") or os.getpid() in _with_thread:
        return
    import threading

    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGURG) is signal.SIG_DFL:  # which ignores it, and interrupts nothing
        signal.signal(signal.SIGURG, lambda *_: None)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    thread = threading.Thread(target=_remind, args=(reading, threading.get_ident()), name="usbip-signals", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no further thread can be had: as Python has it, then
        os.close(reading)
        os.close(writing)
        return
    _with_thread.add(os.getpid())
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)


def _remind(reading: int, thread: int) -> None:
    while numbers := os.read(reading, _READ_SIZE):
        if any(number != signal.SIGURG for number in numbers):
            for delay in _AFTER:
                time.sleep(delay)
                signal.pthread_kill(thread, signal.SIGURG)
