"""Offers a program's sessions to others of the same user: captures of them, their state, a few commands.

A Unix socket in a folder that only its user can enter; where there are none, a port of the loopback. In both cases a
token is asked for, which stands in a file that only the user can read.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading

from usbip_capture.errors import CannotListen
from usbip_capture.live import registry
from usbip_capture.live.local_listener import LocalListener
from usbip_capture.live.registry import Entry, Registration
from usbip_capture.live.serving import Source, Subscribers
from usbip_capture.net.listening import Acceptor, Admission
from usbip_capture.system.forks import disown_in_children

log = logging.getLogger(__name__)

#: Connections at a time.
_MAX_CONNECTIONS = 32


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
        self._closing = threading.Lock()
        self._closed = False
        self._listener: LocalListener | None = None
        self._registration: Registration | None = None
        try:
            registry.make_folder()
            registry.sweep()
            self._listener = LocalListener(registry.folder(), self.name, loopback=loopback)
            self._entry = Entry(self.name, display, self._listener.address, token, os.getpid(), server, listen)
            self._registration = Registration(self._entry)
            admission = Admission(full=lambda: len(self.subscribers) >= _MAX_CONNECTIONS)
            self._acceptor = Acceptor(self._listener.socket, self.subscribers.serve, "usbip-local-channel", admission)
        except OSError as error:
            self._withdraw()
            raise CannotListen(
                f"captures cannot be offered to Wireshark: {error.strerror or error}: is {registry.folder()} yours?"
            ) from error
        except BaseException:
            self._withdraw()
            raise
        disown_in_children(self)

    def rename(self, display: str) -> None:
        """Have it listed as `display` from now on; nothing else depends on whether that succeeds."""
        with self._closing:
            if self._closed or self._registration is None or display == self._entry.display:
                return
            self._entry.display = display
            try:
                self._registration.update(self._entry)
            except OSError as error:
                log.warning("%s is listed by its former name: %s", display, error.strerror or error)

    def forked(self) -> None:
        """In a child process: what is offered is its parent's, which withdraws it when it ends."""
        self._closing, self._closed = threading.Lock(), True
        if self._registration is not None:
            self._registration.forked()
        self.subscribers.forked()

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
        try:
            os.rmdir(registry.folder())
        except OSError:  # not empty: others run
            pass
