"""Handshakes that are cut, that never end, or that are something else: they end in time, and others go on."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from tests.fakes.tls_served import HOST, TlsServed
from tests.waiting import wait_until
from usbip_capture.access.limits import Limits
from usbip_capture.demo.device import BUSID
from usbip_capture.devices.devlist import list_devices
from usbip_capture.devices.remote import import_device
from usbip_capture.errors import ServerUnreachable, UsbipError
from usbip_capture.net.connecting import connect
from usbip_capture.net.transport import SocketTransport, Transport
from usbip_capture.server import events
from usbip_capture.tls import client
from usbip_capture.tls.certificates import CLIENT, SERVER, own_identity
from usbip_capture.tls.client import connect_tls
from usbip_capture.tls.server import ServerContext
from usbip_capture.tls.transport import TlsTransport
from usbip_capture.usb.urb import Buffer

TIMEOUT = 20.0


@pytest.fixture
def served() -> Iterator[TlsServed]:
    with closing(TlsServed()) as made:
        made.trust()
        yield made


def lists(served: TlsServed) -> bool:
    return [info.busid for info in list_devices(connect_tls(HOST, served.port, TIMEOUT), TIMEOUT)] == [BUSID]


# -- cut at each byte


class InMemory(Transport):
    """What leads to a peer in memory, which shakes hands and sends an answer: so many bytes come of it, then the end.

    received: bytes that have come.
    """

    peer = "a peer"

    def __init__(self, context: ssl.SSLContext, left: int, *, server_side: bool) -> None:
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._peer = context.wrap_bio(self._coming, self._going, server_side)
        self._left = left
        self.received = 0
        self._shake()

    def _shake(self) -> None:
        with suppress(ssl.SSLWantReadError):
            self._peer.do_handshake()
            self._peer.write(ANSWER)

    def send(self, parts: list[Buffer]) -> None:
        self._coming.write(b"".join(parts))
        self._shake()

    def receive_into(self, buffer: memoryview, timeout: float | None) -> int:
        data = self._going.read(min(len(buffer), 100, self._left)) if self._left else b""
        self._left -= len(data)
        self.received += len(data)
        buffer[: len(data)] = data
        return len(data)

    def send_now(self, parts: list[Buffer], grace: float = 0.0) -> int:
        raise AssertionError

    wait_to_send = nonblocking = end_sending = shut_down = reset_on_close = close = send_now  # type: ignore[assignment]


ANSWER = b"an answer"


@pytest.mark.parametrize("kind", ["of a server", "of a client"])
def test_a_handshake_that_is_cut_at_each_byte(kind: str) -> None:
    """And what follows: no byte of a record that is cut is taken for true."""
    of_server = ServerContext(own_identity(SERVER))
    of_server.set_paired({"ann": own_identity(CLIENT).certificate})
    of_client = client.client_context(paired=True)
    ended, shaken, data = 0, 0, b""
    for left in range(5000):
        theirs = of_server._known.context if kind == "of a server" else of_client
        inner = InMemory(theirs, left, server_side=kind == "of a server")
        try:
            if kind == "of a server":
                transport = TlsTransport(inner, of_client)
                transport.handshake(TIMEOUT)
            else:
                transport = of_server.accept(inner, TIMEOUT).transport
            shaken += 1
            while len(data) < len(ANSWER):
                data += transport.receive(100, TIMEOUT)
        except ConnectionAbortedError as error:
            reason = error.strerror
        else:
            break
        assert reason == "it ended without a word"
        assert not data
        ended += 1
    assert data == ANSWER
    assert ended > 1000
    assert shaken > len(ANSWER)


class Cut(SocketTransport):
    """Sends so many bytes, and ends then, or resets. sent: bytes that were to be sent."""

    def __init__(self, sock: socket.socket, left: int, *, resets: bool = False) -> None:
        super().__init__(sock, "cut")
        self._left = left
        self._resets_then = resets
        self.sent = 0

    def send(self, parts: list[Buffer]) -> None:
        data = b"".join(parts)
        self.sent += len(data)
        if self._left:
            super().send([data[: self._left]])
        self._left -= len(data)
        if self._left < 0:
            if self._resets_then:
                self.reset_on_close()
            else:
                self.end_sending()
            raise ConnectionAbortedError("cut here")


@pytest.mark.parametrize("resets", [False, True], ids=["ended", "reset"])
def test_a_server_whose_clients_break_off(served: TlsServed, resets: bool) -> None:
    served.context.set_paired({"ann": own_identity(CLIENT).certificate})
    context = client.client_context(paired=True)
    whole = left = 0
    while left <= whole:
        inner = Cut(connect(HOST, served.port, TIMEOUT), left, resets=resets)
        with closing(inner), suppress(OSError):
            TlsTransport(inner, context).handshake(TIMEOUT)
        whole = max(whole, inner.sent)
        left += min(23, max(whole - left, 1))
    assert whole > 1000  # both flights
    assert lists(served)
    wait_until("all are ended", lambda: not served.server.clients)


def test_a_server_whose_stream_is_cut_after_the_handshake(served: TlsServed) -> None:
    """Whoever ends TCP has not ended TLS: half an answer is not taken for a whole one."""
    transport = connect_tls(HOST, served.port, TIMEOUT)
    assert isinstance(transport, TlsTransport)
    with closing(transport):
        transport._inner.shut_down()
        with pytest.raises(ConnectionError):  # a reset, if the server was as quick
            transport.receive(1, TIMEOUT)


# -- that never end


def test_clients_that_never_finish_keep_nobody_out_and_are_ended(served: TlsServed) -> None:
    served.server.limits = Limits(request_timeout=3.0)
    hello = first_flight()
    idle = [connect(HOST, served.port, TIMEOUT) for _ in range(30)]
    for number, sock in enumerate(idle):
        sock.sendall(hello[: len(hello) * number // 30])
    assert lists(served)
    with closing(import_device(connect_tls(HOST, served.port, TIMEOUT), BUSID, TIMEOUT)):
        for sock in idle:  # the server has ended it
            sock.settimeout(TIMEOUT)
            with suppress(ConnectionResetError):
                while sock.recv(1 << 16):
                    pass
            sock.close()
        assert len(served.server.clients) == 1
    refused = served.await_event(lambda event: event.kind == events.REFUSED)
    assert refused.text == "no handshake in time"


def first_flight() -> bytes:
    going = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        client.client_context().wrap_bio(ssl.MemoryBIO(), going).do_handshake()
    return going.read()


def trickle(sock: socket.socket, ending: threading.Event) -> None:
    """A record that goes on and on, byte by byte."""
    with suppress(OSError):
        sock.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")
        while not ending.wait(0.01):
            sock.sendall(b"\0")


def test_a_client_that_sends_byte_by_byte_has_no_longer(served: TlsServed) -> None:
    """The deadline is of the handshake, not of a part of it."""
    served.server.limits = Limits(request_timeout=0.5)
    ending = threading.Event()
    with closing(connect(HOST, served.port, TIMEOUT)) as sock:
        sending = threading.Thread(target=trickle, args=[sock, ending])
        sending.start()
        refused = served.await_event(lambda event: event.kind == events.REFUSED)
        ending.set()
        sending.join()
    assert refused.text  # not in time, or not a handshake
    assert lists(served)


@pytest.mark.parametrize("trickles", [False, True])
def test_a_server_that_never_finishes_is_given_up(trickles: bool) -> None:
    ending = threading.Event()
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        sockets: list[socket.socket] = []

        def accept() -> None:
            sockets.append(listener.accept()[0])
            if trickles:
                trickle(sockets[0], ending)

        accepting = threading.Thread(target=accept)
        accepting.start()
        with pytest.raises(ServerUnreachable, match=r"does not answer within 0\.5 s: is that the port of a server's"):
            connect_tls(HOST, port, 0.5)
        ending.set()
        accepting.join()
        sockets[0].close()


# -- something else


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: pi\r\n\r\n", "it speaks HTTP and not TLS"),
        (bytes.fromhex("0111 8005 0000 0000"), "it does not speak TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "it does not speak TLS"),
    ],
    ids=["HTTP", "USB/IP", "ssh"],
)
def test_who_speaks_something_else_is_refused(
    served: TlsServed, caplog: pytest.LogCaptureFixture, sent: bytes, reason: str
) -> None:
    caplog.set_level(logging.INFO)
    with closing(connect(HOST, served.port, TIMEOUT)) as sock:
        sock.settimeout(TIMEOUT)
        sock.sendall(sent)
        with suppress(ConnectionResetError):
            while sock.recv(100):
                pass
    refused = served.await_event(lambda event: event.kind == events.REFUSED)
    assert refused.text == reason
    assert lists(served)


def test_our_client_of_plain_usbip_sees_the_end_of_the_connection(served: TlsServed) -> None:
    with pytest.raises(UsbipError):
        list_devices(SocketTransport(connect(HOST, served.port, TIMEOUT), "the server"), TIMEOUT)


def test_a_closing_server_waits_for_no_handshake(served: TlsServed) -> None:
    with closing(connect(HOST, served.port, TIMEOUT)) as sock:
        wait_until("it is accepted", lambda: served.server.clients)
        served.close()
        sock.settimeout(TIMEOUT)
        assert sock.recv(1) == b""


def test_the_context_of_a_connection_that_is_refused_stays_usable() -> None:
    context = ServerContext(own_identity(SERVER))
    for _ in range(2):
        one, other = socket.socketpair()
        one.close()
        with closing(SocketTransport(other, "nobody")) as transport, pytest.raises(OSError, match="without a word"):
            context.accept(transport, TIMEOUT)
