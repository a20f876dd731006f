"""What waits between the program and the device: sizes, time-outs, ends."""

from __future__ import annotations

import select
import threading

import pytest

from tests.waiting import wait_until
from usbip_capture.device import Device, Transfer
from usbip_capture.errors import ServerLost, TransferFailed
from usbip_capture.serial_port import inbox as inbox_module
from usbip_capture.serial_port.inbox import Inbox
from usbip_capture.serial_port.outbox import CAPACITY, CHUNK, DEPTH, Outbox
from usbip_capture.simulated.serial.acm import acm
from usbip_capture.simulated.serial.line import Notebook
from usbip_capture.usb.status import EMSGSIZE, EPIPE
from usbip_capture.usb.urb import Completion

OUT = 0x02


def nothing(*_: object) -> None:
    """For callbacks that do not matter."""


def test_what_came_is_read_in_its_order_and_in_any_pieces() -> None:
    inbox = Inbox(nothing)
    inbox.put(b"abc")
    inbox.put(b"defg")
    assert len(inbox) == 7
    assert [inbox.read(2, 0), inbox.read(4, 0), inbox.read(9, 0), inbox.read(9, 0)] == [b"ab", b"cdef", b"g", b""]


def test_a_delimiter_is_found_across_pieces_and_the_rest_stays() -> None:
    inbox = Inbox(nothing)
    inbox.put(b"one\r")
    inbox.put(b"\ntwo")
    assert inbox.read_until(b"\r\n", None, 0) == b"one\r\n"
    assert inbox.read_until(b"\r\n", None, 0) == b"two"


@pytest.mark.parametrize(("size", "expected"), [(2, b"on"), (5, b"one\r\n"), (9, b"one\r\n")])
def test_at_most_size_bytes_are_read_until_a_delimiter(size: int, expected: bytes) -> None:
    inbox = Inbox(nothing)
    inbox.put(b"one\r\ntwo")
    assert inbox.read_until(b"\r\n", size, 0) == expected


def test_silence_ends_a_read_that_would_wait_for_ever() -> None:
    inbox = Inbox(nothing)
    inbox.put(b"ab")
    assert inbox.read(10, None, 0.01) == b"ab"


def test_a_read_that_was_cancelled_returns_what_there_is() -> None:
    inbox = Inbox(nothing)
    inbox.put(b"ab")
    inbox.cancel()
    assert inbox.read(10, None) == b"ab"


def test_what_came_before_the_end_can_be_read() -> None:
    inbox = Inbox(nothing)
    inbox.put(b"ab")
    inbox.fail(ServerLost("unplugged"))
    assert inbox.read(10, None) == b"ab"
    with pytest.raises(ServerLost, match="unplugged"):
        inbox.read(1, None)


def test_a_full_inbox_reports_it_and_when_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "HIGH", 8)
    monkeypatch.setattr(inbox_module, "LOW", 4)
    calls: list[int] = []
    inbox = Inbox(lambda: calls.append(len(inbox)))
    assert inbox.put(b"1234567")
    assert not inbox.put(b"8")
    inbox.read(4, 0)
    assert not calls
    inbox.read(1, 0)
    assert calls == [3]
    assert inbox.put(b"x")


def test_the_descriptor_is_readable_exactly_while_there_is_something_to_learn() -> None:
    def readable() -> bool:
        return bool(select.select([inbox], [], [], 0)[0])

    inbox = Inbox(nothing)
    assert not readable()
    inbox.put(b"ab")
    assert readable()
    inbox.read(1, 0)
    assert readable()
    inbox.clear()
    assert not readable()
    inbox.fail(ServerLost("unplugged"))
    assert readable()
    inbox.close()


class Slow(Device):
    """Keeps what is submitted until the test finishes it."""

    def __init__(self) -> None:
        self.info = acm(Notebook()).info
        self.waiting: list[Transfer] = []
        self.cancelled: list[Transfer] = []

    @property
    def alive(self) -> bool:
        return True

    def submit(self, transfer: Transfer) -> None:
        self.waiting.append(transfer)

    def cancel(self, transfer: Transfer) -> None:
        self.cancelled.append(transfer)

    def finish(self, status: int = 0) -> bytes:
        """The oldest one; its data."""
        transfer = self.waiting.pop(0)
        data = bytes(transfer.urb.data)
        transfer.finish(Completion(status, 0 if status else len(data)))
        return data

    def watch(self, on_lost: object) -> None: ...

    def abandon(self, transfer: Transfer) -> None: ...

    def close(self) -> None: ...


def slow_outbox(stopped: bool = False) -> tuple[Outbox, Slow]:
    device = Slow()
    outbox = Outbox(lambda: stopped, nothing)
    outbox.attach(device, OUT)
    return outbox, device


def test_small_writes_become_few_transfers_in_their_order() -> None:
    outbox, device = slow_outbox()
    for number in range(100):
        assert outbox.write(bytes([number] * 100), 0) == 100
    sent = b""
    while device.waiting:
        assert len(device.waiting) <= DEPTH
        sent += device.finish()
    assert sent == b"".join(bytes([number] * 100) for number in range(100))
    assert not len(outbox)


def test_only_a_chunk_that_was_proven_flies_with_others() -> None:
    outbox, device = slow_outbox()
    outbox.write(bytes(CAPACITY), 0)
    assert [t.urb.length for t in device.waiting] == [CHUNK]
    device.finish()
    assert [t.urb.length for t in device.waiting] == [CHUNK] * DEPTH


def test_a_server_that_takes_less_gets_less_and_nothing_is_lost() -> None:
    outbox, device = slow_outbox()
    data = bytes(range(256)) * 64
    outbox.write(data, 0)
    assert device.finish(-EMSGSIZE) == data[:4096]
    assert device.finish(-EMSGSIZE) == data[:2048]
    sent = b""
    while device.waiting:
        assert all(t.urb.length <= 1024 for t in device.waiting)
        sent += device.finish()
    assert sent == data


def test_a_write_takes_what_there_is_room_for() -> None:
    outbox, device = slow_outbox()
    assert outbox.write(bytes(CAPACITY + 5), 0) == CAPACITY
    assert outbox.write(b"x", 0.01) == 0
    device.finish()
    assert outbox.write(b"x", 0.01) == 1


def test_a_write_that_waits_can_be_cancelled() -> None:
    outbox, _ = slow_outbox()
    taken: list[int] = []
    thread = threading.Thread(target=lambda: taken.append(outbox.write(bytes(CAPACITY + 5), None)))
    thread.start()
    wait_until("the outbox is full", lambda: len(outbox) == CAPACITY)
    outbox.cancel()
    thread.join()
    assert taken == [CAPACITY]


def test_flow_control_takes_nothing_in() -> None:
    outbox, device = slow_outbox(stopped=True)
    assert outbox.write(b"abc", 0.01) == 0
    assert not device.waiting


def test_an_error_of_earlier_data_is_reported_once() -> None:
    outbox, device = slow_outbox()
    outbox.write(b"abc", 0)
    device.finish(-EPIPE)
    with pytest.raises(TransferFailed, match="EPIPE"):
        outbox.write(b"def", 0)
    assert outbox.write(b"def", 0) == 3


def test_draining_gives_up_when_nothing_moves() -> None:
    outbox, device = slow_outbox()
    outbox.write(b"abc", 0)
    assert not outbox.drain(0.01)
    device.finish()
    assert outbox.drain(0)


def test_purging_takes_back_what_flies() -> None:
    outbox, device = slow_outbox()
    outbox.write(bytes(CAPACITY), 0)
    outbox.purge()
    assert device.cancelled == device.waiting
    assert len(outbox) == CHUNK


def test_a_device_that_comes_back_gets_only_new_data() -> None:
    outbox, _ = slow_outbox()
    outbox.write(bytes(CAPACITY), 0)
    outbox.attach(None)
    assert outbox.write(b"x", 0.01) == 0
    other = Slow()
    outbox.attach(other, OUT)
    assert outbox.write(b"new", 0) == 3
    assert other.finish() == b"new"
