"""Where others on this machine connect: a Unix socket for its owner only, or a port of the loopback."""

from __future__ import annotations

import os
import socket
import tempfile
import time

#: Longest path of a Unix socket. Ref: Linux unix(7), sun_path
_MAX_PATH = 100
_BACKLOG = 16
#: Seconds until connecting is tried again.
_RETRY_INTERVAL = 0.01


class LocalListener:
    """Listens until closed. socket: to accept on. address: as registry.Entry has it. Raises OSError.

    The path is in `folder`, which its user alone can enter, or, where that is too long, in a folder of its own.
    loopback: a port, which anybody here can connect to, instead of a path; None: where there are no Unix sockets.
    """

    def __init__(self, folder: str, name: str, *, loopback: bool | None = None) -> None:
        self._path = ""
        self._own_folder = ""
        if loopback is None:
            loopback = not hasattr(socket, "AF_UNIX")
        if loopback:
            self.socket = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
            self.address = "tcp:{}:{}".format(*self.socket.getsockname())
            return
        path = os.path.join(folder, f".{name}.{os.getpid()}")
        if len(os.fsencode(path)) > _MAX_PATH:
            self._own_folder = tempfile.mkdtemp(prefix="usbip-capture-")
            path = os.path.join(self._own_folder, "channel")
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.bind(path)
            self._path = path
            os.chmod(path, 0o600)
            self.socket.listen(_BACKLOG)
        except BaseException:
            self.close()
            raise
        self.address = f"unix:{path}"

    def close(self) -> None:
        """Listen no more, and leave nothing behind. May be called again."""
        self.socket.close()
        for step, path in ((os.unlink, self._path), (os.rmdir, self._own_folder)):
            try:
                if path:
                    step(path)
            except OSError:  # somebody has cleaned up
                pass


def connect_local(address: str, timeout: float) -> socket.socket:
    """A connection to where a LocalListener listens. timeout: in seconds. Raises OSError, ValueError."""
    kind, _, place = address.partition(":")
    if kind != "unix":
        host, _, port = place.rpartition(":")
        return socket.create_connection((host, int(port)), timeout)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(timeout)
        _connect(sock, place, time.monotonic() + timeout)
    except OSError:
        sock.close()
        raise
    return sock


def _connect(sock: socket.socket, path: str, deadline: float) -> None:
    """Raises OSError."""
    while True:
        try:
            sock.connect(path)
            return
        except BlockingIOError:  # as many wait to be accepted as there may be. Ref: Linux connect(2), EAGAIN
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_INTERVAL)
