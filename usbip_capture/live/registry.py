"""What is running and can be joined: one small file for each, in a folder that is its user's alone.

Wireshark waits for this at each of its starts, so that nothing is imported but `os`, and reading never raises. The
owner holds a lock on its file: a file without one is what a killed program has left.
"""

from __future__ import annotations

import os

from usbip_capture.system.folders import cache_folder

_FOLDER = "running"
_VERSION = "1"
_MAX_BYTES = 16 << 10
_MAX_ENTRIES = 64


class Entry:
    """Something that can be joined.

    name: of its Wireshark interface. display: what Wireshark lists. address: `unix:PATH` or `tcp:HOST:PORT` of its
    channel. token: what the channel asks for. server, listen: HOST:PORT, for people.
    """

    __slots__ = ("address", "display", "listen", "name", "pid", "server", "token")

    def __init__(
        self, name: str, display: str, address: str, token: str, pid: int, server: str = "", listen: str = ""
    ) -> None:
        self.name = name
        self.display = display
        self.address = address
        self.token = token
        self.pid = pid
        self.server = server
        self.listen = listen


def folder() -> str:
    """Where the files lie. What is not for Wireshark has a `place` of its own."""
    return os.path.join(cache_folder(), _FOLDER)


def make_folder(place: str = "") -> None:
    """Have a folder that its user alone can enter. Raises OSError."""
    place = place or folder()
    os.makedirs(place, mode=0o700, exist_ok=True)
    if os.name != "nt":
        os.chmod(place, 0o700)


def sweep(place: str = "") -> None:
    """Remove what killed programs have left, but for files that may be in the making."""
    if os.name == "nt":
        return  # whose owner is alive cannot be seen there
    place = place or folder()
    try:
        names = os.listdir(place)
    except OSError:
        return
    lock = _lock(place)
    try:
        for name in names:
            pid = name.removesuffix(".new").rpartition(".")[2]
            path = os.path.join(place, name)
            left = pid.isdigit() and not _lives(int(pid)) if name.startswith(".") else _is_left(path)
            if left:
                try:
                    os.unlink(path)
                except OSError:  # somebody was quicker
                    pass
    finally:
        os.close(lock)


def _lock(place: str) -> int:
    """A file descriptor that holds the folder until it is closed: nobody takes a name that is just being swept."""
    import fcntl

    fd = os.open(place, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _rename(temporary: str, path: str) -> None:
    lock = _lock(os.path.dirname(path)) if os.name != "nt" else -1
    try:
        os.replace(temporary, path)
    finally:
        if lock >= 0:
            os.close(lock)


def _is_left(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _is_held(fd)
    finally:
        os.close(fd)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        pass
    return True


def running(place: str = "") -> list[Entry]:
    """What can be joined now, by name."""
    place = place or folder()
    try:
        names = sorted(name for name in os.listdir(place) if not name.startswith("."))
    except OSError:
        return []
    found = [_read(place, name) for name in names[:_MAX_ENTRIES]]
    return [entry for entry in found if entry is not None]


def find(name: str) -> Entry | None:
    """The one with this name."""
    return next((entry for entry in running() if entry.name == name), None)


class Registration:
    """An entry that is listed until `withdraw`, or until this process ends. Raises OSError."""

    def __init__(self, entry: Entry, place: str = "") -> None:
        place = place or folder()
        make_folder(place)
        self.path = os.path.join(place, entry.name)
        self._fd = _written(self.path, entry)

    def update(self, entry: Entry) -> None:
        """List it as this from now on, by the same name; no effect once it is withdrawn. Raises OSError."""
        if self.path:
            before, self._fd = self._fd, _written(self.path, entry)
            if before >= 0:
                os.close(before)

    def forked(self) -> None:
        """In a child process: the entry is its parent's, and must not seem alive when that one has ended."""
        self.path = ""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def withdraw(self) -> None:
        """Take it off the list. May be called again."""
        fd, self._fd = self._fd, -1
        if not self.path:
            return
        try:
            os.unlink(self.path)
        except OSError:  # somebody has cleaned up
            pass
        self.path = ""
        if fd >= 0:
            os.close(fd)


def _written(path: str, entry: Entry) -> int:
    """The file of an entry, complete when it gets its name; returns the descriptor that holds it. Raises OSError."""
    temporary = os.path.join(os.path.dirname(path), f".{entry.name}.{os.getpid()}.new")
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o600)
    fields = (_VERSION, entry.display, entry.address, entry.token, str(entry.pid), entry.server, entry.listen)
    os.write(fd, "\n".join(" ".join(field.split("\n")) for field in fields).encode() + b"\n")
    if os.name == "nt":
        os.close(fd)  # an open file cannot be renamed there
        fd = -1
    else:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        _rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        if fd >= 0:
            os.close(fd)
        raise
    return fd


def free_name(wanted: str, place: str = "") -> str:
    """`wanted`, or that with a number if it is taken."""
    taken = {entry.name for entry in running(place)}
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    return name


def _read(place: str, name: str) -> Entry | None:
    try:
        fd = os.open(os.path.join(place, name), os.O_RDONLY)
    except OSError:
        return None
    try:
        lines = os.read(fd, _MAX_BYTES).decode("utf-8", "replace").split("\n")
        if len(lines) < 8 or lines[0] != _VERSION or not lines[4].isdigit() or not _is_held(fd):
            return None
    except OSError:
        return None
    finally:
        os.close(fd)
    return Entry(name, lines[1], lines[2], lines[3], int(lines[4]), lines[5], lines[6])


def _is_held(fd: int) -> bool:
    """Whether its owner is alive; taken for granted where that cannot be asked."""
    if os.name == "nt":
        return True
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
