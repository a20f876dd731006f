"""`net.listening` with real sockets: who is let in, who is refused and why, what each failure is called."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from usbip_capture.access.limits import TOO_MANY
from usbip_capture.errors import CannotListen, CaptureError, UsbipError
from usbip_capture.net import listening
from usbip_capture.net.listening import NOT_ALLOWED, Acceptor, Admission, Peer, listen, receive_by


class Door:
    """An acceptor on a port of its own; keeps who came in."""

    def __init__(self, admission: Admission) -> None:
        self.peers: list[Peer] = []
        self.inside: list[socket.socket] = []
        listener = listen("127.0.0.1", 0)
        self.address = listener.getsockname()
        self._came = threading.Semaphore(0)
        self.acceptor = Acceptor(listener, self._serve, "test-door", admission)

    def _serve(self, sock: socket.socket, peer: Peer) -> None:
        self.peers.append(peer)
        self.inside.append(sock)
        sock.sendall(b"welcome")

    def close(self) -> None:
        self.acceptor.close()
        for sock in self.inside:
            sock.close()


@contextlib.contextmanager
def door(admission: Admission) -> Iterator[Door]:
    opened = Door(admission)
    try:
        yield opened
    finally:
        opened.close()


def heard(address: tuple[str, int], keep: contextlib.ExitStack | None = None) -> bytes:
    """What a client that connects there gets first; empty if it is refused."""
    with contextlib.ExitStack() as stack:
        sock = (keep or stack).enter_context(socket.create_connection(address, 20))
        try:
            return sock.recv(7, socket.MSG_WAITALL)
        except ConnectionResetError:
            return b""


def test_the_peer_is_handed_to_whoever_serves() -> None:
    with door(Admission()) as opened, socket.create_connection(opened.address, 20) as client:
        assert client.recv(7) == b"welcome"
        assert opened.peers == [Peer("127.0.0.1", client.getsockname()[1], "127.0.0.1")]


def test_a_policy_decides_by_the_peer_and_refusals_are_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[Peer] = []

    def nobody_twice(peer: Peer) -> str | None:
        asked.append(peer)
        return "once is enough" if len(asked) > 1 else None

    admission = Admission(nobody_twice)
    with door(admission) as opened:
        assert heard(opened.address) == b"welcome"
        assert heard(opened.address) == heard(opened.address) == b""
    assert admission.refused == {"once is enough": 2}
    assert f"client {asked[1]} is refused: once is enough" in caplog.messages


def test_a_stranger_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    admission = Admission(lambda peer: NOT_ALLOWED)
    for number in range(2000):
        admission.admits(Peer("192.0.2.1", number))
    assert admission.refused[NOT_ALLOWED] == 2000
    assert caplog.messages == ["client 192.0.2.1:0 is refused: it is not allowed here"]
    for number in range(2000):
        admission.admits(Peer(f"198.51.100.{number}", 5))
    assert len(admission._logged) <= 256


def test_a_policy_that_raises_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    def broken(peer: Peer) -> str:
        raise ZeroDivisionError

    admission = Admission(broken)
    with door(admission) as opened:
        assert heard(opened.address) == b""
        assert opened.acceptor.alive
    assert admission.refused == {NOT_ALLOWED: 1}
    assert any(record.levelno == logging.ERROR for record in caplog.records)


def test_a_limit_of_clients() -> None:
    admission = Admission(full=lambda: len(opened.inside) >= 2)
    with door(admission) as opened, contextlib.ExitStack() as kept:
        assert [heard(opened.address, kept) for _ in range(4)] == [b"welcome", b"welcome", b"", b""]
    assert admission.refused == {TOO_MANY: 2}


def test_a_limit_for_each_address_is_a_policy() -> None:
    def two_each(peer: Peer) -> str:
        return TOO_MANY if sum(inside.host == peer.host for inside in opened.peers) >= 2 else ""

    with door(Admission(two_each)) as opened, contextlib.ExitStack() as kept:
        assert [heard(opened.address, kept) for _ in range(3)] == [b"welcome", b"welcome", b""]


def test_a_failure_that_lasts_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    admission = Admission()
    for _ in range(5):
        admission.failed(OSError(errno.EMFILE, "Too many open files"))
    assert caplog.messages == ["no client can be accepted: Too many open files"]
    admission.succeeded()
    admission.failed(RuntimeError("can't start new thread"))
    assert caplog.messages[1:] == ["no client can be accepted: can't start new thread"]


def test_that_nobody_can_connect_is_an_error_of_its_own() -> None:
    assert issubclass(CannotListen, UsbipError)
    assert not issubclass(CannotListen, CaptureError)
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"^cannot listen on 127\.0\.0\.1 port {port}: the port is in use"):
            listen("127.0.0.1", port)
        with pytest.raises(CannotListen, match=rf"^the relay cannot listen on tcp 127\.0\.0\.1 port {port}: the port"):
            listen("127.0.0.1", port, "the relay", transport="tcp")


@pytest.mark.parametrize(
    ("address", "reason"),
    [("192.0.2.1", "this machine has no such address"), ("no-such-name.invalid", "the address is not known")],
)
def test_each_reason_has_the_same_words_everywhere(address: str, reason: str) -> None:
    with pytest.raises(CannotListen, match=reason):
        listen(address, 0)


def test_everywhere_is_both_families() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this system has no sockets of both families")
    with listen("", 0, dual_stack=True) as listener:
        assert listener.family == socket.AF_INET6
        with socket.create_connection(("127.0.0.1", listener.getsockname()[1]), 20) as client:
            sock, address = listener.accept()
            with sock:
                assert Peer.of(sock, address) == Peer("127.0.0.1", client.getsockname()[1], "127.0.0.1")


def test_peers_that_have_no_address_are_of_this_machine() -> None:
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        pytest.skip("this system has no Unix sockets")
    ours, theirs = socket.socketpair(family)
    with ours, theirs:
        assert Peer.of(ours) == Peer()
        assert str(Peer.of(ours)) == "of this machine"


def test_a_request_has_one_deadline_whatever_comes_meanwhile() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"ab")
        assert receive_by(ours, time.monotonic() + 20, 1) == b"a"
        with pytest.raises(TimeoutError):  # although there is something
            receive_by(ours, time.monotonic() - 1, 1)
        with pytest.raises(TimeoutError):
            receive_by(theirs, time.monotonic() + 0.01, 1)


def test_the_pause_after_a_failure_ends_when_the_acceptor_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "PAUSE", 600.0)
    failed = threading.Event()

    def serve(sock: socket.socket, peer: Peer) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    listener = listen("127.0.0.1", 0)
    address = listener.getsockname()
    acceptor = Acceptor(listener, serve, "test-door", make_room=failed.set)
    with socket.create_connection(address, 20):
        assert failed.wait(20)
        acceptor.close()
    assert not acceptor.alive
