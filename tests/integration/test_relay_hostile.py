"""One client or server of the relay does its worst, or fails: the others never notice."""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import closing

import pytest

import usbip_capture.demo.device
from tests.builders.usbip_sessions import BULK_IN, INFO, described, imported, session, submit
from tests.fakes.relayed_session import TIMEOUT, Ends, ends, play
from tests.fakes.scripted_server import read_exactly
from tests.waiting import wait_until
from usbip_capture.access.rules import CLOSED, AccessRules
from usbip_capture.errors import ServerLost
from usbip_capture.live import joining, registry
from usbip_capture.net.address import format_address
from usbip_capture.net.listening import Peer
from usbip_capture.net.networks import parse_networks
from usbip_capture.net.ruling import policy_of
from usbip_capture.relay import forwarding, observation, relay
from usbip_capture.relay.listening import attach_hint
from usbip_capture.relay.observation import Observation
from usbip_capture.relay.relay import Relay
from usbip_capture.relay.service import RelayService
from usbip_capture.servers.address import ServerAddress
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.urb import TransferType, Urb
from usbip_capture.wire.hindsight import Hindsight
from usbip_capture.wire.observed import Event

RESET = struct.pack("ii", 1, 0)


def kill(sock: socket.socket) -> None:
    """As the system does for a process that is killed with unread data."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def flood(sock: socket.socket) -> None:
    """Send until nothing is taken any more."""
    sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        sock.sendall(bytes(256 << 20))


def test_a_client_is_killed_while_a_server_that_is_no_tcp_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    far: list[socket.socket] = []

    def stuck() -> socket.socket:
        near, end = socket.socketpair()
        far.append(end)
        return near

    monkeypatch.setattr(usbip_capture.demo.device, "connect_demo", stuck)
    monkeypatch.setattr(relay, "LAST_PATIENCE", 0.3)
    with closing(Relay(ServerAddress("demo"), port=0)) as between:
        other, client = (socket.create_connection(("127.0.0.1", between.port), TIMEOUT) for _ in range(2))
        wait_until("both are there", lambda: len(between.clients) == 2)
        with other:
            flood(client)
            kill(client)
            wait_until("it is let go", lambda: len(between.clients) == 1)
            other.sendall(b"still there")
            assert any(has_words(end, b"still there") for end in far)
        for end in far:
            end.close()


def has_words(sock: socket.socket, words: bytes) -> bool:
    sock.settimeout(0.5)
    try:
        return sock.recv(100) == words
    except OSError:
        return False


def test_what_is_still_taken_after_a_client_was_killed_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "LAST_PATIENCE", 0.3)
    with ends() as both:
        client, server = both.connect()
        sent = 0
        client.setblocking(False)
        try:
            while True:
                sent += client.send(bytes(1 << 16))
        except BlockingIOError:
            kill(client)
        assert 0 < received(server) <= sent
        both.wait_gone()


def received(sock: socket.socket) -> int:
    """How many bytes come before the connection is reset."""
    got = 0
    try:
        while size := len(sock.recv(1 << 16)):
            got += size
    except ConnectionResetError:
        return got
    raise AssertionError("it has ended instead")


def fault(*_: object, **__: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("name", ["read", "stop_polling"])
def test_a_fault_of_ours_ends_the_connection_that_it_is_of(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ends() as both:
        good, bad = both.connect(), both.connect()
        play(*good, imported() + described(), 1 << 20)
        wait_until("both are there", lambda: len(both.relay.clients) == 2)
        peer = format_address(*bad[0].getsockname()[:2])
        (own,) = (kept.ends for seen, kept in both.relay._connections.items() if seen.peer == peer)
        real: Callable[..., object] = getattr(forwarding.End, name)

        def faulty(self: forwarding.End, *arguments: object) -> object:
            if self in own:
                fault()
            return real(self, *arguments)

        monkeypatch.setattr(forwarding.End, name, faulty)
        if name == "stop_polling":
            bad[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            bad[0].close()
        else:
            bad[0].sendall(b"x")
        both.wait_gone(1)
        with pytest.raises(ConnectionResetError):
            bad[1].recv(10)
        play(*good, session(), 1 << 20)
        play(*both.connect(), session(), 1 << 20)


def read_through(both: Ends) -> None:
    """Connect, and read a byte: a reset may be there before the connection is."""
    client, server = both.connect()
    with client, server:
        client.recv(1)


def test_a_connection_that_cannot_begin_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    with ends() as both:
        good = both.connect()
        wait_until("it is there", lambda: both.relay.clients)
        before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc") else 0
        with monkeypatch.context() as patch:
            patch.setattr(forwarding.Connection, "rewatch", fault)
            with pytest.raises(ConnectionResetError):
                read_through(both)
        if before:
            wait_until("nothing is left of it", lambda: len(os.listdir("/proc/self/fd")) <= before)
        play(*good, session(), 1 << 20)


@pytest.mark.parametrize(("owner", "name"), [(Hindsight, "add"), (Observation, "passes")])
def test_a_fault_in_what_observes_cuts_nobody_off(owner: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ends() as both:
        one, other = both.connect(), both.connect()
        monkeypatch.setattr(owner, name, fault)
        play(*one, session(), 1 << 20)
        play(*other, session(), 1 << 20)
        one[0].close()
        one[1].close()
        both.wait_gone(1)
        play(*other, session(), 1 << 20)


def test_a_relay_that_has_ended_is_no_service_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(RelayService(ServerAddress("demo"), "127.0.0.1", 0)) as service:
        assert not service.stopped
        monkeypatch.setattr(Relay, "_turn", fault)
        service.relay.drop(0)
        service.wait_stopped()
        assert service.stopped


def test_the_longest_idle_client_without_a_device_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(relay, "IDLE_LIMIT", 0.0)
    with ends() as both:
        user, first, second = both.connect(), both.connect(), both.connect()
        wait_until("all are there", lambda: len(both.relay.clients) == 3)
        play(*user, imported() + described(), 1 << 20)
        wait_until("it is seen", lambda: sum(client.imported is not None for client in both.relay.clients) == 1)
        first[0].sendall(b"\1\x11\x80")
        assert read_exactly(first[1], 3) == b"\1\x11\x80"
        fourth = both.connect()
        with pytest.raises(ConnectionResetError):
            second[0].recv(1)
        play(*fourth, session(), 1 << 20)
        play(*user, session()[2:], 1 << 20)
        assert both.relay.turned_away == 0


def test_this_machine_may_connect_from_its_own_address() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        own = probe.getsockname()[0]
    with closing(Relay(ServerAddress("demo"), "0.0.0.0", 0, allow=parse_networks("192.0.2.0/24"))) as between:
        with socket.create_connection((own, between.port), TIMEOUT):
            wait_until("it is let in", lambda: between.clients)
        assert between.turned_away == 0


def test_an_address_is_our_own_if_the_client_was_reached_there() -> None:
    rules = AccessRules(CLOSED, ["allow 198.51.100.0/24"])
    refusal = policy_of(lambda: rules)
    assert not refusal(Peer("192.0.2.1", 5, "192.0.2.1"))
    assert not refusal(Peer("198.51.100.9", 5, "192.0.2.1"))
    assert refusal(Peer("192.0.2.2", 5, "192.0.2.1"))
    assert not refusal(Peer())  # by a socket of this machine's file system


EVIL = ["1-1;touch x", "1-1\nusbip-capture: all is well", "\x1b[8m1-1", "$(id)", "", "'", "-", "1-1\u202e"]


def test_only_busids_that_a_shell_takes_as_they_are_stand_in_the_hint() -> None:
    plain = "attach with: usbip attach -r 127.0.0.1 -b "
    assert attach_hint("127.0.0.1", 3240, EVIL) == plain + "BUSID"
    assert attach_hint("127.0.0.1", 3240, [*EVIL, "1-1.2", *EVIL, "2-1"]) == plain + "1-1.2 (or 2-1)"
    many = [f"1-{n}" for n in range(4096)]
    expected = "attach with: usbip --tcp-port 7 attach -r ADDRESS -b 1-0 (or 1-1, "
    assert attach_hint("0.0.0.0", 7, many).startswith(expected)
    assert len(attach_hint("0.0.0.0", 7, many)) < 200


@pytest.mark.parametrize("busid", [busid for busid in EVIL if busid])
def test_what_a_server_calls_its_device_does_nothing_to_a_terminal(
    busid: str, caplog: pytest.LogCaptureFixture
) -> None:
    info = DeviceInfo(busid, 3, 4, INFO.speed, 0x1209, 1)
    with caplog.at_level(logging.INFO, "usbip_capture.relay"), ends() as both:
        play(*both.connect(), imported(info) + described(), 1 << 20)
        wait_until("it is known", lambda: any(client.device for client in both.relay.clients))
        (client,) = both.relay.clients
        assert client.device.isprintable()
        (line,) = (record.getMessage() for record in caplog.records if "has imported" in record.getMessage())
        assert line.isprintable()


def test_urbs_that_are_never_answered_leave_the_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observation, "MAX_PENDING", 64)
    kept: list[Event] = []
    seen = Observation(1, "peer", lambda _, events: kept.extend(events))
    for side, data in imported():
        seen.saw(side == 0, data, 0)
    for number in range(1, 1000):
        seen.saw(True, submit(number, Urb(TransferType.BULK, BULK_IN, 8))[1], number)
        for event in kept:
            seen.passes(event)
        kept.clear()
        assert len(seen.waiting) <= 64
    assert max(seen.waiting) == 999


def stopping(service: RelayService) -> tuple[threading.Thread, list[BaseException]]:
    (entry,) = (entry for entry in registry.running() if entry.name == service.channel.name)
    errors: list[BaseException] = []

    def stop() -> None:
        try:
            joining.stop(entry)
        except ServerLost as error:
            errors.append(error)

    thread = threading.Thread(target=stop)
    thread.start()
    return thread, errors


def test_a_relay_counts_as_stopped_when_it_is() -> None:
    service = RelayService(ServerAddress("demo"), "127.0.0.1", 0)
    thread, errors = stopping(service)
    service.wait_stopped()
    thread.join(0.5)
    assert thread.is_alive()  # it was asked to end, and has not yet
    service.close()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert errors == []


def test_a_relay_that_does_not_stop_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_STOP_TIMEOUT", 0.3)
    with closing(RelayService(ServerAddress("demo"), "127.0.0.1", 0)) as service:
        thread, errors = stopping(service)
        thread.join(TIMEOUT)
        (error,) = errors
        assert "has not ended within 0.3 s" in str(error)


def test_the_hint_is_not_waited_for_where_there_is_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if self.name == "usbip-relay-list":
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    with closing(RelayService(ServerAddress("demo"), "127.0.0.1", 0)) as service:
        assert service.listed.is_set()
