"""Memory that is free, but still this process's."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def trim() -> None:
    """Give free memory back to the system, where the C library does not do so by itself.

    glibc keeps what each thread has freed for that thread: of one client after the other, each with a thread of its
    own, the peaks would add up.
    """
    with suppress(OSError, AttributeError, TypeError):  # another C library; Windows has no handle of all that is loaded
        ctypes.CDLL(None).malloc_trim(0)
