"""A replayed device against a host that is not quite the one of the recording."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.builders.exchanges import BLOCK, BULK_IN, BULK_OUT, SECOND, Conversation, block, command, success
from usbip_capture.device import Transfer
from usbip_capture.replayed.device import ReplayedDevice
from usbip_capture.usb.setup import clear_halt, set_configuration
from usbip_capture.usb.status import EILSEQ, EPIPE, EREMOTEIO, ESHUTDOWN
from usbip_capture.usb.urb import FLAG_DIR_IN, Completion, TransferType, Urb

TIMEOUT = 30.0


class Host:
    def __init__(self, device: ReplayedDevice) -> None:
        self.device = device

    def run(self, urb: Urb) -> Completion:
        return self.device.run(urb, TIMEOUT)

    def out(self, data: bytes) -> int:
        return self.run(Urb(TransferType.BULK, BULK_OUT, len(data), data)).status

    def inward(self, length: int = BLOCK) -> Completion:
        return self.run(Urb(TransferType.BULK, BULK_IN, length, flags=FLAG_DIR_IN))

    def read(self, tag: int, first: int, count: int) -> bytes:
        """By transfers of one block each."""
        assert self.out(command(tag, 0x28, first, count * BLOCK)) == 0
        data = b"".join(bytes(self.inward().data) for _ in range(count))
        assert bytes(self.inward(13).data) == success(tag)
        return data

    def write(self, tag: int, first: int, content: bytes) -> None:
        assert self.out(command(tag, 0x2A, first, len(content))) == 0
        assert self.out(content) == 0
        assert bytes(self.inward(13).data) == success(tag)

    @property
    def divergences(self) -> list[str]:
        return [str(one) for one in self.device.outcome.divergences]


@contextmanager
def replayed(made: Conversation, match: str = "loose", speed: float = 0.0) -> Iterator[Host]:
    with closing(ReplayedDevice(made.recording(), match=match, speed=speed)) as device:
        host = Host(device)
        assert host.run(Urb.control(set_configuration(1).pack())).status == 0
        yield host


@pytest.fixture
def disk() -> Conversation:
    """Blocks 0 to 7 are read by two commands, 2 and 3 are overwritten, and read again."""
    made = Conversation()
    for first in (0, 4):
        made.read(first, b"".join(map(block, range(first, first + 4))))
    made.write(2, block(102) + block(103))
    made.read(0, b"".join(map(block, (0, 1, 102, 103))))
    return made


def test_blocks_are_read_in_other_pieces(disk: Conversation) -> None:
    with replayed(disk) as host:
        assert host.read(77, 0, 8) == b"".join(map(block, range(8)))
        assert host.read(78, 3, 2) == block(3) + block(4)
        assert host.divergences == []


def test_what_was_written_is_read_in_other_pieces(disk: Conversation) -> None:
    with replayed(disk) as host:
        host.write(5, 2, block(102) + block(103))
        assert host.read(6, 1, 4) == block(1) + block(102) + block(103) + block(4)
        assert host.divergences == []


@pytest.mark.parametrize(
    ("first", "count", "match"), [(7, 2, "loose"), (100, 1, "loose"), (3, 2, "strict")], ids=["end", "beyond", "strict"]
)
def test_blocks_that_are_not_recorded(disk: Conversation, first: int, count: int, match: str) -> None:
    with replayed(disk, match) as host:
        assert host.out(command(9, 0x28, first, count * BLOCK)) == -EPIPE
        assert len(host.divergences) == 1


def test_more_than_there_is_takes_no_memory(disk: Conversation) -> None:
    length, count = 0xFFFFFE00, 0xFFFFFE00 // BLOCK
    read_12 = struct.pack(">BBIIBB4x", 0xA8, 0, 0, count, 0, 0)
    with replayed(disk) as host:
        tracemalloc.start()
        assert host.out(struct.pack("<4sIIBBB16s", b"USBC", 1, length, 0x80, 0, 12, read_12)) == -EPIPE
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


def test_the_status_of_a_write_has_the_tag_of_its_command(disk: Conversation) -> None:
    with replayed(disk) as host:
        host.write(4711, 2, block(102) + block(103))


def test_a_host_that_detaches_is_not_a_fault_of_the_device() -> None:
    made = Conversation()
    made.out(b"ask")
    made.inward(b"answer")
    made.inward(b"", status=-ESHUTDOWN)
    with replayed(made) as host:
        assert host.out(b"ask") == 0
        assert bytes(host.inward().data) == b"answer"
        waiting = Transfer(Urb(TransferType.BULK, BULK_IN, BLOCK, flags=FLAG_DIR_IN))
        host.device.submit(waiting)
        assert waiting.completion is None


def test_an_error_is_one_and_a_halt_lasts() -> None:
    made = Conversation()
    made.out(b"ask")
    made.inward(b"", status=-EILSEQ)
    made.inward(b"answer")
    made.inward(b"", status=-EPIPE)
    made.inward(b"more")
    with replayed(made) as host:
        assert host.out(b"ask") == 0
        assert host.inward().status == -EILSEQ
        assert bytes(host.inward().data) == b"answer"
        assert [host.inward().status for _ in range(2)] == [-EPIPE] * 2
        assert host.run(Urb.control(clear_halt(BULK_IN).pack())).status == 0
        assert bytes(host.inward().data) == b"more"


def test_a_disk_that_refuses_the_data_of_a_command_has_a_status_for_it() -> None:
    """As a drive does with a command that it does not know."""
    made = Conversation()
    made.tag = 7
    made.out(command(7, 0xA1, 0, BLOCK))
    made.out(block(0), status=-EPIPE)
    made.inward(success(7), 13)
    made.read(3, block(3))
    with replayed(made, match="strict") as host:
        assert host.out(command(9, 0xA1, 0, BLOCK)) == 0
        assert host.out(block(0)) == -EPIPE
        assert host.run(Urb.control(clear_halt(BULK_OUT).pack())).status == 0
        assert bytes(host.inward(13).data) == success(9)
        assert host.read(10, 3, 1) == block(3)
        assert host.divergences == []


def test_a_string_that_changes_is_answered_in_turn() -> None:
    made = Conversation()
    texts = [bytes((2 + 2 * len(text), 3)) + text.encode("utf-16-le") for text in ("idle", "busy", "idle again")]
    for text in texts:
        made.control("80 06 0503 0904 ff00", data=text)
    assert made.recording().known.varying == {(0x80, 0x0305, 0x0409)}
    with replayed(made, match="strict") as host:
        read = Urb.control(bytes.fromhex("80 06 0503 0904 ff00"))
        assert [bytes(host.run(read).data) for _ in range(4)] == [*texts, texts[-1]]


def test_a_short_answer_that_its_host_did_not_want_has_its_data() -> None:
    made = Conversation()
    made.out(b"ask")
    made.inward(b"answer", status=-EREMOTEIO)
    with replayed(made) as host:
        assert host.out(b"ask") == 0
        found = host.inward()
        assert (found.status, bytes(found.data)) == (0, b"answer")


def test_a_host_that_is_faster_does_not_wait_for_what_came_before() -> None:
    made = Conversation()
    made.out(b"begin")
    made.now += 3600 * SECOND
    made.inward(b"an hour later")
    made.out(b"ask")
    made.inward(b"answer")
    with replayed(made, speed=1) as host:
        assert host.out(b"begin") == 0
        assert host.out(b"ask") == 0
        assert [bytes(host.inward().data) for _ in range(2)] == [b"an hour later", b"answer"]


def test_an_adapter_that_is_never_silent_is_not_silent_at_the_end() -> None:
    made = Conversation(vid_pid=(0x0403, 0x6001))
    made.inward(b"\x01\x60")
    made.out(b"ask")
    made.inward(b"\x01\x60answer")
    with replayed(made) as host:
        assert host.out(b"ask") == 0
        found = [bytes(host.inward().data) for _ in range(3)]
        assert found == [b"\x01\x60", b"\x01\x60answer", b"\x01\x60"]
