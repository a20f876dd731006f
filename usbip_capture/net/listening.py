"""Listening sockets and the threads that accept on them: what one client costs, no other one pays for."""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import threading
from collections.abc import Callable

from usbip_capture.errors import CaptureError

log = logging.getLogger(__name__)

#: Seconds without accepting, when that has failed: mostly no file descriptor or thread is left.
_PAUSE = 0.1
_BACKLOG = 64


def listen(address: str, port: int, what: str = "", backlog: int = _BACKLOG) -> socket.socket:
    """A listening TCP socket; port 0 chooses one. what: for the sentence, as `the relay`. Raises CaptureError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=backlog)
    except OSError as error:
        where = f"{address or '*'} port {port}"
        raise CaptureError(f"{what} cannot listen on {where}: {reason(error)}".lstrip()) from error


def reason(error: OSError) -> str:
    """Why a port cannot be listened on, and what to try: the same words wherever we listen."""
    if isinstance(error, socket.gaierror) or (error.errno or 0) < 0:  # create_server makes a plain error of it
        return "the address is not known: give an address of this machine, such as 127.0.0.1"
    if error.errno == errno.EADDRINUSE:
        return "the port is in use: choose another port, or 0 for any"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address: give one that it has, such as 127.0.0.1"
    if error.errno == errno.EACCES:
        return "ports below 1024 need more rights: choose another port, from 1024 on"
    text = os.strerror(error.errno) if error.errno else str(error)
    return f"{text}: choose another address or port"


class Acceptor:
    """Accepts on `listener`, which is its own from now on, until closed. Raises CaptureError if no thread can be had.

    serve: called with each connection on the acceptor's thread; must not wait, and owns the socket if it returns.
    Whatever it raises (no thread, no memory, a client that has left) costs that client only. make_room: called after
    a failure, to give up those that only hold descriptors and threads.
    """

    def __init__(
        self,
        listener: socket.socket,
        serve: Callable[[socket.socket], None],
        name: str,
        make_room: Callable[[], None] = lambda: None,
    ) -> None:
        self._listener = listener
        self._serve = serve
        self._make_room = make_room
        self._closing = threading.Event()
        self._troubled = False
        listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        # Not on every system does shutting a listener down wake the one who waits for it.
        self._wake, self._woken = socket.socketpair()
        for sock in (listener, self._woken):
            self._selector.register(sock, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._release()
            raise CaptureError(f"cannot listen: {error}: end other programs") from error

    @property
    def alive(self) -> bool:
        """Whether it accepts."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Accept nobody any more; its thread has ended when this returns. May be called again."""
        if not self._closing.is_set():
            self._closing.set()
            try:
                self._wake.send(b"\0")
            except OSError:  # its thread has ended, and closed it
                pass
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._selector.select()
                if not self._closing.is_set():
                    self._accept()
        finally:
            self._release()

    def _accept(self) -> None:
        sock: socket.socket | None = None
        try:
            sock, _ = self._listener.accept()
            sock.setblocking(True)
            self._serve(sock)
            self._troubled = False
        except (BlockingIOError, ConnectionAbortedError):  # it has left again
            pass
        except Exception as error:  # noqa: BLE001  an acceptor outlives any one client
            if sock is not None:
                sock.close()
            if not self._troubled:  # once, not ten times a second
                log.warning("a client was turned away: %s", getattr(error, "strerror", None) or error)
            self._troubled = True
            self._make_room()
            self._closing.wait(_PAUSE)

    def _release(self) -> None:
        self._selector.close()
        for sock in (self._listener, self._wake, self._woken):
            sock.close()
