"""A folder that one program at a time changes files in: none loses what another one writes meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from usbip_capture.errors import UsbipError

#: Seconds for another program of this user to have its change written.
_TIMEOUT, _RETRY = 5.0, 0.02


@contextmanager
def locked_folder(folder: str) -> Iterator[None]:
    """Hold the folder, which is made if need be, from reading a file to replacing it. Raises OSError, UsbipError."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if os.name == "nt":  # a folder cannot be locked there
        yield
        return
    import fcntl

    fd = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + _TIMEOUT
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UsbipError(f"{folder} is in use: another program keeps it locked: try again") from None
            time.sleep(_RETRY)
        yield
    finally:
        os.close(fd)


class OwnFolder:
    """A folder of one program until `close`, or its end. Raises UsbipError if another one has it, OSError.

    On Windows, where a folder cannot be locked, it is anybody's.
    """

    def __init__(self, folder: str) -> None:
        self._fd = -1
        if os.name == "nt":
            return
        import fcntl

        self._fd = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise UsbipError(f"{folder} is in use by another program") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Others may have it. May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
