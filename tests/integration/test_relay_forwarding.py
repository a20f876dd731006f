"""What goes through the relay comes out as it was: bytes, ends, resets, the pace of a slow reader."""

from __future__ import annotations

import os
import random
import resource
import socket
import struct
import threading
from pathlib import Path

import pytest

from tests.builders.tcp_recording import golden_turns
from tests.builders.usbip_sessions import INFO, described, imported, session, traffic
from tests.fakes.relayed_session import TIMEOUT, Ends, ends, play
from tests.fakes.scripted_server import read_exactly
from tests.oracles.pcapng_reader import read_capture
from tests.oracles.usbmon_comparison import compare
from tests.waiting import wait_until
from usbip_capture import PcapWriter
from usbip_capture.relay import relay
from usbip_capture.relay.captures import RelayCapture
from usbip_capture.relay.relay import MAX_CONNECTIONS

SESSIONS = sorted(path.parent for path in (Path(__file__).parents[1] / "golden").glob("*/usbip.pcap"))


@pytest.mark.parametrize("chunk", [1, 1 << 20])
@pytest.mark.parametrize("folder", SESSIONS, ids=lambda path: path.name)
def test_golden_sessions_are_forwarded_unchanged_and_captured(folder: Path, chunk: int, tmp_path: Path) -> None:
    turns = golden_turns(folder / "usbip.pcap")
    with ends(tmp_path / "out.pcapng") as both:
        client, server = both.connect()
        play(client, server, turns, chunk)
        client.close()
        assert server.recv(1) == b""
        server.close()
        both.wait_gone()
    report = compare(tmp_path / "out.pcapng", folder / "client-usbmon.pcap")
    assert report.differences == []
    assert report.urbs >= 15


def test_a_half_closed_connection_still_carries_the_other_half() -> None:
    with ends() as both:
        client, server = both.connect()
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        assert read_exactly(server, 10) == b"last words"
        assert server.recv(1) == b""
        server.sendall(b"answer")
        assert read_exactly(client, 6) == b"answer"
        assert both.relay.clients
        server.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        both.wait_gone()


@pytest.mark.parametrize("breaking", ["client", "server"])
def test_a_reset_is_passed_on(breaking: str) -> None:
    with ends() as both:
        client, server = both.connect()
        first, other = (client, server) if breaking == "client" else (server, client)
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        first.close()
        with pytest.raises(ConnectionResetError):
            other.recv(1)
        both.wait_gone()


def test_a_reset_after_a_half_close_ends_it() -> None:
    with ends() as both:
        client, server = both.connect()
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        both.wait_gone()  # although nobody writes
        with pytest.raises(OSError, match=r"."):
            server.sendall(b"nobody is there")


def test_what_a_server_sent_before_it_died_arrives() -> None:
    for _ in range(30):
        with ends() as both:
            client, server = both.connect()
            client.sendall(b"never read")
            assert server.recv(1) == b"n"
            server.sendall(bytes(5000))
            server.close()  # a reset, for it has not read all
            try:
                client.sendall(b"to nobody")
            except OSError:  # the reset is here already
                pass
            assert read_exactly(client, 5000) == bytes(5000)
            both.wait_gone()


def test_a_client_that_died_before_a_server_that_hangs_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "LAST_PATIENCE", 0.5)
    with ends() as both:
        client, server = both.connect()
        server.sendall(b"never read")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.sendall(bytes(64 << 20))
        client.close()
        both.wait_gone()


def test_a_capture_that_fails_cuts_nobody_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError

    with ends(tmp_path / "out.pcapng") as both:
        client, server = both.connect()
        monkeypatch.setattr(RelayCapture, "event", fault)
        play(client, server, session(), 1 << 20)
        wait_until("it was tried", lambda: not both.relay._captures)
        with PcapWriter(tmp_path / "other.pcapng") as writer:
            monkeypatch.setattr(RelayCapture, "joins", fault)
            both.relay.capture(writer)
            play(client, server, traffic(3), 1 << 20)


def test_without_threads_a_client_is_turned_away_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with ends() as both:
        good = both.connect()
        wait_until("it is there", lambda: both.relay.clients)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fault)
            with (  # the reset may be there before the connection is
                pytest.raises(ConnectionResetError),
                socket.create_connection(("127.0.0.1", both.relay.port), TIMEOUT) as client,
            ):
                client.recv(1)
        both.wait_gone(1)
        good[0].sendall(b"still there")
        assert read_exactly(good[1], 11) == b"still there"
        play(*both.connect(), session(), 1 << 20)


def test_a_server_that_is_not_there_is_a_reset() -> None:
    with ends() as both:
        both.listener.close()
        # The reset may be there before the connection is.
        with (
            pytest.raises(ConnectionResetError),
            socket.create_connection(("127.0.0.1", both.relay.port), TIMEOUT) as client,
        ):
            client.recv(1)
        both.wait_gone()


def test_the_server_comes_back() -> None:
    with ends() as both:
        port = both.listener.getsockname()[1]
        both.listener.close()
        # The reset may be there before the connection is.
        with (
            pytest.raises(ConnectionResetError),
            socket.create_connection(("127.0.0.1", both.relay.port), TIMEOUT) as client,
        ):
            client.recv(1)
        both.listener = socket.create_server(("127.0.0.1", port))
        with both.listener:
            client, server = both.connect()
            client.sendall(b"again")
            assert read_exactly(server, 5) == b"again"


@pytest.mark.parametrize("slow", ["client", "server"])
def test_a_slow_reader_holds_its_sender_up_and_gets_all(slow: str) -> None:
    with ends() as both:
        client, server = both.connect()
        source, target = (server, client) if slow == "client" else (client, server)
        source.setblocking(False)
        piece = random.Random(7).randbytes(1 << 16)
        before = memory_kib()
        sent = 0
        stuck = 0
        while stuck < 50:  # the kernel's buffers on both ways are full then
            try:
                sent += source.send(piece[sent % len(piece) :])
                stuck = 0
            except BlockingIOError:
                stuck += 1
                threading.Event().wait(0.01)
        assert 1 << 16 < sent < 64 << 20
        assert memory_kib() - before < 32 << 10
        other_client, other_server = both.connect()  # nobody else is held up
        play(other_client, other_server, session(), 1 << 20)
        source.shutdown(socket.SHUT_WR)
        got = 0
        while data := target.recv(1 << 20):
            assert data == (piece * (len(data) // len(piece) + 2))[got % len(piece) :][: len(data)]
            got += len(data)
        assert got == sent


def memory_kib() -> int:
    """Of this process, in which the relay runs."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def test_garbage_both_ways_is_forwarded_and_others_go_on(tmp_path: Path) -> None:
    noise = random.Random(9)
    with ends(tmp_path / "out.pcapng") as both:
        good = both.connect()
        play(*good, imported() + described(), 1 << 20)
        bad = both.connect()
        for _ in range(40):
            play(*bad, [(0, noise.randbytes(3000)), (1, noise.randbytes(70_000))], 1 << 20)
        play(*bad, [(0, b"\0\0\0\1" * 4000), (1, b"\0\0\0\3" * 4000)], 999)
        spoilt = both.connect()
        play(*spoilt, [*imported(), (0, noise.randbytes(5000)), (1, noise.randbytes(5000)), *traffic(1)], 1 << 20)
        play(*good, traffic(3), 100)
    assert sum(1 for record in read_capture(tmp_path / "out.pcapng") if record.interface.name == "usbip0") == 4 + 2 * 18


@pytest.mark.parametrize("times", [1500, pytest.param(10_000, marks=pytest.mark.long)])
def test_connections_that_come_and_go_leave_nothing_behind(times: int) -> None:
    """Thirty ways to come and go, in turn."""
    with ends() as both:
        descriptors = threads = 0
        for number in range(times):
            if not number % 10:  # one address may have some at a time only
                wait_until("most are gone", lambda: len(both.relay.clients) < 10, 30)
            with socket.create_connection(("127.0.0.1", both.relay.port), TIMEOUT) as client:
                if number % 2:
                    client.sendall(b"\1\x11\x80\5")
                if number % 3:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if number % 5:
                    both.listener.accept()[0].close()
            if not number % 5:
                both.listener.accept()[0].close()  # the client has left before
            if number == 100:
                wait_until("the first are gone", lambda: len(both.relay.clients) < 5)
                descriptors, threads = open_files(), threading.active_count()
        both.wait_gone()
        assert open_files() <= descriptors + 5
        assert threading.active_count() <= threads + 5
        play(*both.connect(), session(), 1 << 20)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_too_many_clients_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "IDLE_LIMIT", float("inf"))  # a busy machine takes long to open so many
    with ends() as both:
        held = [both.connect() for _ in range(MAX_CONNECTIONS)]
        wait_until("all are there", lambda: len(both.relay.clients) == MAX_CONNECTIONS)
        # The reset may be there before the connection is.
        with (
            pytest.raises(ConnectionResetError),
            socket.create_connection(("127.0.0.1", both.relay.port), TIMEOUT) as client,
        ):
            client.recv(1)
        assert both.relay.turned_away == 1
        held[0][0].close()
        held[0][1].close()
        both.wait_gone(MAX_CONNECTIONS - 1)
        play(*both.connect(), session(), 1 << 20)


def test_dropping_a_client(tmp_path: Path) -> None:
    with ends(tmp_path / "out.pcapng") as both:
        first, second = both.connect(), both.connect()
        play(*first, session(), 1 << 20)
        wait_until("both are there", lambda: len(both.relay.clients) == 2)
        wait_until("the device is known", lambda: any(client.device for client in both.relay.clients))
        number = next(client.number for client in both.relay.clients if client.device == str(INFO))
        assert both.relay.drop(number)
        assert not both.relay.drop(99)
        for sock in first:
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        play(*second, session(), 1 << 20)


def test_two_devices_are_two_interfaces_and_one_that_comes_back_has_its_own(tmp_path: Path) -> None:
    with ends(tmp_path / "out.pcapng") as both:
        first, second = both.connect(), both.connect()
        play(*first, session(), 1 << 20)
        play(*second, session(), 1 << 20)  # the same busid at the same time: no server does that, and yet
        first[0].close()
        first[1].close()
        both.wait_gone(1)
        play(*both.connect(), session(), 1 << 20)
    counts: dict[str, int] = {}
    for record in read_capture(tmp_path / "out.pcapng"):
        counts[record.interface.name] = counts.get(record.interface.name, 0) + 1
    assert counts["usbip0"] + counts["usbip1"] == 3 * 40
    assert set(counts) <= {"usbip0", "usbip1", "notes0"}


def test_closing_breaks_everybody_off() -> None:
    both = Ends()
    client, _ = both.connect()
    wait_until("it is there", lambda: both.relay.clients)
    both.relay.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", both.relay.port), TIMEOUT)
    both.close()
