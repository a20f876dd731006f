"""`server` and clients that do not read, may not, or are to go: no device and no other client waits for them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.fakes.served import CARRIERS, HeldDevice, Served, reply, submit, unlink
from tests.waiting import wait_until
from usbip_capture.demo.device import INFO
from usbip_capture.errors import ImportRefused, UsbipError
from usbip_capture.net import transport
from usbip_capture.net.listening import NOT_ALLOWED, Peer
from usbip_capture.server import ALLOWED, Access, Decision, replies
from usbip_capture.servers.address import Selector
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.status import ECONNRESET
from usbip_capture.wire.structs import OpStatus


@pytest.fixture(params=CARRIERS)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    made = Served(carrier=request.param)
    yield made
    made.server.close()


def data_of(number: int, size: int) -> bytes:
    return number.to_bytes(4, "big") * (size // 4)


SIZES = [64, 1 << 20, 4, 300_000, 20_000, 8, 1 << 21, 16, 16, 16]


def test_a_device_never_waits_for_a_client_that_reads_nothing_and_it_gets_all_in_order(served: Served) -> None:
    """Much more than sockets take is completed on this thread, before anything is read."""
    with served.imported(buffer=4096) as (sock, device):
        count = 3 * len(SIZES)
        for number in range(count):
            sock.sendall(submit(2 + number, 4 << 20 >> 1))
        device.wait_for(count)
        for number in range(count):
            device.complete(number, data_of(number, SIZES[number % len(SIZES)]))
        for number in range(count):
            assert reply(sock) == (3, 2 + number, 0, data_of(number, SIZES[number % len(SIZES)]))
        sock.sendall(submit(100, 64))  # and directly again
        device.wait_for(count + 1)
        device.complete(count, b"last")
        assert reply(sock) == (3, 100, 0, b"last")


def test_unlinks_are_answered_in_order_behind_what_is_queued(served: Served) -> None:
    with served.imported(buffer=4096) as (sock, device):
        for number in range(10):
            sock.sendall(submit(2 + number, 1 << 20))
        device.wait_for(10)
        for number in range(8):
            device.complete(number, data_of(number, 1 << 20))
        got = [reply(sock) for _ in range(8)]
        assert [seqnum for _, seqnum, _, _ in got] == list(range(2, 10))
        sock.sendall(unlink(50, 10) + unlink(51, 2))
        assert {reply(sock)[:3] for _ in range(2)} == {(4, 50, -ECONNRESET), (4, 51, 0)}
        device.complete(9, b"done")
        assert reply(sock) == (3, 11, 0, b"done")


def test_a_client_that_leaves_too_much_unread_is_disconnected(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replies, "MAX_UNSENT", 8 << 20)
    with served.imported(buffer=4096) as (sock, device):
        for number in range(40):
            sock.sendall(submit(2 + number, 1 << 20))
        device.wait_for(40)
        for number in range(40):
            device.complete(number, bytes(1 << 20))
        wait_until("the device is free again", served.is_free)
    assert any("MiB of replies unread" in text for text in caplog.messages)


def test_a_client_that_takes_nothing_for_too_long_is_disconnected(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replies, "SEND_TIMEOUT", 0.2)
    with served.imported(buffer=4096) as (sock, device):
        for number in range(10):
            sock.sendall(submit(2 + number, 4 << 20))
        device.wait_for(10)
        for number in range(10):
            device.complete(number, bytes(4 << 20))
        wait_until("the device is free again", served.is_free)
        sock.settimeout(20)
    assert any("it has read nothing for" in text for text in caplog.messages)


def test_no_thread_for_the_writer_costs_that_client_only(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def failing(self: threading.Thread) -> None:
        if self.name == "usbip-replies":
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", failing)
    with served.imported(buffer=4096) as (sock, device):
        for number in range(10):
            sock.sendall(submit(2 + number, 4 << 20))
        device.wait_for(10)
        for number in range(10):
            device.complete(number, bytes(4 << 20))
        wait_until("the device is free again", served.is_free)


def test_a_server_that_is_closed_does_not_wait_for_a_client_that_reads_nothing(served: Served) -> None:
    with served.imported(buffer=4096) as (sock, device):
        for number in range(10):
            sock.sendall(submit(2 + number, 4 << 20))
        device.wait_for(10)
        for number in range(10):
            device.complete(number, bytes(4 << 20))
        served.server.close()
        assert not device.alive
    assert not [thread for thread in threading.enumerate() if thread.name == "usbip-replies"]


def test_buffers_of_both_directions_count_as_pending(served: Served) -> None:
    with served.imported() as (sock, device):
        with contextlib.suppress(OSError):
            for number in range(40):
                sock.sendall(submit(2 + number, 4 << 20))
        wait_until("the device is free again", served.is_free)
        assert not device.alive


@pytest.mark.parametrize("size", [0, 100, 8000])
def test_the_writer_is_not_needed_by_a_client_that_reads(served: Served, size: int) -> None:
    """A hand-over doubles a round trip: what the socket takes is sent by the thread that completes it."""
    with served.imported() as (sock, device):
        for number in range(50):
            sock.sendall(submit(2 + number, 1 << 17))
            device.wait_for(number + 1)
            device.complete(number, bytes(size))
            assert reply(sock) == (3, 2 + number, 0, bytes(size))
        assert "usbip-replies" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("served", ["tcp"], indirect=True)
def test_where_a_socket_has_a_time_out_sending_does_not_wait_either(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the system keeps no limit for sending, such as on Windows."""
    monkeypatch.setattr(transport, "_KERNEL_TIMEOUTS", False)
    test_a_device_never_waits_for_a_client_that_reads_nothing_and_it_gets_all_in_order(served)


# -- who is there, and ending them


def test_who_has_which_device(served: Served) -> None:
    with contextlib.ExitStack() as clients:
        clients.enter_context(socket.create_connection(served.address, 20))
        wait_until("it is served", lambda: served.server.clients)
        clients.enter_context(served.imported())
        wait_until("the device is noted", lambda: any(client.busid for client in served.server.clients))
        waiting, user = served.server.clients
        assert (waiting.busid, waiting.imported) == ("", 0)
        assert user.peer == Peer("127.0.0.1", user.peer.port, "127.0.0.1")
        assert user.peer.port not in {0, waiting.peer.port}
        assert user.busid == "1-1"
        assert user.imported >= user.since >= waiting.since > 1e9
    wait_until("nobody is connected", lambda: not served.server.clients)


def test_one_client_is_ended_by_its_device(served: Served) -> None:
    assert not served.server.disconnect("1-1")
    with served.imported() as (sock, device):
        wait_until("the device is noted", lambda: served.server.disconnect("1-1"))
        assert sock.recv(1) == b""
        wait_until("the device is free again", served.is_free)
        assert not device.alive
    with served.imported():  # it is still exported
        pass
    assert not served.server.disconnect("")


def test_a_device_that_is_removed_or_lost_ends_its_client(served: Served) -> None:
    with served.imported() as (sock, device):
        device.lost("unplugged")
        assert sock.recv(1) == b""
    wait_until("the device is free again", served.is_free)
    with served.imported() as (sock, device):
        served.server.remove("1-1")
        assert sock.recv(1) == b""
        assert served.named.devices() == []
    wait_until("it is closed", lambda: not device.alive)


# -- who may do what


class Rules(Access):
    """Each answer can be set; keeps what it was asked."""

    def __init__(self) -> None:
        self.connect = self.take = ALLOWED
        self.sees: bool | Exception = True
        self.asked: list[str] = []

    def may_connect(self, peer: Peer) -> Decision:
        assert peer.host == "127.0.0.1"
        return self.connect

    def visible(self, peer: Peer, info: DeviceInfo) -> bool:
        self.asked.append(f"see {info.busid}")
        if isinstance(self.sees, Exception):
            raise self.sees
        return self.sees

    def may_import(self, peer: Peer, info: DeviceInfo) -> Decision:
        self.asked.append(f"import {info.busid}")
        return self.take


@pytest.fixture
def rules() -> Rules:
    return Rules()


@pytest.fixture
def guarded(rules: Rules) -> Iterator[Served]:
    made = Served(rules)
    yield made
    made.server.close()


def test_whoever_is_allowed_is_asked_about_and_served(guarded: Served, rules: Rules) -> None:
    assert guarded.is_free()
    with guarded.imported():
        assert rules.asked == ["see 1-1", *["see 1-1", "import 1-1"] * 2]  # once more when it has the device


def test_a_client_that_may_not_connect(guarded: Served, rules: Rules, caplog: pytest.LogCaptureFixture) -> None:
    rules.connect = Decision(allowed=False, reason="not on Sundays")
    with pytest.raises(UsbipError):
        guarded.named.devices()
    assert guarded.server.admission.refused == {"not on Sundays": 1}
    assert any(text.endswith("is refused: not on Sundays") for text in caplog.messages)


@pytest.mark.parametrize("sees", [False, ZeroDivisionError("a bug")], ids=repr)
def test_a_device_that_a_client_cannot_see_is_not_there(guarded: Served, rules: Rules, sees: bool | Exception) -> None:
    rules.sees = sees
    assert guarded.named.devices() == []
    with pytest.raises(ImportRefused) as caught:
        guarded.named.import_device(Selector("1-1"))
    assert caught.value.status == OpStatus.NODEV
    assert "import 1-1" not in rules.asked
    assert not guarded.devices


def test_a_device_that_a_client_sees_but_may_not_have(guarded: Served, rules: Rules) -> None:
    rules.take = Decision(allowed=False)
    assert guarded.is_free()
    with pytest.raises(ImportRefused) as caught:
        guarded.named.import_device(Selector("1-1"))
    assert caught.value.status == OpStatus.NA
    assert guarded.server.admission.refused == {f"1-1: {NOT_ALLOWED}": 1}
    assert not guarded.devices  # never opened
    rules.take = ALLOWED
    with guarded.imported():
        pass


def test_a_decision_has_the_status_that_the_client_gets(guarded: Served, rules: Rules) -> None:
    rules.take = Decision(allowed=False, status=OpStatus.DEV_BUSY)
    with pytest.raises(ImportRefused) as caught:
        guarded.named.import_device(Selector("1-1"))
    assert caught.value.status == OpStatus.DEV_BUSY


def test_a_session_that_is_not_allowed_any_more_ends_when_it_is_asked_about(
    guarded: Served, rules: Rules, caplog: pytest.LogCaptureFixture
) -> None:
    with guarded.imported() as (sock, device):
        guarded.server.check_sessions()
        assert device.alive
        rules.take = Decision(allowed=False, reason="it is Sunday")
        guarded.server.check_sessions()
        assert sock.recv(1) == b""
        wait_until("the device is closed", lambda: not device.alive)
        assert any(text.endswith("is disconnected: 1-1: it is Sunday") for text in caplog.messages)
    rules.take = ALLOWED
    wait_until("it is free", guarded.is_free)
    with guarded.imported() as (sock, device):
        rules.sees = False
        guarded.server.check_sessions()
        assert sock.recv(1) == b""


def test_what_is_decided_while_a_device_is_being_opened_counts(guarded: Served, rules: Rules) -> None:
    """The session is not there yet for `check_sessions`."""
    opened = guarded._open

    def opening() -> HeldDevice:
        rules.take = Decision(allowed=False, status=OpStatus.DEV_BUSY)
        guarded.server.check_sessions()
        return opened()

    guarded.server.add(INFO, opening)
    with pytest.raises(ImportRefused) as caught:
        guarded.named.import_device(Selector("1-1"))
    assert caught.value.status == OpStatus.DEV_BUSY
    (device,) = guarded.devices
    assert not device.alive
    rules.take = ALLOWED
    assert guarded.is_free()
