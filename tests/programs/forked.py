"""A child process that is a copy of this one, with none of its threads but one."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable


def forked(job: Callable[[], object] = lambda: None) -> int:
    """A child that does the job, and ends as a program does that calls os._exit; its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that threads are running is what is tested
        pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            job()
        except BaseException:  # noqa: BLE001  the exit code of the child
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
