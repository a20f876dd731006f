"""What our programs do alike for people: exit codes, an end in order at any time, and an output that fails.

Ref: POSIX shell command language, exit status (128 and the number for what a signal has ended)
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable

from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.system.shown import one_line
from usbip_capture.system.signals import ensure_noticed

#: Exit codes besides 0: it failed; the arguments are wrong; Ctrl-C came before it was done.
FAILED, MISUSED, INTERRUPTED = 1, 2, 130
#: What asks a program to end, beside Ctrl-C: `kill`, a terminal or an ssh that is closed, Ctrl-Break on Windows.
REQUESTS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
_HANGUP = getattr(signal, "SIGHUP", None)


class Terminated(KeyboardInterrupt):
    """A request to end, which has the effect of Ctrl-C. number: of its signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class EndingInOrder:
    """Within the block, a request to end raises Terminated in the main thread, so that what is open is completed.

    A class, for contextlib takes longer to import than all else that `--version` needs.
    """

    def __enter__(self) -> None:
        import threading

        here = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.getsignal(number) for number in REQUESTS} if here else {}
        if here:
            on_request_to_end(self._terminate)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @staticmethod
    def _terminate(number: int) -> None:
        raise Terminated(number)


def on_request_to_end(act: Callable[[int], object], *more: int) -> None:
    """Have `act` called with the number of a request to end, or of a signal of `more`, in the main thread.

    One that is ignored stays so: `nohup` has been asked for, and in the background of a script Ctrl-C is not meant
    for us.
    """

    def handle(number: int, _: object) -> None:
        requested(number)
        act(number)

    for number in (*REQUESTS, *more):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)
    ensure_noticed()


def requested(number: int) -> None:
    """Prepare for the end that a signal has asked for: neither a further hang-up nor a lost terminal disturbs it."""
    if _HANGUP is None:
        return
    signal.signal(_HANGUP, signal.SIG_IGN)  # the system and the shell both send one, and some send one after SIGTERM
    if number == _HANGUP:
        for fd in (1, 2):  # a terminal that is closed fails each write
            try:
                if stat.S_ISCHR(os.fstat(fd).st_mode):
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, fd)
                    os.close(nowhere)
            except OSError:
                pass


def run(program: str, job: Callable[[], int]) -> int:
    """Do the job; its exit code, or that of what went wrong with it, reported in one sentence on standard error."""
    _open_closed_streams()
    try:
        code = job()
        sys.stdout.flush()
    except UsbipError as error:
        print(f"{program}: {one_line(str(error))}", file=sys.stderr)
        return MISUSED if isinstance(error, LocalProtocolError) else FAILED
    except Terminated as request:
        return 128 + request.number
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
