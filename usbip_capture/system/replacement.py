"""A file that replaces another one only when it is whole.

Written beside its target and renamed: a failure, a full disk or a kill leaves what was there before.
"""

from __future__ import annotations

import os
import stat
import tempfile
from typing import BinaryIO

from usbip_capture.system.private_files import check_owner


class Replacement:
    """The new content of `path`: write to `file`, then `commit`, or `discard`. As a context: commits unless it raises.

    What is not a regular file (a pipe, a device) cannot be replaced: it is written in place. A link is followed. The
    new file is for its owner only (0600). Raises OSError as `open` does, and as `private_files.check_owner` does.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        check_owner(os.fspath(path))
        self.path = os.path.realpath(path)
        self.file: BinaryIO
        self._beside = ""
        if _in_place(path):  # as it was named: /dev/stdout leads to what has no name of its own
            self.file = open(path, "wb")  # noqa: SIM115 (this class is its context manager)
            return
        folder, name = os.path.split(self.path)
        descriptor, self._beside = tempfile.mkstemp(prefix=f".{name[:100]}.", suffix=".part", dir=folder)
        self.file = os.fdopen(descriptor, "wb")

    def commit(self) -> None:
        """The target is the new content from now on. On OSError the target is as it was."""
        try:
            self.file.close()
            if self._beside:
                os.replace(self._beside, self.path)
                self._beside = ""
        except OSError:
            self.discard()
            raise

    def discard(self) -> None:
        """Drop the new content; the target stays as it was."""
        try:
            self.file.close()
        except OSError:  # what was still buffered does not fit
            pass
        if self._beside:
            beside, self._beside = self._beside, ""
            try:
                os.unlink(beside)
            except OSError:  # gone with its folder
                pass

    def __enter__(self) -> BinaryIO:
        return self.file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()


def _in_place(path: str | os.PathLike[str]) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False
