"""`server` and what carries its clients: a reply goes out whole, or the connection is reset within a bound."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

import pytest

from tests.fakes.cutting_transport import CuttingTransport
from tests.fakes.scripted_server import read_exactly
from tests.fakes.served import CARRIERS, DEVID, REQ_IMPORT, Client, HeldDevice, Served, submit
from tests.fakes.veiled_transport import VeiledTransport
from tests.waiting import wait_until
from usbip_capture.access.limits import Limits
from usbip_capture.demo import device as demo
from usbip_capture.errors import UsbipError
from usbip_capture.net.listening import Peer
from usbip_capture.net.transport import Transport
from usbip_capture.server import Access, Decision, replies
from usbip_capture.usb.urb import IsoPacket
from usbip_capture.wire import structs

REQ_DEVLIST = structs.OP_COMMON.pack(0x111, structs.OP_REQ_DEVLIST, 0)
GET_DESCRIPTOR = bytes.fromhex("8006000100001200")
PACKETS = [IsoPacket(0, 32, 32), IsoPacket(32, 32, 32)]
#: By TCP, which can be reset.
BY_TCP = ["socket", "veiled", "tls"]


class Cut:
    """A server whose client gets no more than the bytes that the test lets through."""

    def __init__(self, carrier: str) -> None:
        self.served = Served(carrier=carrier, wrap=self._wrap)
        self.transports: list[CuttingTransport] = []

    def _wrap(self, transport: Transport) -> Transport:
        self.transports.append(CuttingTransport(transport))
        return self.transports[-1]


def ask_control(sock: Client, device: HeldDevice) -> None:
    sock.sendall(structs.CMD_SUBMIT.pack(1, 2, DEVID, 1, 0, 0, 18, 0, 0, 0, GET_DESCRIPTOR))


def ask_bulk(sock: Client, device: HeldDevice) -> None:
    sock.sendall(submit(2, 64))
    device.wait_for(1)
    device.complete(0, bytes(range(64)))


def ask_isochronous(sock: Client, device: HeldDevice) -> None:
    packets = structs.pack_iso([IsoPacket(p.offset, p.length) for p in PACKETS])
    sock.sendall(structs.CMD_SUBMIT.pack(1, 2, DEVID, 1, demo.ISO_IN & 15, 0, 64, 0, 2, 1, bytes(8)) + packets)
    device.wait_for(1)
    device.complete(0, bytes(range(64)), PACKETS)


ASKED = {"control": (ask_control, 48 + 18), "bulk": (ask_bulk, 48 + 64), "isochronous": (ask_isochronous, 48 + 64 + 32)}


def is_reset(sock: Client) -> bool:
    """Whether the connection is broken, and has not ended; after what had come before."""
    sock.settimeout(20)
    try:
        while sock.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return False


def cut_at(count: int, carrier: str, ask: Callable[[Client, HeldDevice], None]) -> bool:
    """Stop the server when `count` bytes of a reply have left; whether its client sees that it is broken."""
    cut = Cut(carrier)
    with contextlib.closing(cut.served.server), cut.served.imported() as (sock, device):
        cut.transports[0].arm(count)
        ask(sock, device)
        got = read_exactly(sock, count)
        assert cut.transports[0].cut.wait(20)
        cut.served.server.close()
        assert len(got) == count
        return is_reset(sock)


@pytest.mark.parametrize("kind", ASKED)
def test_stopped_at_each_byte_of_a_reply(kind: str) -> None:
    ask, length = ASKED[kind]
    assert [count for count in range(length) if not cut_at(count, "socket", ask)] == []


@pytest.mark.parametrize("carrier", BY_TCP)
@pytest.mark.parametrize("kind", ASKED)
def test_stopped_in_a_reply_whatever_carries_it(kind: str, carrier: str) -> None:
    ask, length = ASKED[kind]
    assert [count for count in (0, 47, 48, length - 1) if not cut_at(count, carrier, ask)] == []


@pytest.mark.parametrize("carrier", [*CARRIERS, "socket"])
@pytest.mark.parametrize("kind", ASKED)
def test_stopped_after_a_whole_reply(kind: str, carrier: str) -> None:
    """Which is an end, not a reset."""
    ask, length = ASKED[kind]
    served = Served(carrier=carrier)
    with served.imported() as (sock, device):
        ask(sock, device)
        assert len(read_exactly(sock, length)) == length
        served.server.close()
        assert sock.recv(1) == b""


@pytest.mark.parametrize("carrier", BY_TCP)
def test_a_reset_does_not_wait_for_the_device(carrier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may take long to be closed; meanwhile half a reply would keep the client waiting."""
    cut = Cut(carrier)
    closing, goes_on = threading.Event(), threading.Event()
    with contextlib.closing(cut.served.server), cut.served.imported() as (sock, device):
        close = device.close

        def close_slowly() -> None:
            closing.set()
            assert goes_on.wait(60)
            close()

        monkeypatch.setattr(device, "close", close_slowly)
        cut.transports[0].arm(50)
        ask_bulk(sock, device)
        assert len(read_exactly(sock, 50)) == 50
        assert cut.transports[0].cut.wait(20)
        assert cut.served.server.disconnect("1-1")
        assert closing.wait(20)
        assert is_reset(sock)
        assert device.alive
        goes_on.set()
    assert not device.alive


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has other options")
@pytest.mark.parametrize("handed_over", [False, True])
def test_connections_notice_that_their_client_has_vanished(handed_over: bool) -> None:
    """With the times by which half a minute is kept: what becomes of them is in test_vanished_client.py."""
    served = Served()
    with contextlib.ExitStack() as stack:
        stack.callback(served.server.close)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = listener.getsockname() if handed_over else served.address
        stack.enter_context(socket.create_connection(address, 20))
        if handed_over:
            served.server.serve_socket(listener.accept()[0])
        (accepted,) = wait_until("it is served", lambda: list(served.server._connections))
        sock = accepted._transport._sock  # type: ignore[attr-defined]
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT", "TCP_NODELAY")
        values = [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]
        assert values == [10, 5, 3, 25_000, 1]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def stopped(served: Served, device: HeldDevice) -> None:
    served.server.close()


def disconnected(served: Served, device: HeldDevice) -> None:
    assert served.server.disconnect("1-1")


def removed(served: Served, device: HeldDevice) -> None:
    served.server.remove("1-1")


def unplugged(served: Served, device: HeldDevice) -> None:
    device.lost("unplugged")


def given_up(served: Served, device: HeldDevice) -> None:
    """By its own time-out."""


@pytest.mark.parametrize("end", [stopped, disconnected, removed, unplugged, given_up])
@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_client_that_reads_nothing_until_it_is_ended_is_reset(
    carrier: str, end: Callable[[Served, HeldDevice], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No transport of the tests: what the system does not take is cut."""
    monkeypatch.setattr(replies, "SEND_TIMEOUT", 0.3 if end is given_up else 30.0)
    served = Served(carrier=carrier)
    with contextlib.closing(served.server), served.imported(buffer=4096) as (sock, device):
        for number in range(10):
            sock.sendall(submit(2 + number, 4 << 20))
        device.wait_for(10)
        for number in range(10):
            device.complete(number, bytes(4 << 20))
        end(served, device)
        wait_until("it is ended", lambda: not any(client.busid for client in served.server.clients))
        assert not device.alive
        assert is_reset(sock)


@pytest.mark.parametrize("carrier", BY_TCP)
def test_a_list_that_is_not_taken_in_time_is_broken_off(carrier: str) -> None:
    cut = Cut(carrier)
    cut.served.server.limits = Limits(request_timeout=0.3)
    with contextlib.closing(cut.served.server), cut.served.connected() as sock:
        cut.transports[0].arm(100)
        sock.sendall(REQ_DEVLIST)
        assert len(read_exactly(sock, 100)) == 100
        assert is_reset(sock)
        wait_until("it is ended", lambda: not cut.served.server.clients)


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_request_that_drips_in_is_given_up(carrier: str) -> None:
    served = Served(carrier=carrier)
    served.server.limits = Limits(request_timeout=0.2)
    ended = threading.Event()
    with contextlib.closing(served.server), served.connected() as sock:

        def drip() -> None:
            with contextlib.suppress(OSError):
                for byte in REQ_IMPORT:
                    sock.sendall(bytes([byte]))
                    if ended.wait(0.1):
                        return

        dripping = threading.Thread(target=drip)
        dripping.start()
        with contextlib.suppress(OSError):  # what comes when it is closed has it reset
            assert sock.recv(1) == b""
        ended.set()
        dripping.join()
        assert not served.devices


@pytest.mark.parametrize("carrier", BY_TCP)
def test_a_client_that_goes_on_sending_does_not_hold_up_the_end(carrier: str) -> None:
    cut = Cut(carrier)
    with contextlib.closing(cut.served.server), cut.served.imported() as (sock, device):
        cut.transports[0].arm(10)
        ask_bulk(sock, device)
        assert cut.transports[0].cut.wait(20)
        ended = threading.Event()

        def flood() -> None:
            with contextlib.suppress(OSError):
                for number in range(3, 1 << 20):
                    sock.sendall(submit(number, 8))
                    if ended.is_set():
                        return

        flooding = threading.Thread(target=flood)
        flooding.start()
        device.wait_for(20)
        cut.served.server.close()
        ended.set()
        flooding.join()
        assert not device.alive


@pytest.mark.parametrize("version", [0x0100, 0x0111])
@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_client_of_either_version(carrier: str, version: int) -> None:
    """Each is answered with its own; our client's is 1.1.1 and stays so."""
    served = Served(carrier=carrier)
    answers = (
        (REQ_DEVLIST, structs.OP_REP_DEVLIST, 12 + 312 + 4 * len(demo.INFO.interfaces)),
        (REQ_IMPORT, structs.OP_REP_IMPORT, 320),
    )
    with contextlib.closing(served.server):
        for request, code, size in answers:
            with served.connected() as sock:
                sock.sendall(version.to_bytes(2, "big") + request[2:])
                assert structs.OP_COMMON.unpack_from(read_exactly(sock, size)) == (version, code, 0)
    assert structs.VERSION == 0x0111


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_seqnum_that_is_pending_already_ends_the_session(carrier: str, caplog: pytest.LogCaptureFixture) -> None:
    served = Served(carrier=carrier)
    with contextlib.closing(served.server), served.imported() as (sock, device):
        sock.sendall(submit(7, 8) + submit(7, 8))
        wait_until("it is ended", lambda: not any(client.busid for client in served.server.clients))
        assert not device.alive
        assert len(device.held) <= 1
        assert any("request 7 is pending already" in text for text in caplog.messages)
    assert served.devices


def transport_pair() -> tuple[socket.socket, VeiledTransport]:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    return ours, VeiledTransport(theirs, "a tunnel")


class Nobody(Access):
    def may_connect(self, peer: Peer) -> Decision:
        assert peer == Peer()
        return Decision(allowed=False, reason="nobody comes by that way")


def test_a_transport_that_is_not_let_in_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    served = Served(Nobody())
    ours, transport = transport_pair()
    with contextlib.closing(served.server), ours:
        served.server.serve_transport(transport)
        assert ours.recv(1) == b""
    assert "client of this machine is refused: nobody comes by that way" in caplog.messages


def test_no_thread_for_a_transport_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served()
    ours, transport = transport_pair()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with contextlib.closing(served.server), ours:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(UsbipError, match="no connection can be served"):
                served.server.serve_transport(transport)
        assert ours.recv(1) == b""


def test_a_transport_that_comes_while_it_is_closed_is_closed() -> None:
    served = Served()
    served.server.close()
    ours, transport = transport_pair()
    with ours:
        served.server.serve_transport(transport)
        assert ours.recv(1) == b""
