"""The memory of this process and of this machine."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress


def trim() -> None:
    """Give free memory back to the system, where the C library does not do so by itself.

    glibc keeps what each thread has freed for that thread: of one client after the other, each with a thread of its
    own, the peaks would add up.
    """
    with suppress(OSError, AttributeError, TypeError):  # another C library; Windows has no handle of all that is loaded
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed() -> None:
    """Have up to 32 MiB that were freed kept for what comes next, where the C library is glibc: for who moves much.

    At first it has the system make the pages of each block from 128 KiB on anew, and take them away again when that is
    freed, with all threads held up. Once it has seen a larger block freed it keeps such ones, and twice that in all.

    Ref: mallopt(3), M_MMAP_THRESHOLD
    """
    bytes(16 << 20)  # it is freed at once, and its pages are never made


def resident() -> int:
    """Bytes of memory that this process has now; at its most where the system does not count that; 0 if unknown."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with suppress(ImportError):
        import resource  # not there on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
    return 0


def installed() -> int:
    """Bytes of memory that this machine has; 0 if unknown."""
    with suppress(OSError, ValueError, AttributeError):  # Windows has no sysconf
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0


def available() -> int:
    """Bytes of memory that are free in this machine; 0 if unknown."""
    with suppress(OSError, ValueError, AttributeError):  # Windows has no sysconf, macOS not this value
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0
