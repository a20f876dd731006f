"""The server: where it listens, which devices it exports, who is connected."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from usbip_capture.access.limits import Limits, Places, Room, key_of
from usbip_capture.device import Device
from usbip_capture.errors import UsbipError
from usbip_capture.net import listening
from usbip_capture.net.connecting import set_options
from usbip_capture.net.transport import SocketTransport, Transport
from usbip_capture.server.access import Access, Decision, Refusal
from usbip_capture.server.client import Client
from usbip_capture.server.connection import Connection, Secured
from usbip_capture.server.events import EXPORTED, REFUSED, WITHDRAWN, Events
from usbip_capture.server.exports import Export, Exports
from usbip_capture.server.figures import Figures
from usbip_capture.server.in_flight import InFlight
from usbip_capture.server.tls import TlsHandshake
from usbip_capture.syslog.severity import NOTICE, WARNING
from usbip_capture.system.descriptors import most_descriptors
from usbip_capture.usb.info import DeviceInfo

if TYPE_CHECKING:
    from usbip_capture.tls.server import ServerContext
    from usbip_capture.tls.transport import TlsTransport

log = logging.getLogger(__name__)

#: Of the descriptors that this process may have, this part is for clients without a device: the others are for those
#: with one, for the devices, and for what else is open.
_PART_FOR_WAITING = 4
#: Seconds in which all sessions end when the server is closed; a device that hangs is left to its thread.
_CLOSING_TIMEOUT = 20.0
#: Seconds for those that were given up to leave.
_LEAVING_TIMEOUT = 5.0
#: Why clients are disconnected at the end.
STOPPING = "the server is stopping"


class Server:
    """Exports devices. Each import opens its device anew, as after the reset that Linux does between two clients.

    A device whose opening raises is refused, as being in error. A client that reads nothing for 30 s, or leaves 64 MiB
    of replies unread, is disconnected. access: decides who may do what. events: where what happens is reported.
    limits: how many clients, and how much of each. figures: where URBs are counted, of those who connect from then on;
    None if nobody wants that.
    """

    def __init__(
        self,
        access: Access | None = None,
        events: Events | None = None,
        limits: Limits | None = None,
        figures: Figures | None = None,
    ) -> None:
        self.figures = figures
        self._access = access or Access()
        self.events = events or Events()
        self.admission = listening.Admission(self._refusal, on_refused=self._refused)
        self._before_handshake = listening.Admission(
            lambda peer: _reason(self._access.may_identify(peer)), on_refused=self._refused
        )
        self.limits = limits or Limits()
        self._in_flight = InFlight()
        self._exports = Exports()
        self._lock = threading.Condition(threading.Lock())  # notified when a connection has ended
        self._paths: dict[str, int] = {}  # of Unix sockets, with their inodes
        self._acceptors: list[listening.Acceptor] = []
        self._connections: dict[Connection, None] = {}
        self._places: Places[Connection] = Places()
        self._closing = False

    @property
    def limits(self) -> Limits:
        """Of clients; new ones are for those who connect from now on."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        waiting = max(min(limits.max_waiting, most_descriptors() // _PART_FOR_WAITING), 1)
        self._limits = replace(limits, max_waiting=waiting)
        for admission in (self.admission, self._before_handshake):
            admission.limit(limits)

    @property
    def clients(self) -> list[Client]:
        """Who is connected, since when, and with which device; the longest connected first."""
        with self._lock:
            return [connection.client for connection in self._connections]

    def add(
        self,
        info: DeviceInfo,
        open_device: Callable[[], Device],
        serial: str = "",
        rule: str = "",
        *,
        ruled: tuple[DeviceInfo, str | None] | None = None,
    ) -> None:
        """Export a device under `info.busid`; it replaces the one that has this busid. serial, rule: for the events.

        ruled: what rules are asked about, if not `info` and `serial`.
        """
        export = Export(info, open_device, serial, ruled)
        self._exports.add(export)
        self.events.emit(EXPORTED, NOTICE, busid=info.busid, device=export.device, rule=rule)

    def remove(self, busid: str, reason: str = "its device is not exported any more", by: str = "user") -> None:
        """Stop exporting a device; who has it, or is just getting it, loses it. reason, by: why, and who wants it."""
        export = self._exports.remove(busid, reason, by)
        if export is not None:
            self.events.emit(WITHDRAWN, NOTICE, busid=busid, device=export.device, text=reason, by=by)

    def disconnect(self, busid: str, reason: str = "as it was asked for here", by: str = "user") -> bool:
        """End the client that has this device, which stays exported; False if nobody has it.

        reason, by: why, and who wants it.
        """
        with self._lock:
            found = [connection for connection in self._connections if busid and connection.client.busid == busid]
        for connection in found:
            connection.end(reason, by)
        return bool(found)

    def disconnect_client(self, number: int, reason: str = "as it was asked for here", by: str = "user") -> bool:
        """End the client of this number; False if there is none. reason, by: as for `disconnect`."""
        connection = self._connection(number)
        if connection is not None:
            connection.end(reason, by)
        return connection is not None

    def round_trip(self, number: int) -> float | None:
        """Seconds of a packet to the client of this number and back; None where the system does not know."""
        connection = self._connection(number)
        return None if connection is None else connection.round_trip()

    def ruled(self, busid: str) -> tuple[DeviceInfo, str | None] | None:
        """What rules are asked about a device, and its serial number, None if unknown; None if it is not exported."""
        export = self._exports.find(busid)
        return None if export is None else export.ruled or (export.info, export.serial)

    def check_sessions(self, by: str = "server") -> None:
        """Ask again who may have which device, and disconnect those who may not any more. by: who causes it."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            try:
                connection.check(by)
            except Exception:  # the others are asked about all the same
                log.exception("whether client %s may keep its device cannot be decided", connection.client.peer)

    def listen(self, address: str, port: int) -> tuple[str, int]:
        """Accept connections; the address and port that are really used (port 0 chooses one). Raises CannotListen."""
        listener = listening.listen(address, port)
        host, bound = listener.getsockname()[:2]
        self._accept(listener)
        return host, bound

    def listen_tls(
        self, address: str, port: int, context: ServerContext, pair: Callable[[TlsTransport, listening.Peer], None]
    ) -> tuple[str, int]:
        """As `listen`, for connections within TLS; an empty address is all of this machine, of IPv6 as well.

        pair: has the conversation of those who connect for pairing.
        """
        listener = listening.listen(address, port, dual_stack=True)
        host, bound = listener.getsockname()[:2]
        # Who it is, and so whether it may connect, is known after the handshake.
        serve = partial(self._serve, secured=TlsHandshake(context, pair))
        self._accept(listener, serve, self._before_handshake)
        return host, bound

    def listen_unix(self, path: str) -> None:
        """Accept connections of this user's programs at a Unix socket. Raises CannotListen."""
        listener = listening.listen_unix(path)
        self._paths[path] = os.stat(path).st_ino
        self._accept(listener)

    def serve_socket(self, sock: socket.socket) -> None:
        """Serve one connection on a thread of its own, if it may connect; the socket is the server's from now on.

        Raises UsbipError if no thread can be had, OSError if the client has left; the socket is closed then.
        """
        try:
            peer = listening.Peer.of(sock)
        except BaseException:
            sock.close()
            raise
        if self.admission.admits(peer):
            self._serve(sock, peer)
        else:
            sock.close()

    def serve_transport(self, transport: Transport, peer: listening.Peer | None = None) -> None:
        """The same for a client that something else than a socket carries. peer: whom rules are asked about.

        Raises UsbipError if no thread can be had; the transport is closed then.
        """
        peer = peer or listening.Peer()
        if self.admission.admits(peer):
            self._start(transport, peer)
        else:
            transport.close()

    def close(self) -> None:
        """End all connections; their devices are closed when this returns, but for those that hang: bounded in time."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
            acceptors, self._acceptors = self._acceptors, []
        for acceptor in acceptors:
            acceptor.close()
        self._remove_paths()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.end(STOPPING, logged=False)
        deadline = time.monotonic() + _CLOSING_TIMEOUT
        for connection in connections:
            connection.join(max(deadline - time.monotonic(), 0.0))

    def _connection(self, number: int) -> Connection | None:
        with self._lock:
            return next((found for found in self._connections if found.client.number == number), None)

    def _accept(
        self,
        listener: socket.socket,
        serve: Callable[[socket.socket, listening.Peer], None] | None = None,
        admission: listening.Admission | None = None,
    ) -> None:
        acceptor = listening.Acceptor(
            listener, serve or self._serve, "usbip-server", admission or self.admission, self._make_room
        )
        with self._lock:
            self._acceptors.append(acceptor)

    def _remove_paths(self) -> None:
        while self._paths:
            path, number = self._paths.popitem()
            try:
                if os.stat(path).st_ino == number:  # not if somebody else listens there meanwhile
                    os.unlink(path)
            except OSError:  # somebody has removed it
                pass

    def _refusal(self, peer: listening.Peer) -> str:
        return _reason(self._access.may_connect(peer))

    def _refused(self, peer: listening.Peer, reason: str) -> None:
        """Who may not connect, and by which rule if it is one."""
        rule = reason.rule if isinstance(reason, Refusal) else ""
        self.events.emit(REFUSED, WARNING, peer=peer, text=reason, rule=rule, by="server")

    def _serve(self, sock: socket.socket, peer: listening.Peer, secured: Secured | None = None) -> None:
        try:
            set_options(sock)
            transport = SocketTransport(sock, str(peer))
        except BaseException:
            sock.close()
            raise
        self._start(transport, peer, secured)

    def _start(self, transport: Transport, peer: listening.Peer, secured: Secured | None = None) -> None:
        connection = Connection(
            transport, peer, self._exports, self._access, self.admission, self.events,
            timeout=self._limits.request_timeout, in_flight=self._in_flight,
            on_import=self._imported, on_end=self._ended, secured=secured, figures=self.figures,
        )  # fmt: skip
        try:
            with self._lock:
                # A busy machine may be slow to free what those hold who were given up: nobody is refused for that.
                self._lock.wait_for(
                    lambda: self._closing or not self._places.is_crowded(self._limits), _LEAVING_TIMEOUT
                )
                room = Room() if self._closing else self._enter(connection)
                if self._closing or room.refusal:
                    transport.close()
        except RuntimeError as error:
            transport.close()
            raise UsbipError(f"no connection can be served: {error}: end other programs") from error
        except BaseException:
            transport.close()
            raise
        if room.refusal:
            self.admission.turn_away(peer, room.refusal)
        if room.given_up is not None:
            _give_up(room.given_up)

    def _has_space(self) -> bool:
        return self._closing or not self._places.is_crowded(self._limits)

    def _enter(self, connection: Connection) -> Room[Connection]:
        """Serve the client if there is room, for which another one may have to go. The lock is held."""
        address, now = key_of(connection.client.peer.host), time.monotonic()
        room = self._places.room(address, now, self._limits)
        if not room.refusal:
            connection.start()
            if room.given_up is not None:
                self._places.give_up(room.given_up)
            self._connections[connection] = None
            self._places.enter(connection, address, now)
        return room

    def _make_room(self) -> None:
        """Descriptors or threads are used up: one that only holds them goes."""
        with self._lock:
            longest = self._places.longest()
            if longest is not None:
                self._places.give_up(longest)
        if longest is not None:
            _give_up(longest)

    def _imported(self, connection: Connection) -> None:
        with self._lock:
            self._places.settle(connection)

    def _ended(self, connection: Connection) -> None:
        with self._lock:
            self._connections.pop(connection, None)
            self._places.leave(connection)
            self._lock.notify_all()


def _give_up(connection: Connection) -> None:
    connection.end("it had no device, and others wait", logged=False)


def _reason(decision: Decision) -> str:
    """Why not; empty if it is allowed."""
    return "" if decision else Refusal(decision.reason or listening.NOT_ALLOWED, decision.rule)
