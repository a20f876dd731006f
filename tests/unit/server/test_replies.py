"""`server.replies` on a transport that encrypts: what it could not send it has in a record, which goes first."""

from __future__ import annotations

import socket
import threading
from contextlib import closing

import pytest

from tests.fakes.scripted_server import read_exactly
from usbip_capture.net.transport import SocketTransport
from usbip_capture.server.replies import Replies
from usbip_capture.usb.urb import Buffer

RECORD = 16 << 10


class Encrypting(SocketTransport):
    """Refuses to send each time when it is asked anew; what it is asked next has to be as long, as OpenSSL wants it."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, "a peer")
        self.held = 0

    def send_now(self, parts: list[Buffer], grace: float = 0.0) -> int:
        record = b"".join(parts)[:RECORD]
        if not self.held:
            self.held = len(record)
            raise BlockingIOError
        if len(record) < self.held:
            raise OSError("bad length")
        self._sock.sendall(record)
        self.held = 0
        return len(record)


@pytest.mark.parametrize("sizes", [(48,), (48, 1000), (48, 300_000), (48, 300_000, 1600)], ids=str)
def test_what_could_not_be_sent_is_sent_again_with_no_less(sizes: tuple[int, ...]) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    failed: list[str] = []
    lock = threading.Lock()
    with closing(Encrypting(theirs)) as transport, ours:
        replies = Replies(transport, lock, failed.append)
        messages = [[bytes([number]) * size for size in sizes] for number in range(3)]
        for parts in messages:
            with lock:
                replies.send(list[Buffer](parts))
            expected = b"".join(parts)
            assert read_exactly(ours, len(expected)) == expected
        replies.close()
    assert failed == []


def test_a_transport_that_never_takes_what_it_says_it_can_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not asked for ever."""
    monkeypatch.setattr("usbip_capture.server.replies.SEND_TIMEOUT", 0.05)

    class Refusing(SocketTransport):
        def send_now(self, parts: list[Buffer], grace: float = 0.0) -> int:
            raise BlockingIOError

    ours, theirs = socket.socketpair()
    lock, given_up, failed = threading.Lock(), threading.Event(), list[str]()

    def fail(reason: str) -> None:
        failed.append(reason)
        given_up.set()

    with closing(Refusing(theirs, "a peer")) as transport, ours:
        replies = Replies(transport, lock, fail)
        with lock:
            replies.send([b"reply"])
        assert given_up.wait(20)
        replies.close()
    assert failed == ["it has read nothing for 0.05 s"]


def test_what_becomes_writable_as_it_is_broken_off_is_sent_nothing() -> None:
    """A client reads again just then: it gets no more of the reply, and sees it broken."""

    class Waking(SocketTransport):
        resets = False

        def send_now(self, parts: list[Buffer], grace: float = 0.0) -> int:
            sent.append(b"".join(parts))
            return 1

        def wait_to_send(self, timeout: float) -> bool:
            replies.break_off()
            return True

        def reset_on_close(self) -> None:
            self.resets = True

    ours, theirs = socket.socketpair()
    lock, sent = threading.Lock(), list[bytes]()
    with closing(Waking(theirs, "a peer")) as transport, ours:
        replies = Replies(transport, lock, lambda reason: None)
        with lock:
            replies.send([b"reply"])
        assert replies._writer is not None
        replies._writer.join(20)
        replies.close()
        with lock:
            replies.send([b"another"])
        assert sent == [b"reply"]
        assert transport.resets
        assert replies.cut


def test_replies_that_are_held_leave_with_the_next_one_in_order() -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    lock, calls = threading.Lock(), list[int]()

    class Counting(SocketTransport):
        def send_now(self, parts: list[Buffer], grace: float = 0.0) -> int:
            calls.append(len(parts))
            return super().send_now(parts, grace)

    with closing(Counting(theirs, "a peer")) as transport, ours, lock:
        replies = Replies(transport, lock, pytest.fail)
        replies.send([])
        replies.hold([b"one"])
        replies.hold([b"two", b"three"])
        assert calls == []
        replies.send([b"four"])
        replies.send([])
        assert calls == [4]
        assert ours.recv(100) == b"onetwothreefour"
        for _ in range(600):  # no more parts than a system call takes
            replies.hold([b"x"])
        assert calls == [4, 256, 256]
        replies.send([])
        assert read_exactly(ours, 600) == b"x" * 600
