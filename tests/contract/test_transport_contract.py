"""What every `Transport` promises, whatever carries it."""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from tests.fakes import polled_transport
from tests.fakes.polled_transport import PolledTransport
from tests.fakes.tls_transport import tls_pair
from tests.fakes.veiled_transport import RECORD, VeiledTransport, forward
from tests.waiting import wait_until
from usbip_capture.net import transport as module
from usbip_capture.net.child import ChildTransport
from usbip_capture.net.transport import SocketTransport, Transport

TIMEOUT = 30.0
KINDS = ["tcp", "socketpair", "without the kernel's time-outs", "without scattering", "veiled", "veiled, forwarded"]
KINDS += ["tls", "tls, forwarded", "a program's"]
#: Forwards between its standard input and output and the port that it is given.
FORWARDS = """
import socket, sys, threading
def pump(receive, send, end):
    while data := receive(1 << 16):
        send(data)
    end()
near, far = socket.socket(fileno=0), socket.create_connection(("127.0.0.1", int(sys.argv[1])))
back = threading.Thread(target=pump, args=(far.recv, near.sendall, lambda: near.shutdown(socket.SHUT_WR)))
back.start()
pump(near.recv, far.sendall, lambda: far.shutdown(socket.SHUT_WR))
back.join()
"""
Pair = tuple[Transport, Transport]


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


def program_pair() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-S", "-c", FORWARDS, str(listener.getsockname()[1])]
        one = ChildTransport(command, "one", 0.0, lambda lines, status: f"it ended with {status}: {lines}")
        return one, SocketTransport(listener.accept()[0], "other")


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    kind = request.param
    if kind == "without the kernel's time-outs":
        monkeypatch.setattr(module, "_KERNEL_TIMEOUTS", False)
    if kind == "without scattering":
        monkeypatch.setattr(module, "_SCATTER", False)
    ends: Pair
    if "program" in kind:
        ends = program_pair()
        yield ends
        for end in ends:
            end.close()
        return
    one, other = tcp_pair() if "tcp" in kind or "tls" in kind else socket.socketpair()
    if "tls" in kind:
        ends = tls_pair(one, other, ("one", "other"))
    else:
        made: type[SocketTransport | VeiledTransport] = VeiledTransport if "veiled" in kind else SocketTransport
        ends = made(one, "one"), made(other, "other")
    if "forwarded" in kind:
        near, far = socket.socketpair()
        forward(ends[1], SocketTransport(near, "the relay"))
        ends = ends[0], SocketTransport(far, "other")
    yield ends
    for end in ends:
        end.close()


def receive(transport: Transport, size: int, timeout: float | None = TIMEOUT) -> bytes:
    """`size` bytes, fewer at the end of the stream."""
    data = bytearray(size)
    got = 0
    while got < size:
        taken = transport.receive_into(memoryview(data)[got:], timeout)
        if not taken:
            break
        got += taken
    return bytes(data[:got])


def numbered(size: int) -> bytes:
    return b"".join(i.to_bytes(4, "big") for i in range(size // 4))


def test_who_is_there(pair: Pair) -> None:
    assert [end.peer for end in pair] == ["one", "other"]


@pytest.mark.parametrize("timeout", [TIMEOUT, 0.03, None])
def test_bytes_arrive_in_order(pair: Pair, timeout: float | None) -> None:
    one, other = pair
    one.send([b"a"])
    assert receive(other, 1) == b"a"
    one.send([b"b", bytearray(b"c"), memoryview(b"d")])
    other.send([b"back"])
    if timeout == 0.03:
        wait_until("it has come", lambda: receives(other, b"bcd"))
    else:
        assert receive(other, 3, timeout) == b"bcd"
    assert receive(one, 4) == b"back"


def receives(transport: Transport, data: bytes) -> bool:
    try:
        assert transport.receive_into(memoryview(bytearray(1)), 0.03) == 1
    except TimeoutError:
        return False
    return receive(transport, len(data) - 1) == data[1:]


def test_both_ways_at_once_and_much_of_it(pair: Pair) -> None:
    """Each end has one thread that sends and one that receives."""
    data = numbered(4 << 20)
    parts = [data[:48], data[48:100_000], b"", memoryview(data)[100_000:]]
    got: dict[Transport, bytes] = {}
    threads = [threading.Thread(target=end.send, args=[parts]) for end in pair]
    threads += [threading.Thread(target=lambda end=end: got.update({end: receive(end, len(data))})) for end in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [got[end] == data for end in pair] == [True, True]


def test_what_came_is_there_although_nothing_else_comes(pair: Pair) -> None:
    """What a transport has taken from the system is not waited for."""
    one, other = pair
    one.send([numbered(1000)])
    for at in range(0, 1000, 10):
        assert receive(other, 10) == numbered(1000)[at : at + 10]
    with pytest.raises(TimeoutError):
        other.receive_into(memoryview(bytearray(10)), 0.05)


@pytest.mark.parametrize("timeout", [-1.0, 0.0, 0.01, 0.1])
def test_a_time_out_ends_waiting_only(pair: Pair, timeout: float) -> None:
    one, other = pair
    for words in (b"later", b"again"):
        for buffers in ([memoryview(bytearray(8))], [memoryview(bytearray(2)), memoryview(bytearray(8))]):
            with pytest.raises(TimeoutError):
                other.receive_scattered(buffers, timeout)
        one.send([words])
        assert receive(other, 5) == words


def test_scattered_bytes_are_in_order(pair: Pair) -> None:
    one, other = pair
    data = numbered(200_000)
    sends = threading.Thread(target=one.send, args=[[data]])
    sends.start()
    got = b""
    while len(got) < len(data):
        buffers = [memoryview(bytearray(48)), memoryview(bytearray(5000))]
        size = other.receive_scattered(buffers, TIMEOUT)
        assert size
        got += b"".join(buffers)[:size]
    assert got == data
    sends.join()


def test_half_a_close_is_seen_as_the_end(pair: Pair) -> None:
    one, other = pair
    one.send([b"the end"])
    one.end_sending()
    assert receive(other, 100) == b"the end"
    assert other.receive_into(memoryview(bytearray(1)), TIMEOUT) == 0
    other.send([b"I go on"])
    assert receive(one, 7) == b"I go on"


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("size", [400, 8000])
def test_half_a_close_loses_nothing_that_has_come(pair: Pair, size: int, quick: bool) -> None:
    """Not what the transport has taken from the system already, either."""
    one, other = pair
    data = numbered(8000)
    for at in range(0, len(data), size):
        one.send([data[at : at + size]])
    one.end_sending()
    got = receive(other, 10)
    other.end_sending()
    if quick:
        loop = other.nonblocking()
        poller = select.poll()
        poller.register(loop.fileno, select.POLLIN)
        while len(got) < len(data):
            assert loop.pending() or poller.poll(TIMEOUT * 1000)
            got += loop.receive(799)
    else:
        got += receive(other, len(data) - len(got))
    assert got == data
    other.shut_down()


@pytest.mark.parametrize("is_whole", [True, False])
def test_of_tls_the_end_that_has_come_is_seen_after_half_a_close(is_whole: bool) -> None:
    sock, theirs = socket.socketpair()
    one, other = tls_pair(sock, theirs)
    with closing(one), closing(other):
        one.send([b"1"])
        assert receive(other, 1) == b"1"
        for _ in range(3):
            one.send([numbered(100)])
        if is_whole:
            one.end_sending()
        else:
            sock.sendall(b"\x17\x03\x03\0\x20" + bytes(32))  # a record that cannot be decrypted
        assert receive(other, 100) == numbered(100)
        other.end_sending()
        loop = other.nonblocking()
        assert loop.receive(200) == 2 * numbered(100)
        assert loop.pending()
        if is_whole:
            assert loop.receive(10) == b""
            assert not loop.pending()
        else:
            with pytest.raises(ConnectionAbortedError):
                loop.receive(10)


def test_shutting_down_wakes_who_receives(pair: Pair) -> None:
    one, other = pair
    ended = threading.Event()

    def waits() -> None:
        with suppress(OSError):
            assert one.receive_into(memoryview(bytearray(1)), TIMEOUT) == 0
        ended.set()

    thread = threading.Thread(target=waits)
    thread.start()
    one.shut_down()
    one.shut_down()
    thread.join(TIMEOUT)
    assert ended.is_set()
    with pytest.raises(OSError):  # noqa: PT011  systems differ in which
        one.send([b"x"])
    with suppress(OSError):
        assert receive(other, 1) == b""


def test_shutting_down_wakes_who_sends(pair: Pair) -> None:
    one, _ = pair
    failed = threading.Event()

    def sends() -> None:
        try:
            one.send([bytes(64 << 20)])
        except OSError:
            failed.set()

    thread = threading.Thread(target=sends)
    thread.start()
    one.shut_down()
    thread.join(TIMEOUT)
    assert failed.is_set()


def test_sending_now_never_waits(pair: Pair) -> None:
    one, other = pair
    sent, data = 0, numbered(1 << 20)
    with suppress(BlockingIOError):
        while sent < 64 << 20:
            rest = data[sent % (1 << 20) :]
            size = one.send_now([rest[:48], rest[48:]])
            assert size
            sent += size
    assert 0 < sent < 64 << 20
    whole = data * (sent // (1 << 20) + 1)
    assert receive(other, sent) == whole[:sent]


def test_what_a_peer_takes_is_waited_for(pair: Pair) -> None:
    one, other = pair
    assert one.wait_to_send(10)
    part = bytes(100_000)
    while one.wait_to_send(0.1):  # what forwards may take something even then
        with suppress(BlockingIOError):
            one.send_now([part[:50], part[50:]], 0.001)
    with pytest.raises(TimeoutError):
        send_much(one, part)
    with suppress(TimeoutError):
        while not one.wait_to_send(0):
            assert other.receive(1 << 20, TIMEOUT)
    assert one.wait_to_send(TIMEOUT)


def send_much(one: Transport, part: bytes) -> None:
    for _ in range(1000):
        module.send_by(one, part, time.monotonic() + 0.05)


def test_an_answer_is_sent_by_its_deadline(pair: Pair) -> None:
    one, other = pair
    data = numbered(3 << 20)
    sending = threading.Thread(target=lambda: module.send_by(one, data, time.monotonic() + 60))
    sending.start()
    received = b""
    while len(received) < len(data):
        received += other.receive(1 << 20, 10)
    sending.join()
    assert received == data
    one.shut_down()
    assert other.receive(10, 10) == b""
    with pytest.raises(OSError):  # noqa: PT011  systems differ in which
        module.send_by(one, data, time.monotonic() + 60)


def test_after_a_grace_a_message_has_as_long_as_ever(pair: Pair) -> None:
    one, other = pair
    part = numbered(1 << 20)
    sent = one.send_now([part, part], 0.001)
    sending = threading.Thread(target=lambda: one.send([(part + part)[sent:], part]))
    sending.start()
    assert receive(other, 3 << 20) == part * 3
    sending.join()


def test_a_peer_that_takes_nothing_is_given_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = pair
    if isinstance(one, PolledTransport):
        monkeypatch.setattr(polled_transport, "SEND_TIMEOUT", 0.05)
    else:
        monkeypatch.setattr(module, "SEND_TIMEOUT", 0.05)
        carrier = getattr(one, "_inner", one)
        module.limit_sending(carrier._sender)  # type: ignore[union-attr]
    with pytest.raises(OSError):  # noqa: PT011  systems differ in which
        one.send([bytes(64 << 20)])


def test_without_waiting(pair: Pair) -> None:
    """What a loop over many connections sees: the descriptor, and what is pending, are all it needs."""
    one, other = pair
    quick = other.nonblocking()
    with pytest.raises(BlockingIOError):
        quick.receive(10)
    assert not quick.pending()
    data = numbered(3 * RECORD)
    sends = threading.Thread(target=one.send, args=[[data]])
    sends.start()
    got, asked = b"", 1000
    poller = select.poll()
    poller.register(quick.fileno, select.POLLIN)
    while len(got) < len(data):
        if not quick.pending():
            assert poller.poll(TIMEOUT * 1000)
        piece = quick.receive(asked)
        assert piece
        assert len(piece) == asked or not quick.pending()
        got += piece
    assert got == data
    sends.join()
    back = numbered(4000)
    while back:
        back = back[quick.send(back) :]
    assert receive(one, 4000) == numbered(4000)
    one.end_sending()
    assert poller.poll(TIMEOUT * 1000)
    assert quick.receive(10) == b""


def test_closing_again_changes_nothing(pair: Pair) -> None:
    for end in pair:
        end.reset_on_close()
        end.close()
        end.close()
        end.shut_down()


def tcp_transports(kind: str) -> Pair:
    """Of a kind that can be reset."""
    one, other = tcp_pair()
    if kind == "tls":
        return tls_pair(one, other)
    made = VeiledTransport if kind == "veiled" else SocketTransport
    return made(one, "a peer"), made(other, "a peer")


@pytest.mark.parametrize("kind", ["tcp", "veiled", "tls"])
@pytest.mark.parametrize("shut_down", [False, True], ids=["closed", "shut down before"])
def test_a_reset_is_no_end(kind: str, shut_down: bool) -> None:
    one, other = tcp_transports(kind)
    with closing(other):
        one.send([b"half"])
        assert receive(other, 4) == b"half"
        one.reset_on_close()
        if shut_down:
            one.shut_down()
            with pytest.raises(TimeoutError):  # it sees nothing of that
                other.receive(1, 0.05)
        one.close()
        with pytest.raises(ConnectionResetError):
            receive(other, 1)


@pytest.mark.parametrize("kind", ["tcp", "veiled", "tls"])
def test_shutting_down_what_is_to_be_reset_wakes_who_receives(kind: str) -> None:
    one, other = tcp_transports(kind)
    with closing(one), closing(other):
        ended = threading.Event()

        def waits() -> None:
            with suppress(ConnectionAbortedError):
                assert one.receive(1, TIMEOUT) == b""
            ended.set()

        thread = threading.Thread(target=waits)
        thread.start()
        one.reset_on_close()
        one.shut_down()
        thread.join(TIMEOUT)
        assert ended.is_set()


def test_what_could_not_be_sent_is_sent_again_with_more(pair: Pair) -> None:
    """One that encrypts has it in a record by then."""
    one, other = pair
    data, sent = numbered(1 << 20) * 64, 0
    with suppress(BlockingIOError):
        while True:
            sent += one.send_now([memoryview(data)[sent : sent + 5000]])
    taken: list[bytes] = []
    receiving = threading.Thread(target=lambda: taken.append(receive(other, sent + 9000)))
    receiving.start()
    one.send([memoryview(data)[sent : sent + 7000], memoryview(data)[sent + 7000 : sent + 9000]])
    receiving.join()
    assert taken == [data[: sent + 9000]]


def test_a_connection_that_tcp_gives_up_has_not_just_timed_out() -> None:
    class Silent:
        """As after TCP_USER_TIMEOUT."""

        family = socket.AF_INET

        def fileno(self) -> int:
            return -1

        def settimeout(self, _: object) -> None:
            pass

        def setsockopt(self, *_: object) -> None:
            raise OSError(errno.EINVAL, "gone")

        def recv_into(self, _: object) -> int:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    transport = SocketTransport(Silent(), "a peer")  # type: ignore[arg-type]
    with pytest.raises(ConnectionAbortedError, match=os.strerror(errno.ETIMEDOUT)):
        transport.receive_into(memoryview(bytearray(1)), None)


def test_a_program_at_the_other_end() -> None:
    """One end of a socketpair is a program's standard input and output, as ssh's would be."""
    ours, theirs = socket.socketpair()
    echo = "import sys, shutil; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
    fd = theirs.fileno()
    with subprocess.Popen([sys.executable, "-c", echo], stdin=fd, stdout=fd) as program:
        theirs.close()
        transport = SocketTransport(ours, "a program")
        assert transport.peer == "a program"
        transport.send([b"there ", b"and back"])
        transport.end_sending()
        assert receive(transport, 100) == b"there and back"
        transport.close()
        assert program.wait(TIMEOUT) == 0
