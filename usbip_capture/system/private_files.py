"""Files that hold what devices and people say to each other: for their owner's eyes only.

In a folder where everybody may create files, a name that somebody else has taken may be a trap: a link to a file of
ours, a pipe that another user reads, or a file that stays theirs. Such a name is refused, as Linux can be set to do.

Ref: Linux, Documentation/admin-guide/sysctl/fs.rst (protected_fifos, protected_regular, protected_symlinks)
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

_MAX_LINKS = 40  # as many as Linux follows


def open_private(path: str, *, append: bool = False) -> int:
    """A descriptor to write the file `path`, which is emptied unless `append`; nobody else may read it from now on.

    Raises OSError as `os.open` does, and PermissionError, with a sentence, for a name of another user's in a folder
    that everybody may write to.
    """
    check_owner(path)
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0) | (os.O_APPEND if append else 0)
    if not os.path.islink(path):
        flags |= getattr(os, "O_NOFOLLOW", 0)  # a link that is put there now is not followed
    fd = os.open(path, flags, 0o600)
    try:
        status = os.fstat(fd)
        _check(status, os.path.realpath(path))
        if stat.S_ISREG(status.st_mode):
            if status.st_mode & 0o077:
                with suppress(OSError):  # its owner has let us write it, and decides who reads it
                    os.chmod(fd if os.chmod in os.supports_fd else path, stat.S_IMODE(status.st_mode) & 0o700)
            if not append:
                os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_owner(path: str) -> None:
    """Raises PermissionError, with a sentence, if `path`, or a link on the way, is such a name of another user's."""
    for _ in range(_MAX_LINKS):
        try:
            status = os.lstat(path)
        except OSError:  # opening it will raise why
            return
        _check(status, path)
        if not stat.S_ISLNK(status.st_mode):
            return
        path = os.path.join(os.path.dirname(path), os.readlink(path))


def _check(status: os.stat_result, path: str) -> None:
    if not hasattr(os, "geteuid") or status.st_uid == os.geteuid():
        return
    try:
        folder = os.stat(os.path.dirname(path) or os.curdir)
    except OSError:  # what a descriptor of /proc leads to has none
        return
    sticky = folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWGRP
    if status.st_uid != folder.st_uid and (sticky or folder.st_mode & stat.S_IWOTH):
        raise PermissionError(
            f"{path} belongs to another user, in a folder that everybody may write to: remove it or choose another name"
        )
