"""Leases in their file: kept whole or refused, followed as time and other servers change them."""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import Queue

import pytest

from tests.waiting import wait_until
from usbip_capture.access.leases import Turn
from usbip_capture.demo.device import INFO
from usbip_capture.errors import DeviceNotFound, FileFormatError, LocalProtocolError, UsbipError
from usbip_capture.net.listening import Peer
from usbip_capture.servers.configuration import MAX_BYTES
from usbip_capture.serving import following, lease_file, leases
from usbip_capture.serving.leases import DeviceLeases
from usbip_capture.system import folder_lock
from usbip_capture.wire.structs import OpStatus

ANN = Peer("192.0.2.7", 40000, "192.0.2.1")
BOB = Peer("198.51.100.9", 40000, "192.0.2.1")


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "configuration" / "leases.json"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def held(path: Path, clock: Clock) -> Iterator[DeviceLeases]:
    made = DeviceLeases(None, str(path), clock)
    yield made
    made.close()


def again(path: Path, clock: Clock) -> DeviceLeases:
    """As it is read by a server that starts now."""
    made = DeviceLeases(None, str(path), clock)
    made.close()
    return made


def refusal(leases: DeviceLeases, peer: Peer, busid: str) -> str:
    """Why the client may not have the device; empty if it may."""
    decision = leases.decision(peer, replace(INFO, busid=busid))
    assert decision.allowed or (decision.status, decision.rule) == (OpStatus.DEV_BUSY, "lease")
    return decision.reason


def test_others_are_refused_until_the_time_is_over(held: DeviceLeases, clock: Clock) -> None:
    assert not refusal(held, BOB, "1-1")
    held.reserve("1-1", 3600, "192.0.2.0/24")
    assert not refusal(held, ANN, "1-1")
    assert not refusal(held, Peer("::ffff:192.0.2.8"), "1-1")
    assert refusal(held, BOB, "1-1").startswith("it is reserved for 192.0.2.0/24 until ")
    assert refusal(held, Peer(), "1-1")
    assert not refusal(held, BOB, "1-2")
    clock.now += 3600
    assert not refusal(held, BOB, "1-1")


def test_an_identity_holds_it_from_any_address(held: DeviceLeases) -> None:
    held.reserve("1-1", 3600, "paired:ann")
    assert refusal(held, ANN, "1-1")
    assert refusal(held, ANN._replace(identity="paired:bob"), "1-1")
    assert refusal(held, ANN._replace(identity="cert:ann"), "1-1")
    assert not refusal(held, BOB._replace(identity="paired:ann"), "1-1")


def test_without_a_client_it_is_for_this_machine(held: DeviceLeases) -> None:
    held.reserve("1-1", 3600)
    assert not refusal(held, Peer(), "1-1")
    assert not refusal(held, Peer("::1"), "1-1")
    assert not refusal(held, Peer("192.0.2.1", 1, "192.0.2.1"), "1-1")
    assert refusal(held, ANN, "1-1")


def test_it_outlives_the_server_and_is_for_its_owner_only(held: DeviceLeases, path: Path, clock: Clock) -> None:
    held.reserve("1-1", 3600, "192.0.2.7")
    held.reserve("1-1", 60, "paired:ann")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    clock.now += 3000.5
    read = again(path, clock)
    assert read.turns("1-1") == held.turns("1-1")
    assert refusal(read, BOB, "1-1")
    clock.now += 600  # it is the next one's turn, although no server ran when that began
    assert refusal(again(path, clock), ANN, "1-1").startswith("it is reserved for paired:ann")


def test_a_file_cut_at_any_byte_is_refused_and_stays(
    held: DeviceLeases, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    held.reserve("1-1", 3600, "192.0.2.7")
    held.reserve("1-4.2", 3600.25, "cert:b\N{LATIN SMALL LETTER U WITH DIAERESIS}ro")
    whole = path.read_bytes()
    for length in range(len(whole) - 1):  # the last one is the line feed
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError) as caught:
            DeviceLeases(None, str(path), clock)
        assert str(caught.value).startswith(f"{path} is damaged: ")
        assert str(caught.value).endswith(": correct it, or remove it if no device is reserved")
        assert str(caught.value).isprintable()
    assert held.reload() is False  # a server that runs keeps what it had
    assert refusal(held, BOB, "1-1")
    assert caplog.messages[-1].endswith("; what was reserved before still is")
    for change in (lambda: held.reserve("1-2", 60), lambda: held.release("1-1")):
        with pytest.raises(FileFormatError, match="is damaged"):
            change()
    assert path.read_bytes() == whole[:-2]
    assert refusal(held, BOB, "1-1")
    path.write_bytes(whole[:-1])
    assert refusal(again(path, clock), BOB, "1-1")


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"\x00" * 100, b" " * MAX_BYTES,
     b'{"version": 1, "leases": {"1-1": [{"holder": "nobody", "begins": 1, "until": 9000000000}]}}'],
    ids=["no UTF-8", "zeros", "long", "not a client"],
)  # fmt: skip
def test_what_is_not_a_state_is_refused(path: Path, clock: Clock, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="is damaged"):
        DeviceLeases(None, str(path), clock)


def test_what_is_not_a_file_is_refused(path: Path, clock: Clock) -> None:
    path.mkdir(parents=True)
    with pytest.raises(UsbipError, match="is not a file"):
        DeviceLeases(None, str(path), clock)
    path.rmdir()
    path.symlink_to(path.parent / "nowhere")
    with pytest.raises(UsbipError, match="is not a file"):
        DeviceLeases(None, str(path), clock)


def test_what_cannot_be_written_is_not_reserved(held: DeviceLeases, path: Path) -> None:
    path.parent.write_text("a file where the folder must be")
    with pytest.raises(UsbipError, match=r"cannot be written: .*: make its folder writable"):
        held.reserve("1-1", 3600)
    assert not refusal(held, BOB, "1-1")
    path.parent.unlink()
    held.reserve("1-1", 3600)
    assert refusal(held, BOB, "1-1")


def test_the_file_never_becomes_longer_than_is_read(
    held: DeviceLeases, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_file, "MAX_BYTES", 1000)
    held.reserve("1-1", 3600)
    with pytest.raises(LocalProtocolError, match="more cannot be reserved"):
        reserve_many(held)
    assert path.stat().st_size < 1000
    assert again(path, clock).turns("1-1") == held.turns("1-1")


def reserve_many(held: DeviceLeases) -> None:
    for number in range(20):
        held.reserve("1-1", 3600, f"192.0.2.{number}")


def test_what_cannot_be_meant_is_a_sentence(held: DeviceLeases, path: Path) -> None:
    with pytest.raises(LocalProtocolError, match="'nobody' is not a client"):
        held.reserve("1-1", 3600, "nobody")
    with pytest.raises(DeviceNotFound, match="1-1 is not reserved"):
        held.release("1-1")
    assert not held.busids()


def test_one_client_written_in_two_ways_is_one_holder(held: DeviceLeases, clock: Clock) -> None:
    held.reserve("1-1", 3600, "192.0.2.7/32")
    held.reserve("1-1", 60, "::ffff:192.0.2.7")
    assert held.turns("1-1") == (Turn("192.0.2.7", clock.now, clock.now + 60),)
    held.release("1-1", " 192.0.2.7 ")
    assert not held.busids()


def test_servers_that_share_the_file_follow_each_other(
    held: DeviceLeases, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = DeviceLeases(None, str(path), clock)
    try:
        other.reserve("1-2", 3600, "192.0.2.7")
        held.reserve("1-1", 3600, "192.0.2.7")  # which does not lose the other one's
        assert held.busids() == ["1-2", "1-1"]
        causes: Queue[str] = Queue()
        following_file = following.FollowedFile
        monkeypatch.setattr(leases, "FollowedFile", lambda path, changed: following_file(path, changed, 0.02))
        other.start(causes.put)
        assert causes.get(timeout=20) == "user"  # at once: it has changed since it was read
        assert refusal(other, BOB, "1-1")
        held.release("1-1")
        assert causes.get(timeout=20) == "user"
        assert not refusal(other, BOB, "1-1")
        path.unlink()
        wait_until("nothing is reserved", lambda: not other.busids())
    finally:
        other.close()


def test_none_is_lost_when_several_servers_reserve_at_once(held: DeviceLeases, path: Path, clock: Clock) -> None:
    other = DeviceLeases(None, str(path), clock)
    threads = [
        threading.Thread(target=lambda number=number: reserve_some((held, other)[number % 2], number))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    turns = again(path, clock).turns("1-1")
    assert {turn.holder for turn in turns} == {f"192.0.2.{number}" for number in range(40)}
    assert [turn.begins for turn in turns[1:]] == [turn.until for turn in turns[:-1]]


def reserve_some(leases: DeviceLeases, number: int) -> None:
    for at in range(5):
        leases.reserve("1-1", 60, f"192.0.2.{number * 5 + at}")


def test_one_that_holds_the_folder_for_long_is_not_waited_for(
    held: DeviceLeases, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    held.reserve("1-1", 60)
    monkeypatch.setattr(folder_lock, "_TIMEOUT", 0.05)
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(UsbipError, match="another program keeps it locked: try again"):
            held.reserve("1-1", 120)
    finally:
        os.close(fd)
    held.reserve("1-1", 120)


def test_the_end_of_a_turn_is_noticed_by_a_timer(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    held = DeviceLeases(None, str(path))
    try:
        causes: Queue[str] = Queue()
        held.start(causes.put)
        held.reserve("1-1", 3600, "192.0.2.7")
        held.reserve("1-1", 3600, "paired:ann")
        held.reserve("1-1", 0.1, "192.0.2.7")  # which is shorter
        assert [causes.get(timeout=20) for _ in range(4)] == ["user", "user", "user", "server"]
        assert refusal(held, ANN, "1-1")
        held.reserve("1-1", 0.1, "paired:ann")
        assert [causes.get(timeout=20) for _ in range(2)] == ["user", "server"]
        assert not refusal(held, ANN, "1-1")
    finally:
        held.close()
    assert causes.empty()
    shown = [text for text in caplog.messages if text.startswith("1-1 is")]
    assert [text.partition(" until")[0] for text in shown] == [
        "1-1 is reserved for 192.0.2.7", "1-1 is reserved for 192.0.2.7", "1-1 is reserved for paired:ann",
        "1-1 is reserved for paired:ann", "1-1 is not reserved any more",
    ]  # fmt: skip


def test_a_clock_that_is_set_is_noticed(held: DeviceLeases, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small machines have the time from the network, when they have been on for a while."""
    monkeypatch.setattr(leases, "_LONGEST", 0.02)
    causes: Queue[str] = Queue()
    held.start(causes.put)
    held.reserve("1-1", 3600, "192.0.2.7")
    assert causes.get(timeout=20) == "user"
    clock.now += 4000
    assert causes.get(timeout=20) == "server"
    assert not held.busids()


def test_a_timer_that_cannot_be_had_costs_the_end_only(
    held: DeviceLeases, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    held.reserve("1-1", 3600, "192.0.2.7")
    assert refusal(held, BOB, "1-1")
    assert "is noticed late: can't start new thread" in caplog.text


def test_asking_waits_for_nobody_who_writes(held: DeviceLeases, monkeypatch: pytest.MonkeyPatch) -> None:
    held.reserve("1-1", 3600, "192.0.2.7")
    writing, written = threading.Event(), threading.Event()

    def slow(fd: int) -> None:
        writing.set()
        assert written.wait(20)

    monkeypatch.setattr(os, "fsync", slow)
    thread = threading.Thread(target=held.reserve, args=("1-2", 60))
    thread.start()
    assert writing.wait(20)
    assert refusal(held, BOB, "1-1")
    assert held.turns("1-1")
    written.set()
    thread.join()
    assert held.turns("1-2")


def test_real_time_is_in_seconds_since_1970(path: Path) -> None:
    held = DeviceLeases(None, str(path))
    before = time.time()
    turn = held.reserve("1-1", 60)
    held.close()
    assert before <= turn.begins <= time.time()
