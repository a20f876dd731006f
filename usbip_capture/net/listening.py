"""Listening sockets, who may connect to them, and the threads that accept: a client's cost is no other client's.

Rooms with a loop of their own (relay, collector) take the listener, the `Admission` and the words from here.
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from usbip_capture.access.limits import TOO_MANY, TOO_OFTEN, Limits, TokenBuckets, key_of
from usbip_capture.errors import CannotListen
from usbip_capture.net.address import format_address
from usbip_capture.net.transport import reset_on_close
from usbip_capture.system.forks import disown_in_children, set_event

log = logging.getLogger(__name__)

#: Seconds without accepting, when that has failed: mostly no file descriptor or thread is left.
PAUSE = 0.1
#: Why a client is refused; in the log after "client ADDRESS is refused: ".
NOT_ALLOWED = "it is not allowed here"
#: Connections that wait to be accepted: for one that finds no place a client tries again a second later.
BACKLOG = 1024
#: Seconds, and how many addresses and reasons are remembered: a stranger must not fill the log.
_LOG_EVERY, _MAX_LOGGED = 10.0, 256
_MAPPED = "::ffff:"
#: What is not a fault of one client.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Peer(NamedTuple):
    """Who connects. host: its address, of IPv4 also where the listener is of IPv6; empty within this machine.

    local_host: the address of ours at which it did. identity: what it has proved to be, such as `paired:NAME`; mostly
    empty.
    """

    host: str = ""
    port: int = 0
    local_host: str = ""
    identity: str = ""

    @classmethod
    def of(cls, sock: socket.socket, address: object = None) -> Peer:
        """The peer of a connected socket. address: from `accept`. Raises OSError if it has left."""
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return cls()
        host, port = (address if isinstance(address, tuple) else sock.getpeername())[:2]
        return cls(_unmapped(host), port, _unmapped(sock.getsockname()[0]))

    def __str__(self) -> str:
        return format_address(self.host, self.port) if self.host else "of this machine"


#: Returns why a peer may not connect; None or "" if it may. Called before anything is read, from any thread.
Policy: TypeAlias = "Callable[[Peer], str | None]"


class Admission:
    """Who is let in: who does not connect too often, whom `policy` allows, unless `full` returns that there is no room.

    A policy that raises refuses. Refusals are logged and counted: `refused`, by reason. Threads may share it.
    on_refused: called with each whom `admits` or `turn_away` refuses, and why; must not wait. limits: of these the
    connections per second, none by default, and none for this machine. clock: in seconds.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        full: Callable[[], bool] = lambda: False,
        on_refused: Callable[[Peer, str], None] = lambda peer, reason: None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.refused: Counter[str] = Counter()
        self._logged: dict[tuple[str, str], float] = {}  # when the host and the reason were last logged
        self._policy = policy
        self._full = full
        self._on_refused = on_refused
        self._troubled = False
        self._clock = clock
        self._lock = threading.Lock()  # of the buckets
        self._buckets: TokenBuckets | None = None
        self.limit(limits)

    def limit(self, limits: Limits | None) -> None:
        """Have these limits from now on."""
        rate = limits.connections_per_second if limits is not None else 0
        with self._lock:
            self._buckets = TokenBuckets(rate, rate) if rate else None

    def admits(self, peer: Peer) -> bool:
        """Whether this client may come in; who calls closes the connection if not."""
        return not self.refusal(peer)

    def refusal(self, peer: Peer) -> str:
        """The same: why it may not, empty if it may."""
        reason = TOO_OFTEN if self._is_too_often(peer) else self._reason(peer)  # in this order, as rules take longer
        if reason:
            self.turn_away(peer, reason)
        return reason

    def permits(self, peer: Peer) -> bool:
        """As `admits`, of a client that was counted when it connected; more is known of it now."""
        reason = self._reason(peer)
        if reason:
            self.turn_away(peer, reason)
        return not reason

    def turn_away(self, peer: Peer, reason: str) -> None:
        """Refuse one that was not asked about, or was admitted; who calls closes the connection."""
        self.refuse(peer, reason)
        self._on_refused(peer, reason)

    def refuse(self, peer: Peer, reason: str) -> None:
        """Count a refusal, and log it: of each address and reason one in _LOG_EVERY seconds."""
        self.refused[reason] += 1
        kind, now = (key_of(peer.host), reason), self._clock()
        if now - self._logged.get(kind, -_LOG_EVERY) < _LOG_EVERY:
            return
        if len(self._logged) >= _MAX_LOGGED:
            self._logged.clear()
        self._logged[kind] = now
        log.warning("client %s is refused: %s", peer, reason)

    def failed(self, error: BaseException) -> None:
        """Accepting or serving a client has failed: log it once, not ten times a second."""
        if not self._troubled:
            log.warning("no client can be accepted: %s", getattr(error, "strerror", None) or error)
        self._troubled = True

    def succeeded(self) -> None:
        """A client is served: the next failure is logged again."""
        self._troubled = False

    def _reason(self, peer: Peer) -> str:
        try:
            reason = self._policy(peer) if self._policy is not None else ""
        except Exception:
            log.exception("whether client %s may connect cannot be decided", peer)
            reason = NOT_ALLOWED
        return reason or (TOO_MANY if self._full() else "")

    def _is_too_often(self, peer: Peer) -> bool:
        if peer.host == peer.local_host:  # of this machine, to whom no limit is a protection
            return False
        with self._lock:
            return self._buckets is not None and not self._buckets.take(key_of(peer.host), self._clock())


def listen(
    address: str, port: int, what: str = "", backlog: int = BACKLOG, *, transport: str = "", dual_stack: bool = False
) -> socket.socket:
    """A listening TCP socket, blocking; port 0 chooses one. Raises CannotListen.

    what, transport: for its sentence, as `the relay`, `tcp`. dual_stack: an empty address is all of this machine, of
    IPv6 as well; otherwise of IPv4 only.
    """
    everywhere = dual_stack and not address and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if everywhere or ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=backlog, dualstack_ipv6=everywhere)
    except OSError as error:
        raise cannot_listen(what, transport, address, port, error) from error


def listen_unix(path: str, what: str = "", backlog: int = BACKLOG) -> socket.socket:
    """A listening Unix socket that only its owner can connect to; one that a killed program has left is replaced.

    Raises CannotListen.
    """
    try:
        if _is_left(path):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(path)
            os.chmod(path, 0o600)  # before `listen`: until then nobody can connect
            listener.listen(backlog)
        except BaseException:
            listener.close()
            raise
    except (OSError, AttributeError) as error:  # AttributeError: Python on Windows has no such sockets
        text = {errno.EADDRINUSE: "the name is in use: choose another one"}.get(getattr(error, "errno", 0) or 0)
        text = text or f"{getattr(error, 'strerror', None) or error}: choose another name"
        raise CannotListen(f"{what} cannot listen on {path}: {text}".lstrip()) from error
    return listener


def _is_left(path: str) -> bool:
    """Whether it is a socket that nobody listens on."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(path)
        except ConnectionRefusedError:
            return True
    return False


def cannot_listen(what: str, transport: str, address: str, port: int, error: OSError) -> CannotListen:
    """The error for `error`: `WHAT cannot listen on TRANSPORT ADDRESS port PORT: REASON`."""
    where = f"{transport} {address or '*'} port {port}".lstrip()
    return CannotListen(f"{what} cannot listen on {where}: {reason(error)}".lstrip())


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


def receive_by(sock: socket.socket, deadline: float, size: int) -> bytes:
    """What comes next; empty at the end of the stream. deadline: of the whole request, on the monotonic clock.

    Raises TimeoutError when it has passed, OSError. Leaves a time-out on the socket.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no request came in time")
    sock.settimeout(left)
    return sock.recv(size)


class Acceptor:
    """Accepts on `listener`, which is its own from now on, until closed. Raises CannotListen if no thread can be had.

    serve: called with each connection that `admission` lets in, on the acceptor's thread; must not wait, and owns the
    socket if it returns. Whatever it raises (no thread, no memory, a client that has left) costs that client only.
    make_room: called after a failure, to give up those that only hold descriptors and threads.
    """

    def __init__(
        self,
        listener: socket.socket,
        serve: Callable[[socket.socket, Peer], None],
        name: str,
        admission: Admission | None = None,
        make_room: Callable[[], None] = lambda: None,
    ) -> None:
        self._listener = listener
        self._serve = serve
        self._admission = admission or Admission()
        self._make_room = make_room
        self._closing = threading.Event()
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
            raise CannotListen(f"cannot listen: {error}: end other programs") from error
        disown_in_children(self)

    def forked(self) -> None:
        """In a child process, which does not accept: its parent's port is free when its parent closes it."""
        self._closing = set_event()
        self._release()

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
            sock, address = self._listener.accept()
            sock.setblocking(True)
            peer = Peer.of(sock, address)
            reason = self._admission.refusal(peer)
            if not reason:
                self._serve(sock, peer)
                self._admission.succeeded()
            else:
                if reason == TOO_OFTEN:  # or the system would keep much for each of them, for a minute
                    reset_on_close(sock)
                sock.close()
        except (BlockingIOError, ConnectionAbortedError):  # it has left again
            pass
        except Exception as error:  # noqa: BLE001  an acceptor outlives any one client
            if sock is not None:
                sock.close()
                if isinstance(error, OSError) and error.errno not in _SHORTAGES:  # of that client, which has left
                    return
            self._admission.failed(error)
            self._make_room()
            self._closing.wait(PAUSE)

    def _release(self) -> None:
        self._selector.close()
        for sock in (self._listener, self._wake, self._woken):
            sock.close()


def _unmapped(host: str) -> str:
    """Of `::ffff:192.0.2.1` the address of IPv4. Ref: RFC 4291, 2.5.5.2"""
    return host[len(_MAPPED) :] if host.lower().startswith(_MAPPED) and "." in host else host
