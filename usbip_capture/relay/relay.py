"""The relay itself: accepts clients, connects each to the server, forwards, and observes what went through.

One thread does it all, so that a message is passed on by whoever wakes up for it; only connecting to the server, which
may take long, has threads of its own. What is ready is forwarded first, then observed; but where rules name devices, a
client's import is decided first (`gate`). What fails for one connection ends that one only.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from usbip_capture.access.limits import PATIENCE, Limits, key_of
from usbip_capture.access.rules import AccessRules
from usbip_capture.capture.span import Span
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import LocalProtocolError
from usbip_capture.net.address import DEFAULT_PORT, format_address
from usbip_capture.net.listening import PAUSE, Admission, Peer
from usbip_capture.net.networks import Network
from usbip_capture.net.ruling import allowing, policy_of
from usbip_capture.net.transport import Transport
from usbip_capture.relay.backlog import Backlog
from usbip_capture.relay.calls import Calls, guarded
from usbip_capture.relay.captures import RelayCapture
from usbip_capture.relay.forwarding import Connection
from usbip_capture.relay.gate import Gate
from usbip_capture.relay.listening import attach_hint, both_ends, break_off, open_listener
from usbip_capture.relay.observation import Observation, Share
from usbip_capture.relay.readiness import READABLE, make_poller
from usbip_capture.relay.recent import LateCapture, RelayHistory
from usbip_capture.relay.room import room_for
from usbip_capture.relay.ruling import names_devices, refusal
from usbip_capture.servers.address import LOCAL, ServerAddress
from usbip_capture.system.forks import Inheritance
from usbip_capture.system.memory import keep_freed
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.wire.hindsight import Hindsight
from usbip_capture.wire.observed import Event

log = logging.getLogger(__name__)

#: Clients at a time; more are refused. Two sockets each: Windows' select takes 512.
MAX_CONNECTIONS = 256 if os.name == "posix" else 240
#: Seconds without a byte after which a client that has imported nothing makes room, when there are too many.
IDLE_LIMIT = PATIENCE
#: How long a CMD_UNLINK may be on its way from a client to the relay, in nanoseconds.
WINDOW_NS = 100_000_000
#: Events that are held for that, and bytes in them.
_MAX_HELD, _MAX_HELD_BYTES = 4096, 1 << 20
#: Between two looks at events that are held back: seconds, and nanoseconds under load, when many at once cost less.
_TICK, _RELEASE_NS = 0.05, 10_000_000
#: Seconds in which a receiver must take something, when its sender is gone already.
LAST_PATIENCE = 30.0
_ACCEPT_AT_ONCE = 16


class Relay:
    """Relays connections to `address`:`port` (0 chooses one) to `server`. `address` and `port` are the real ones then.

    allow: who may connect, beside this machine; rules: instead, who may have which device, as `relay_rules` makes them.
    One of them is needed for any address but loopback. limits: of clients, of these never more than MAX_CONNECTIONS; a
    client that sends nothing makes room when others come. keeps: how much of each device, for later captures.
    busids: what the server exports, as far as that is known; for `hint`. Raises LocalProtocolError, or CannotListen.
    """

    def __init__(
        self,
        server: ServerAddress,
        address: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        allow: Sequence[Network] = (),
        rules: AccessRules | None = None,
        limits: Limits | None = None,
        keeps: Span | None = None,
    ) -> None:
        if server.host == LOCAL:
            raise LocalProtocolError("local is this machine itself: `usbip-capture serve` lends its devices")
        self.server = server
        self.busids: list[str] = []
        self._rules = allowing(allow) if rules is None else rules
        self._limits = limits or Limits()
        self._names_devices = names_devices(self._rules)
        self._admission = Admission(policy_of(lambda: self._rules), limits=self._limits)
        self._listener = open_listener(address, port, self._rules)
        self.address, self.port = self._listener.getsockname()[:2]
        self._poller = make_poller()
        self._ready: dict[int, Callable[[int], None]] = {}  # by file descriptor
        self._backlog = Backlog()
        self._held_up: set[int] = set()  # file descriptors of connections that are far behind
        self._hindsight = Hindsight(self._event, WINDOW_NS, max_events=_MAX_HELD, max_bytes=_MAX_HELD_BYTES)
        self._share = Share()
        self._history = None if keeps is None else RelayHistory(keeps)
        self._captures: list[RelayCapture | RelayHistory] = [] if self._history is None else [self._history]
        self._connections: dict[Observation, Connection] = {}
        self._connecting: Counter[str] = Counter()  # by address
        self._last = self._released_ns = 0
        self._calls, self._ending = Calls(), False
        self._own_thread = threading.Thread(target=self._run, name="usbip-relay", daemon=True)
        self._own_thread.start()
        self._inheritance = Inheritance(self.forked)

    def forked(self) -> None:
        """In a child process, which relays nothing: its parent's port and connections end when its parent ends them."""
        self._ending = True
        self._listener.close()
        self._calls.forked()
        for connection in self._connections.values():
            for end in connection.ends:
                end.transport.close()
        self._connections.clear()

    @property
    def listening(self) -> str:
        """Where it listens, for people."""
        return format_address(self.address, self.port)

    @property
    def hint(self) -> str:
        """How to attach a device through it."""
        return attach_hint(self.address, self.port, self.busids)

    @property
    def turned_away(self) -> int:
        """Clients that were refused."""
        return sum(self._admission.refused.values())

    @property
    def clients(self) -> list[Observation]:
        """Who is connected."""
        return list(self._connections)

    @property
    def ended(self) -> bool:
        """Whether it forwards no more."""
        return self._calls.ended

    @property
    def busy(self) -> bool:
        """Whether anybody is connected, or about to be."""
        return bool(self._connections) or self._connecting.total() > 0

    def capture(self, writer: PcapWriter) -> RelayCapture:
        """Capture into `writer` from now on, what was kept first; it stays the caller's."""
        capture = RelayCapture(writer, str(self.server), self.hint)

        def begin() -> None:
            self._catch_up()
            for observation in self._connections:
                capture.joins(observation)
            self._captures.append(capture)

        if self._history is None:
            self._calls.wait(begin)
        else:
            LateCapture(capture, self._history, self._catch_up).run(self._calls.wait, begin)
        return capture

    def end_capture(self, capture: RelayCapture) -> None:
        """Nothing more goes into it when this returns; what was seen has."""

        def end() -> None:
            self._catch_up()
            if capture in self._captures:
                self._captures.remove(capture)

        self._calls.wait(end)

    def drop(self, number: int) -> bool:
        """Break off the connection of a client; False if there is none of this number."""
        dropped: list[Connection] = []

        def drop() -> None:
            for observation, connection in list(self._connections.items()):
                if observation.number == number:
                    log.info("client %d, %s, is dropped", number, observation.peer)
                    dropped.append(connection)
                    connection.reset()

        self._calls.wait(drop)
        return bool(dropped)

    def close(self) -> None:
        """Break off all connections, stop listening. May be called again."""
        self._ending = True
        self._calls.soon(lambda: None)  # it wakes up
        self._own_thread.join()

    # -- the relay's thread

    def _run(self) -> None:
        keep_freed()
        self._watch(self._listener, self._accept)
        self._watch(self._calls.sock, self._calls.made)
        try:
            while not self._ending:
                self._turn()
        except Exception:
            log.exception("internal error: the relay stopped")
        for connection in list(self._connections.values()):
            guarded(connection.reset)
        guarded(self._backlog.observe_all)
        guarded(self._hindsight.flush)
        self._listener.close()
        self._calls.end()
        if hasattr(self._poller, "close"):
            self._poller.close()

    def _turn(self) -> None:
        """Forward what there is, then observe some of it."""
        ready, chunks, held, held_up = self._ready, self._backlog.chunks, self._hindsight.items, self._held_up
        for fd, mask in self._poller.poll(0 if chunks else _TICK if held else -1):
            handler = ready.get(fd)
            if handler is not None and fd not in held_up:
                try:
                    handler(mask)
                except Exception:  # noqa: BLE001  one connection ends, the others go on
                    self._failed(handler)
        if chunks:
            if abs((now_ns := self._backlog.observe()) - self._released_ns) > _RELEASE_NS:
                self._hindsight.release(now_ns)
                self._released_ns = now_ns
            if chunks or held_up:
                self._hold_up()
        elif held:
            self._hindsight.release(time.time_ns())

    def _hold_up(self) -> None:
        """Whoever sends faster than can be observed is not read from for a while."""
        self._held_up.clear()
        for observation in self._backlog.far_behind():
            connection = self._connections.get(observation)
            if connection is not None:
                self._held_up.update(end.fd for end in connection.ends)

    def _failed(self, handler: Callable[[int], None]) -> None:
        """A handler has raised: if it is that of a connection, this one ends, and the others never notice."""
        log.exception("internal error; the relay goes on")  # noqa: LOG004  for a handler
        for connection in list(self._connections.values()):
            if any(end is getattr(handler, "__self__", None) for end in connection.ends):
                guarded(connection.reset)
                if not connection.over:
                    guarded(connection.abandon)

    def _catch_up(self) -> None:
        """Hand on all that was forwarded."""
        self._backlog.observe_all()
        self._hindsight.flush()

    def _event(self, observation: Observation, event: Event) -> None:
        """An event that is old enough."""
        try:
            observation.passes(event)
        except Exception:
            log.exception("internal error; the relay goes on")
        for capture in list(self._captures):
            try:
                capture.event(observation, event)
            except Exception:  # nobody is cut off for it
                log.exception("internal error: a capture ends")
                self._captures.remove(capture)

    def _watch(self, sock: socket.socket, handler: Callable[[int], None]) -> None:
        self._poller.register(sock.fileno(), READABLE)
        self._ready[sock.fileno()] = handler

    # -- clients

    def _accept(self, mask: int) -> None:
        for _ in range(_ACCEPT_AT_ONCE):  # then those who are connected have their turn
            try:
                sock, where = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._pause(error)
                return
            try:
                peer = Peer.of(sock, where)
            except OSError:  # it has left again
                sock.close()
                continue
            if not self._admission.admits(peer):
                break_off(sock)
                continue
            address, present = key_of(peer.host), self._connections.values()
            room = room_for(address, present, self._connecting, self._limits, MAX_CONNECTIONS, IDLE_LIMIT)
            if room.given_up is not None:
                self._give_up(room.given_up)
            if room.refusal:
                self._turn_away(sock, peer, room.refusal)
                continue
            self._connecting[address] += 1
            try:
                threading.Thread(
                    target=self._connect, args=(sock, peer), name="usbip-relay-connect", daemon=True
                ).start()
            except RuntimeError as error:  # this system has no thread left
                self._not_connecting(peer)
                self._turn_away(sock, peer, str(error))
            else:
                self._admission.succeeded()

    def _turn_away(self, sock: socket.socket, peer: Peer, reason: str) -> None:
        self._admission.refuse(peer, reason)
        break_off(sock)

    def _give_up(self, connection: Connection) -> None:
        observation = connection.observation
        log.warning("client %d, %s, is dropped: too many clients, and it has been idle longest without a device",
                    observation.number, observation.peer)  # fmt: skip
        connection.reset()

    def _pause(self, error: OSError) -> None:
        """Too many open files, mostly: the others go on, and a client waits."""
        self._admission.failed(error)
        fd = self._listener.fileno()
        self._poller.unregister(fd)

        def again() -> None:
            if not self._ending:
                self._poller.register(fd, READABLE)

        self._calls.later(PAUSE, again)

    def _connect(self, sock: socket.socket, peer: Peer) -> None:
        """On a thread of its own: to the server, for this client."""
        ends = both_ends(sock, peer, self.server)
        if ends is None:
            self._calls.soon(functools.partial(self._not_connecting, peer))
        else:
            self._calls.soon(functools.partial(self._connected, peer, *ends))

    def _not_connecting(self, peer: Peer) -> None:
        address = key_of(peer.host)
        self._connecting[address] -= 1
        if not self._connecting[address]:
            del self._connecting[address]

    def _connected(self, peer: Peer, client: Transport, server: Transport) -> None:
        self._not_connecting(peer)
        if self._ending:
            client.close()
            server.close()
            return
        decide = functools.partial(self._decide, peer)
        observation = Observation(self._last + 1, client.peer, self._hindsight.add, self._share, decide)
        try:
            connection = Connection(
                client, server, observation, self._poller, self._backlog.chunks, self._over, self._bound_drain
            )
        except Exception as error:  # noqa: BLE001  no memory or room in the poller, mostly
            log.warning("client %s cannot be served: %s", client.peer, error)
            for transport in (client, server):
                transport.reset_on_close()
                transport.close()
            return
        if self._names_devices:
            Gate(connection, self._rules, peer, self._admission.refuse, self._calls.soon)
        self._last += 1
        connection.address = key_of(peer.host)
        self._connections[observation] = connection
        for end in connection.ends:
            self._ready[end.fd] = end.ready
        log.info("client %d, %s", observation.number, client.peer)

    def _decide(self, peer: Peer, observation: Observation, info: DeviceInfo | None) -> None:
        """Break off a client that may not have this device, or of which nobody knows what it has."""
        reason, connection = refusal(self._rules, peer, info), self._connections.get(observation)
        if reason and connection is not None:
            self._admission.refuse(peer, reason)
            self._calls.soon(lambda: None if connection.over else connection.reset())

    def _bound_drain(self, connection: Connection) -> None:
        before = connection.progress

        def look() -> None:
            if connection.over:
                return
            if connection.progress == before:
                connection.reset()
            else:
                self._bound_drain(connection)

        self._calls.later(LAST_PATIENCE, look)

    def _over(self, connection: Connection) -> None:
        observation = connection.observation
        for end in connection.ends:
            self._ready.pop(end.fd, None)
        del self._connections[observation]
        observation.forwarded = connection.forwarded
        self._backlog.chunks.append((observation, True, None, time.time_ns()))
