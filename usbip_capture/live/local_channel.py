"""Offers a program's sessions to others of the same user: captures of them, their state, a few commands.

A Unix socket in a folder that only its user can enter; where there are none, a port of the loopback. In both cases a
token is asked for, which stands in a file that only the user can read.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import threading

from usbip_capture.errors import CannotListen
from usbip_capture.live import registry
from usbip_capture.live.registry import Entry, Registration
from usbip_capture.live.serving import Source, Subscribers
from usbip_capture.net.listening import Acceptor, Admission

#: Connections at a time.
_MAX_CONNECTIONS = 32
#: Longest path of a Unix socket. Ref: Linux unix(7), sun_path
_MAX_PATH = 100
_BACKLOG = 16


class LocalChannel:
    """Offers `source` under `name` (`self.name` if that is taken) until closed. Raises CannotListen.

    display: as Wireshark lists it. server, listen: HOST:PORT, for people.
    loopback: a port instead of a Unix socket; None: where there are no such sockets.
    """

    def __init__(
        self, source: Source, name: str, display: str, *, server: str, listen: str, loopback: bool | None = None
    ) -> None:
        token = secrets.token_hex(16)
        self.subscribers = Subscribers(source, token)
        self.name = registry.free_name(name)
        self._path = ""
        self._own_folder = ""
        self._closing = threading.Lock()
        self._closed = False
        self._listener: socket.socket | None = None
        self._registration: Registration | None = None
        if loopback is None:
            loopback = not hasattr(socket, "AF_UNIX")
        try:
            registry.make_folder()
            registry.sweep()
            listener, address = self._listen_on_port() if loopback else self._listen_on_path()
            self._registration = Registration(Entry(self.name, display, address, token, os.getpid(), server, listen))
            admission = Admission(full=lambda: len(self.subscribers) >= _MAX_CONNECTIONS)
            self._acceptor = Acceptor(listener, self.subscribers.serve, "usbip-local-channel", admission)
        except OSError as error:
            self._withdraw()
            raise CannotListen(
                f"captures cannot be offered to Wireshark: {error.strerror or error}: is {registry.folder()} yours?"
            ) from error
        except BaseException:
            self._withdraw()
            raise

    @property
    def captures(self) -> int:
        """How many are running."""
        return len(self.subscribers.captures)

    def close(self) -> None:
        """Complete the captures that run, and offer nothing more. May be called again."""
        with self._closing:
            closed, self._closed = self._closed, True
        if closed:
            return
        if self._registration is not None:
            self._registration.withdraw()
        self._acceptor.close()
        self.subscribers.leave()
        self._withdraw()

    def _withdraw(self) -> None:
        """Leave nothing behind: no entry, no listener, no path."""
        if self._registration is not None:
            self._registration.withdraw()
        if self._listener is not None:
            self._listener.close()
        for step, path in ((os.unlink, self._path), (os.rmdir, self._own_folder), (os.rmdir, registry.folder())):
            try:
                if path:
                    step(path)
            except OSError:  # not empty: others run
                pass

    def _listen_on_path(self) -> tuple[socket.socket, str]:
        path = os.path.join(registry.folder(), f".{self.name}.{os.getpid()}")
        if len(os.fsencode(path)) > _MAX_PATH:
            self._own_folder = tempfile.mkdtemp(prefix="usbip-capture-")
            path = os.path.join(self._own_folder, "channel")
        listener = self._listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        self._path = path
        os.chmod(path, 0o600)
        listener.listen(_BACKLOG)
        return listener, f"unix:{path}"

    def _listen_on_port(self) -> tuple[socket.socket, str]:
        listener = self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        return listener, "tcp:{}:{}".format(*listener.getsockname())
