"""What our programs do alike for people: exit codes, Ctrl-C at any time, and an output that cannot be written.

Ref: POSIX shell command language, exit status (128 and the number for what a signal has ended)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.shown import one_line

#: Exit codes besides 0: it failed; the arguments are wrong; Ctrl-C came before it was done.
FAILED, MISUSED, INTERRUPTED = 1, 2, 130


def run(program: str, job: Callable[[], int]) -> int:
    """Do the job; its exit code, or that of what went wrong with it, reported in one sentence on standard error."""
    _open_closed_streams()
    try:
        code = job()
        sys.stdout.flush()
    except UsbipError as error:
        print(f"{program}: {one_line(str(error))}", file=sys.stderr)
        return MISUSED if isinstance(error, LocalProtocolError) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        # Python would complain about what it cannot flush once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):  # the reader of our output has gone
            print(f"{program}: the output cannot be written: {one_line(str(error.strerror or error))}", file=sys.stderr)
        return FAILED
    return code


def _open_closed_streams() -> None:
    """Python has None for a stream that was closed when it started; no file of ours may get its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
