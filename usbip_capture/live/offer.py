"""Offers a program's sessions to others of the same user: captures of them, their state, a few commands.

A Unix socket in a folder that only its user can enter; where there are none, a port of the loopback. In both cases a
token is asked for, which stands in a file that only the user can read.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import tempfile
import threading

from usbip_capture.errors import CaptureError
from usbip_capture.live import registry
from usbip_capture.live.registry import Entry, Registration
from usbip_capture.live.serving import Guests, Source

log = logging.getLogger(__name__)

#: Connections at a time.
_MAX_CONNECTIONS = 32
#: Longest path of a Unix socket. Ref: Linux unix(7), sun_path
_MAX_PATH = 100
#: Seconds without accepting anybody, when that has failed.
_ACCEPT_PAUSE = 0.2
_BACKLOG = 16


class Offer:
    """Offers `source` under `name` (`self.name` if that is taken) until closed. Raises CaptureError if it cannot.

    display: as Wireshark lists it. server, listen: HOST:PORT, for people.
    loopback: a port instead of a Unix socket; None: where there are no such sockets.
    """

    def __init__(
        self, source: Source, name: str, display: str, *, server: str, listen: str, loopback: bool | None = None
    ) -> None:
        token = secrets.token_hex(16)
        self.guests = Guests(source, token)
        self.name = registry.free_name(name)
        self._path = ""
        self._own_folder = ""
        self._closing = threading.Event()
        if loopback is None:
            loopback = not hasattr(socket, "AF_UNIX")
        try:
            registry.make_folder()
            registry.sweep()
            address = self._listen_on_port() if loopback else self._listen_on_path()
            self._registration = Registration(Entry(self.name, display, address, token, os.getpid(), server, listen))
        except OSError as error:
            raise CaptureError(
                f"captures cannot be offered to Wireshark: {error.strerror or error}: is {registry.folder()} yours?"
            ) from error
        self._thread = threading.Thread(target=self._accept, name="usbip-offer", daemon=True)
        self._thread.start()

    @property
    def captures(self) -> int:
        """How many are running."""
        return len(self.guests.captures)

    def close(self) -> None:
        """Complete the captures that run, and offer nothing more. May be called again."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._registration.withdraw()
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:  # not on every system can a listener be shut down
            pass
        self._listener.close()
        self._thread.join()
        self.guests.leave()
        for step, path in ((os.unlink, self._path), (os.rmdir, self._own_folder), (os.rmdir, registry.folder())):
            try:
                if path:
                    step(path)
            except OSError:  # not empty: others run
                pass

    def _listen_on_path(self) -> str:
        path = os.path.join(registry.folder(), f".{self.name}.{os.getpid()}")
        if len(os.fsencode(path)) > _MAX_PATH:
            self._own_folder = tempfile.mkdtemp(prefix="usbip-capture-")
            path = os.path.join(self._own_folder, "channel")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._path = path
        os.chmod(path, 0o600)
        self._listener.listen(_BACKLOG)
        return f"unix:{path}"

    def _listen_on_port(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        return "tcp:{}:{}".format(*self._listener.getsockname())

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                if not self._closing.wait(_ACCEPT_PAUSE):
                    log.warning("nobody can join: %s", error.strerror or error)
                continue
            if len(self.guests) >= _MAX_CONNECTIONS:
                sock.close()
                continue
            self.guests.serve(sock)
