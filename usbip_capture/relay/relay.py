"""The relay itself: accepts clients, connects each to the server, forwards, and observes what went through.

One thread does it all, so that a message is passed on by whoever wakes up for it; only connecting to the server, which
may take long, has threads of its own. What is ready is forwarded first, then observed. What fails for one connection
ends that one only.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from usbip_capture.address import DEFAULT_PORT, format_address
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import UsbipError
from usbip_capture.hosts import Server
from usbip_capture.relay.captures import RelayCapture
from usbip_capture.relay.forwarding import Chunk, Connection, reset_on_close, set_options
from usbip_capture.relay.listening import Network, attach_hint, is_own_address, may_connect, open_listener
from usbip_capture.relay.observation import Observation
from usbip_capture.relay.readiness import READABLE, make_poller
from usbip_capture.shown import one_line
from usbip_capture.wire.hindsight import Hindsight
from usbip_capture.wire.observed import Event

log = logging.getLogger(__name__)

#: Clients at a time; more are turned away. Two sockets each: Windows' select takes 512.
MAX_CONNECTIONS = 256 if os.name == "posix" else 240
#: Seconds without a byte after which a client that has imported nothing makes room, when there are too many.
IDLE_LIMIT = 5.0
#: How long a CMD_UNLINK may be on its way from a client to the relay, in nanoseconds.
WINDOW_NS = 100_000_000
#: Events that are held for that, and bytes in them.
_MAX_HELD, _MAX_HELD_BYTES = 4096, 1 << 20
#: Seconds between two looks at events that are held back.
_TICK = 0.05
#: Seconds without accepting anybody, when that has failed.
_ACCEPT_PAUSE = 0.2


class Relay:
    """Relays connections to `address`:`port` (0 chooses one) to `server`. `address` and `port` are the real ones then.

    allow: who may connect, beside this machine; needed for any address but loopback.
    busids: what the server exports, as far as somebody has told; for `hint`.
    Raises LocalProtocolError, or CaptureError if it cannot listen there.
    """

    def __init__(
        self,
        server: Server,
        address: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        allow: Sequence[Network] = (),
    ) -> None:
        self.server = server
        self.busids: list[str] = []
        self.turned_away = 0
        self._allow = list(allow)
        self._listener = open_listener(address, port, allow)
        self.address, self.port = self._listener.getsockname()[:2]
        self._poller = make_poller()
        self._ready: dict[int, Callable[[int], None]] = {}  # by file descriptor
        self._chunks: list[Chunk] = []
        self._hindsight: Hindsight[Observation] = Hindsight(
            self._event, WINDOW_NS, max_events=_MAX_HELD, max_bytes=_MAX_HELD_BYTES
        )
        self._captures: list[RelayCapture] = []
        self._connections: dict[Observation, Connection] = {}
        self._connecting = self._last = 0
        self._calls: deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._ending = self._ended = False
        self._lock = threading.Lock()  # of _calls and _ended
        self._thread = threading.Thread(target=self._run, name="usbip-relay", daemon=True)
        self._thread.start()

    @property
    def listening(self) -> str:
        """Where it listens, for people."""
        return format_address(self.address, self.port)

    @property
    def hint(self) -> str:
        """How to attach a device through it."""
        return attach_hint(self.address, self.port, self.busids)

    @property
    def clients(self) -> list[Observation]:
        """Who is connected."""
        return list(self._connections)

    @property
    def ended(self) -> bool:
        """Whether it forwards no more."""
        return self._ended

    @property
    def busy(self) -> bool:
        """Whether anybody is connected, or about to be."""
        return bool(self._connections or self._connecting)

    def capture(self, writer: PcapWriter) -> RelayCapture:
        """Capture into `writer` from now on; it stays the caller's."""
        capture = RelayCapture(writer, str(self.server), self.hint)

        def begin() -> None:
            self._hindsight.flush()
            for observation in self._connections:
                capture.joins(observation)
            self._captures.append(capture)

        self._do(begin)
        return capture

    def end_capture(self, capture: RelayCapture) -> None:
        """Nothing more goes into it when this returns; what was seen has."""

        def end() -> None:
            self._hindsight.flush()
            if capture in self._captures:
                self._captures.remove(capture)

        self._do(end)

    def drop(self, number: int) -> bool:
        """Break off the connection of a client; False if there is none of this number."""
        dropped: list[Connection] = []

        def drop() -> None:
            for observation, connection in list(self._connections.items()):
                if observation.number == number:
                    log.info("client %d, %s, is dropped", number, observation.peer)
                    dropped.append(connection)
                    connection.reset()

        self._do(drop)
        return bool(dropped)

    def close(self) -> None:
        """Break off all connections, stop listening. May be called again."""

        self._ending = True
        self._call(_nothing)
        self._thread.join()

    # -- calls from other threads

    def _call(self, what: Callable[[], None]) -> None:
        """Have the relay's thread do it soon."""
        with self._lock:
            if not self._ended:
                self._calls.append(what)
                try:
                    self._wake_write.send(b"\0")
                except BlockingIOError:  # it has been woken, many times over
                    pass
                return
        what()

    def _do(self, what: Callable[[], None]) -> None:
        """Have the relay's thread do it, and wait for that."""
        done = threading.Event()

        def do() -> None:
            try:
                what()
            finally:
                done.set()

        self._call(do)
        done.wait()

    def _woken(self, mask: int) -> None:
        try:
            self._wake_read.recv(4096)
        except BlockingIOError:
            pass
        while self._calls:
            try:
                self._calls.popleft()()
            except Exception:  # nobody is cut off for it
                log.exception("the relay goes on after a fault of our own")

    # -- the relay's thread

    def _run(self) -> None:
        self._watch(self._listener, self._accept)
        self._watch(self._wake_read, self._woken)
        try:
            while not self._ending:
                self._turn()
        except Exception:
            log.exception("the relay ended because of our own fault")
        for connection in list(self._connections.values()):
            self._guarded(connection.reset)
        self._guarded(self._hindsight.flush)
        self._listener.close()
        with self._lock:
            self._ended = True
            calls = list(self._calls)
        for call in calls:
            self._guarded(call)
        for sock in (self._wake_read, self._wake_write):
            sock.close()
        if hasattr(self._poller, "close"):
            self._poller.close()

    def _turn(self) -> None:
        """Forward what there is, then observe it."""
        ready, chunks, held = self._ready, self._chunks, self._hindsight.items
        for fd, mask in self._poller.poll(_TICK if held else -1):
            handler = ready.get(fd)
            if handler is not None:
                try:
                    handler(mask)
                except Exception:
                    self._failed(handler)
        if chunks:
            now_ns = chunks[-1][3]
            self._observe()
            self._hindsight.release(now_ns)
        elif held:
            self._hindsight.release(time.time_ns())

    def _failed(self, handler: Callable[[int], None]) -> None:
        """A handler has raised: if it is that of a connection, this one ends, and the others never notice."""
        log.exception("the relay goes on after a fault of our own")
        for connection in list(self._connections.values()):
            if any(end is getattr(handler, "__self__", None) for end in connection.ends):
                self._guarded(connection.reset)
                if not connection.over:
                    self._guarded(connection.abandon)

    def _guarded(self, step: Callable[[], object]) -> None:
        """The next one is taken whether this fails or not."""
        try:
            step()
        except Exception:
            log.exception("the relay goes on after a fault of our own")

    def _observe(self) -> None:
        for observation, from_client, data, timestamp_ns in self._chunks:
            observation.saw(from_client, data, timestamp_ns)
        self._chunks.clear()

    def _event(self, observation: Observation, event: Event) -> None:
        """An event that is old enough."""
        self._guarded(functools.partial(observation.passes, event))
        for capture in list(self._captures):
            try:
                capture.event(observation, event)
            except Exception:  # nobody is cut off for it
                log.exception("a capture ends because of our own fault")
                self._captures.remove(capture)

    def _watch(self, sock: socket.socket, handler: Callable[[int], None]) -> None:
        self._poller.register(sock.fileno(), READABLE)
        self._ready[sock.fileno()] = handler

    # -- clients

    def _accept(self, mask: int) -> None:
        while True:
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._pause(error)
                return
            peer = format_address(address[0], address[1])
            if not (may_connect(address[0], self._allow) or is_own_address(sock, address[0])):
                self._turn_away(sock, peer, "it is not allowed here")
                continue
            if not self._has_room():
                self._turn_away(sock, peer, "too many clients")
                continue
            self._connecting += 1
            try:
                threading.Thread(
                    target=self._connect, args=(sock, peer), name="usbip-relay-connect", daemon=True
                ).start()
            except RuntimeError as error:  # this system has no thread left
                self._connecting -= 1
                self._turn_away(sock, peer, str(error))

    def _turn_away(self, sock: socket.socket, peer: str, reason: str) -> None:
        log.warning("%s is turned away: %s", peer, reason)
        self.turned_away += 1
        _break_off(sock)

    def _has_room(self) -> bool:
        """Whether one more client may come; the longest idle one that has imported nothing may have to go for it."""
        if len(self._connections) + self._connecting < MAX_CONNECTIONS:
            return True
        idle = [c for c in self._connections.values() if not c.observation.imported]
        longest = min(idle, key=lambda connection: connection.active_ns, default=None)
        if longest is None or time.time_ns() - longest.active_ns < IDLE_LIMIT * 1e9:
            return False
        log.warning("client %d, %s, is dropped: too many clients, and it has been idle longest without a device",
                    longest.observation.number, longest.observation.peer)  # fmt: skip
        longest.reset()
        return True

    def _pause(self, error: OSError) -> None:
        """Too many open files, mostly: the others go on, and a client waits."""
        log.warning("no client can be accepted: %s", error.strerror or error)
        fd = self._listener.fileno()
        self._poller.unregister(fd)

        def again() -> None:
            if not self._ending:
                self._poller.register(fd, READABLE)

        timer = threading.Timer(_ACCEPT_PAUSE, self._call, (again,))
        timer.daemon = True
        timer.start()

    def _connect(self, client: socket.socket, peer: str) -> None:
        """On a thread of its own: to the server, for this client."""
        try:
            server = self.server.connect()
        except Exception as error:
            expected = isinstance(error, (UsbipError, OSError))
            log.warning("client %s: %s", peer, one_line(str(error)), exc_info=None if expected else error)
            _break_off(client)
            self._call(self._not_connected)
            return
        self._call(functools.partial(self._connected, client, server, peer))

    def _not_connected(self) -> None:
        self._connecting -= 1

    def _connected(self, client: socket.socket, server: socket.socket, peer: str) -> None:
        self._connecting -= 1
        if self._ending:
            client.close()
            server.close()
            return
        try:
            for sock in (client, server):
                set_options(sock)
        except OSError:  # one of them is gone: some systems tell it so
            _break_off(client)
            _break_off(server)
            return
        observation = Observation(self._last + 1, peer, self._hindsight.add)
        try:
            connection = Connection(client, server, observation, self._poller, self._chunks, self._over)
        except Exception as error:  # no memory or room in the poller, mostly
            log.warning("client %s cannot be served: %s", peer, error)
            _break_off(client)
            _break_off(server)
            return
        self._last += 1
        self._connections[observation] = connection
        for end in connection.ends:
            self._ready[end.fd] = end.ready
        log.info("client %d, %s", observation.number, peer)

    def _over(self, connection: Connection) -> None:
        observation = connection.observation
        for end in connection.ends:
            self._ready.pop(end.fd, None)
        del self._connections[observation]
        self._observe()  # what it has said belongs before its end
        observation.ended(time.time_ns())
        log.info("client %d, %s, is gone: %d bytes from it, %d to it", observation.number, observation.peer,
                 *connection.forwarded)  # fmt: skip


def _nothing() -> None:
    """For the relay's thread to wake up."""


def _break_off(sock: socket.socket) -> None:
    reset_on_close(sock)
    sock.close()
