"""Waits for devices that send their log: TCP, UDP and TLS, one thread for all.

Ref: RFC 5425, RFC 5426, RFC 6587
"""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from usbip_capture.collector.connecting import DRAIN_TIME, GAP
from usbip_capture.collector.delivery import Delivery
from usbip_capture.collector.drops import Drops
from usbip_capture.collector.listen_addresses import TLS, UDP, ListenAddress
from usbip_capture.collector.sender import Sender, endpoint, flow_of
from usbip_capture.errors import CannotListen
from usbip_capture.net import listening
from usbip_capture.records import upper_pdu
from usbip_capture.syslog.framing import datagram_frames
from usbip_capture.system.forks import disown_in_children, set_event

log = logging.getLogger(__name__)

#: Connections at a time; a further one takes the place of the one that was silent longest.
MAX_CONNECTIONS = 200
#: Senders of datagrams that are distinguished.
_MAX_SENDERS = 1024
#: Connections that the system keeps until they are accepted: as many may come between two rounds.
_BACKLOG = 1024
#: Bytes of a connection that are taken at a time; GAP is the pause after a round of all of them.
_RECEIVE_SIZE = 64 << 10
#: Datagrams, and new connections, that are taken before others have their turn.
_DATAGRAMS, _ACCEPTS = 512, 32
_MAX_DATAGRAM = 65536
#: As it is called in sentences.
_WHAT = "the receiver of logs"
#: What the system may keep of datagrams that nobody has read yet.
_DATAGRAM_BUFFER = 4 << 20


class _Connection:
    """A stream; `handshake` is true until TLS is set up."""

    def __init__(self, sock: socket.socket, sender: Sender) -> None:
        self.sock = sock
        self.sender = sender
        self.handshake = isinstance(sock, ssl.SSLSocket)


class ListeningCollector:
    """Listens at `listen_addresses`, with `tls` for those of TLS; opened at once. `bound`: where that really is.

    policy: which senders are let in, all by default. Raises CannotListen if an address cannot be had.
    """

    def __init__(
        self,
        listen_addresses: list[ListenAddress],
        tls: ssl.SSLContext | None,
        delivery: Delivery,
        policy: listening.Policy | None = None,
    ) -> None:
        self._tls = tls
        self._admission = listening.Admission(policy)
        self._delivery = delivery
        self._counts = delivery.counts
        self._selector = selectors.DefaultSelector()
        self._stopping = threading.Event()
        self._connections: OrderedDict[socket.socket, _Connection] = OrderedDict()
        self._datagram_senders: OrderedDict[tuple[str, int], Sender] = OrderedDict()
        self._reported: set[str] = set()
        self._wake, wake_up = socket.socketpair()
        self._listeners = [wake_up]
        self._selector.register(wake_up, selectors.EVENT_READ, lambda: None)
        self.bound: list[ListenAddress] = []
        try:
            for where in listen_addresses:
                self._open(where)
        except CannotListen:
            self._close()
            raise
        self._thread = threading.Thread(target=self._run, name="usbip-log", daemon=True)
        disown_in_children(self)

    def forked(self) -> None:
        """In a child process, which collects nothing: its parent's ports are free when its parent closes them."""
        self._stopping = set_event()
        for sock in (*self._connections, *self._listeners, self._wake):
            sock.close()
        self._connections.clear()
        self._selector.close()

    def start(self) -> None:
        """Begin to take what comes."""
        self._thread.start()

    def stop(self) -> None:
        """Close everything; what came before is delivered when this returns."""
        if self._stopping.is_set():
            return
        self._wake.send(b"\0")  # before its thread may end, and close it
        self._stopping.set()
        if not self._thread.is_alive():
            self._close()
        elif self._thread is not threading.current_thread():
            self._thread.join()

    def _open(self, where: ListenAddress) -> None:
        sock = _listen(where)
        sock.setblocking(False)
        self._listeners.append(sock)
        self.bound.append(ListenAddress(where.transport, where.address, sock.getsockname()[1]))
        secure = where.transport == TLS
        drops = Drops(sock)

        def datagrams() -> None:
            self._datagrams(sock)
            if count := drops.new():
                self._delivery.lost(count)

        def accept() -> None:
            self._accept(sock, secure)

        self._selector.register(sock, selectors.EVENT_READ, datagrams if where.transport == UDP else accept)

    # -- the thread

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                for key, _ in self._selector.select():
                    self._act(key.data)
                self._stopping.wait(GAP)
            self._drain()
        finally:
            self._close()

    def _drain(self) -> None:
        """Take what has arrived already."""
        self._selector.unregister(self._listeners[0])  # it has done its work, and stays readable
        until = time.monotonic() + DRAIN_TIME
        while (ready := self._selector.select(0)) and time.monotonic() < until:
            for key, _ in ready:
                self._act(key.data)

    def _act(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:  # one sender's message must not end the log of all others
            self._counts.own_faults += 1
            if self._counts.own_faults == 1:
                log.exception("internal error: a message of a log was lost; further ones are only counted")

    def _close(self) -> None:
        for connection in list(self._connections.values()):
            self._drop(connection)
        for sock in (*self._listeners, self._wake):
            sock.close()
        self._selector.close()

    def _accept(self, listener: socket.socket, secure: bool) -> None:
        for _ in range(_ACCEPTS):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._admission.failed(error)  # too many open files
                self._stopping.wait(listening.PAUSE)
                return
            if not self._admitted(sock, address):
                sock.close()
                continue
            self._counts.connections += 1
            while len(self._connections) >= MAX_CONNECTIONS:
                self._counts.crowded_out += 1
                self._report(f"more than {MAX_CONNECTIONS} senders of logs: those that were silent longest are cut off")
                self._drop(next(iter(self._connections.values())))
            self._take(sock, secure)

    def _admitted(self, sock: socket.socket, address: object) -> bool:
        try:
            return self._admission.admits(listening.Peer.of(sock, address))
        except OSError:  # gone again
            return False

    def _take(self, sock: socket.socket, secure: bool) -> None:
        try:
            sock.setblocking(False)
            if secure and self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            connection = _Connection(sock, Sender(flow_of(sock)))
        except OSError:  # gone again
            sock.close()
            return
        self._admission.succeeded()
        self._connections[sock] = connection
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(connection))

    def _read(self, connection: _Connection) -> None:
        sock = connection.sock
        if sock not in self._connections:  # crowded out in this very round
            return
        self._connections.move_to_end(sock)
        try:
            if connection.handshake and isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
                connection.handshake = False
            data = sock.recv(_RECEIVE_SIZE)
            while isinstance(sock, ssl.SSLSocket) and sock.pending():
                data += sock.recv(_RECEIVE_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except ssl.SSLWantWriteError:
            # Our handshake data always fits the send buffer: a peer that lets it fill does not read it.
            data = b""
        except OSError as error:
            if connection.handshake:
                self._counts.failed_handshakes += 1
                self._report(f"{connection.sender.source} did not get through the TLS handshake: {error}")
            data = b""
        if data:
            sender = connection.sender
            self._delivery.deliver(sender, sender.received(data, time.time_ns()))
        else:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        del self._connections[connection.sock]
        self._selector.unregister(connection.sock)
        connection.sock.close()
        sender = connection.sender
        self._delivery.deliver(sender, sender.ended(time.time_ns()))
        self._counts.add(sender.framer)

    def _datagrams(self, sock: socket.socket) -> None:
        for _ in range(_DATAGRAMS):
            try:
                data, address = sock.recvfrom(_MAX_DATAGRAM)
            except OSError:  # none is left, or Windows reports one of ours that did not arrive
                return
            sender = self._sender(sock, endpoint(address))
            if sender is None:
                continue
            self._delivery.deliver(sender, sender.parse(datagram_frames(data), time.time_ns()))

    def _sender(self, sock: socket.socket, source: tuple[str, int]) -> Sender | None:
        """Who sends datagrams from there; None if it is not let in."""
        sender = self._datagram_senders.get(source)
        if sender is None:
            if not self._admission.admits(listening.Peer(*source)):
                return None
            flow = upper_pdu.Flow(*source, *endpoint(sock.getsockname()), upper_pdu.UDP)
            sender = self._datagram_senders[source] = Sender(flow)
            if len(self._datagram_senders) > _MAX_SENDERS:
                self._datagram_senders.popitem(last=False)
        return sender

    def _report(self, sentence: str) -> None:
        """Warn, of each kind of trouble only once: what follows is counted."""
        kind = sentence.rpartition(":")[2]
        if kind not in self._reported and len(self._reported) < 20:
            self._reported.add(kind)
            log.warning("%s", sentence)


def _listen(where: ListenAddress) -> socket.socket:
    """A socket at this address. Raises CannotListen."""
    address, port, transport = where.address, where.port, where.transport
    if transport != UDP:
        return listening.listen(address, port, _WHAT, _BACKLOG, transport=transport, dual_stack=True)
    try:
        return _bind(where)
    except OSError as error:
        raise listening.cannot_listen(_WHAT, transport, address, port, error) from error


def _bind(where: ListenAddress) -> socket.socket:
    """For datagrams. Raises OSError."""
    everywhere = not where.address and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if everywhere or ":" in where.address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if everywhere:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _DATAGRAM_BUFFER)
        sock.bind((where.address, where.port))
    except OSError:
        sock.close()
        raise
    return sock
