"""The server's end: one request, one answer, each on a connection of its own.

{"version": 1, "token": ..., "request": NAME, ...}    ->    {"ok": true, ...} or {"error": SENTENCE, "kind": ...}
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

from usbip_capture.control_socket.kinds import kind_of
from usbip_capture.control_socket.peers import is_trusted
from usbip_capture.errors import CannotListen, LocalProtocolError, RemoteProtocolError, UsbipError
from usbip_capture.live import messages, registry
from usbip_capture.live.local_listener import LocalListener
from usbip_capture.live.messages import Lines, Message
from usbip_capture.live.registry import Entry, Registration
from usbip_capture.net.listening import Acceptor, Admission, Peer, receive_by
from usbip_capture.system.folders import runtime_folder

log = logging.getLogger(__name__)

#: Does what a request asks for, and returns the answer. Called from several threads; raises UsbipError, with a
#: sentence for the one who asked.
Handler: TypeAlias = "Callable[[Message], Message]"

FOLDER = "servers"
#: Seconds for a request to come, and for its answer to be taken.
_TIMEOUT = 5.0
#: Seconds that requests in progress get at the end.
_LAST_REQUESTS = 1.0
_MAX_CONNECTIONS = 32
_RECEIVE_SIZE = 4096
_MAX_NAME = 64


class ControlSocket:
    """Offers `handlers`, by the names of their requests, until closed. Raises CannotListen.

    The socket is for its user, and root, only: in the user's runtime folder, listed there as `name`, or `name-2` if
    that is taken. listen: where the server has its clients, for people. loopback: as LocalListener has it.
    """

    def __init__(
        self, name: str, handlers: Mapping[str, Handler], *, listen: str = "", loopback: bool | None = None
    ) -> None:
        self._handlers = handlers
        self._token = secrets.token_hex(16)
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._listener: LocalListener | None = None
        self._registration: Registration | None = None
        folder = os.path.join(runtime_folder(), FOLDER)
        try:
            registry.make_folder(folder)
            registry.sweep(folder)
            self.name = registry.free_name(file_name(name), folder)
            self._listener = LocalListener(folder, self.name, loopback=loopback)
            entry = Entry(self.name, name, self._listener.address, self._token, os.getpid(), "", listen)
            self._registration = Registration(entry, folder)
            admission = Admission(full=lambda: len(self._threads) >= _MAX_CONNECTIONS)
            self._acceptor = Acceptor(self._listener.socket, self._serve, "usbip-control-socket", admission)
        except OSError as error:
            self._withdraw()
            raise CannotListen(
                f"commands for this server cannot be taken: {error.strerror or error}: is {folder} yours?"
            ) from error
        except BaseException:
            self._withdraw()
            raise

    def close(self) -> None:
        """Take no more requests; those in progress get a moment to end. May be called again."""
        self._withdraw(listening=True)
        self._acceptor.close()
        self._withdraw()
        deadline = time.monotonic() + _LAST_REQUESTS
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(deadline - time.monotonic(), 0))

    def _withdraw(self, *, listening: bool = False) -> None:
        """Leave nothing behind: no entry, and no path unless we are still listening."""
        if self._registration is not None:
            self._registration.withdraw()
        if self._listener is not None and not listening:
            self._listener.close()

    def _serve(self, sock: socket.socket, peer: Peer) -> None:
        thread = threading.Thread(target=self._run, args=(sock,), name="usbip-control", daemon=True)
        with self._lock:
            thread.start()
            self._threads.add(thread)

    def _run(self, sock: socket.socket) -> None:
        try:
            answer = self._answer(sock)
            sock.settimeout(_TIMEOUT)
            messages.send(sock, answer)
        except OSError as error:
            log.info("one who asked on the control socket is disconnected: %s", error)
        except Exception:
            log.exception("a request on the control socket failed")
        finally:
            sock.close()
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _answer(self, sock: socket.socket) -> Message:
        """The answer to what is asked. Raises OSError: the other end has left, or is too slow."""
        try:
            request = _request(sock)
            if not is_trusted(sock):
                raise RemoteProtocolError("this server takes commands of its own user only: use sudo")
            if not hmac.compare_digest(messages.text(request, "token").encode(), self._token.encode()):
                raise RemoteProtocolError("the token is wrong: ask a server that is listed for this user")
            name = messages.text(request, "request")
            if name not in self._handlers:
                raise LocalProtocolError(f"{name!r} is not a request that this server knows: is it of another version?")
            return {**self._handlers[name](request), "ok": True}
        except UsbipError as error:
            log.debug("a request on the control socket is refused: %s", error)
            return {"error": str(error), "kind": kind_of(error)}
        except OSError:
            raise
        except Exception:
            log.exception("a request on the control socket failed")
            return {"error": "it failed in the server, whose log has more", "kind": ""}


def file_name(name: str) -> str:
    """A server's name as that of a file."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:_MAX_NAME] or "server"


def _request(sock: socket.socket) -> Message:
    """The one line that is sent. Raises OSError, RemoteProtocolError."""
    lines = Lines()
    deadline = time.monotonic() + _TIMEOUT
    while data := receive_by(sock, deadline, _RECEIVE_SIZE):
        found = lines.feed(data)
        if found:
            return found[0]
    raise ConnectionAbortedError("it left without a request")
