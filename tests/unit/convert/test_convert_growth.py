"""Work for a message does not depend on how many others are held: files of any size are converted in linear time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from struct import Struct

import pytest

from tests.builders.conversion import convert
from tests.builders.tcp_recording import CLIENT, SERVER, START_NS, Segment, pcap, recording, segments
from tests.builders.usbip_sessions import INFO, session
from tests.growth import assert_grows_linearly
from usbip_capture.convert.link import ACK, FIN
from usbip_capture.usb.descriptors import parse_configuration
from usbip_capture.wire import structs

#: Connected, and the device imported.
OPENED = segments(session(rounds=0)[:2], closed=False)
LATER_NS = START_NS + 10**9


def submit(seqnum: int, length: int = 8) -> bytes:
    return structs.CMD_SUBMIT.pack(1, seqnum, INFO.devid, 1, 1, 0, length, 0, 0, 0, bytes(8))


def unlink(seqnum: int, target: int) -> bytes:
    return structs.CMD_UNLINK.pack(2, seqnum, INFO.devid, 0, 0, target)


def answer(seqnum: int, data: bytes = bytes(8)) -> bytes:
    return structs.RET_SUBMIT.pack(3, seqnum, 0, 0, 0, 0, len(data), 0, 0, 0) + data


def client(payload: bytes, at: int = 0, flags: int = ACK) -> Segment:
    """What the client sends, `at` bytes behind the import."""
    begin = (OPENED[-1].seq if OPENED[-1].side == CLIENT else OPENED[-1].ack) + at
    ack = OPENED[-1].ack if OPENED[-1].side == CLIENT else OPENED[-1].seq
    return Segment(CLIENT, begin & 0xFFFFFFFF, ack, payload, flags, LATER_NS)


def server(payload: bytes, at: int = 0, flags: int = ACK) -> Segment:
    other = client(b"")
    return Segment(SERVER, (other.ack + at) & 0xFFFFFFFF, other.seq, payload, flags, LATER_NS)


def unlinks_of_nothing(n: int) -> bytes:
    """CMD_UNLINKs whose URB is not among what is held."""
    raw = b"".join(unlink(1000 + i, 1) for i in range(n))
    return recording([*OPENED, *(client(raw[at : at + 1440], at) for at in range(0, len(raw), 1440))])


def unlinks_that_cross(n: int) -> bytes:
    """URBs, their replies, then a CMD_UNLINK of each, all within the time that is looked back."""
    asked = b"".join(submit(1 + i) for i in range(n))
    given = b"".join(answer(1 + i) for i in range(n))
    back = b"".join(unlink(n + 1 + i, n - i) for i in range(n))
    sent = [client(asked[at : at + 1440], at) for at in range(0, len(asked), 1440)]
    sent += [server(given[at : at + 1400], at) for at in range(0, len(given), 1400)]
    sent += [client(back[at : at + 1440], len(asked) + at) for at in range(0, len(back), 1440)]
    return recording([*OPENED, *sent])


def last_first(n: int) -> bytes:
    return recording([*OPENED, *(client(submit(1 + i), 48 * i) for i in reversed(range(n)))])


def before_all_that_waits(n: int) -> bytes:
    """Segments wait, and each further one goes before them."""
    waiting = [client(b"x", 0x20000000 + i) for i in range(n)]
    return recording([*OPENED, *waiting, *(client(b"x", 1 + 2 * i) for i in range(n))])


def fragments_of_one_packet(n: int) -> bytes:
    """Fragments of 8 bytes, one in the middle missing, of as few packets as it takes."""
    head = Struct(">BBHHHBBH4s4s")
    place = Struct(">HH")
    pieces = []
    for i in range(n):
        number, offset = divmod(i, 8000)
        offset = 7999 - offset
        if offset == 4000:
            continue
        more = 0x2000 if offset < 7999 else 0
        raw = head.pack(0x45, 0, 28, 7 + number, more | offset, 64, 6, 0, bytes(4), bytes(4)) + bytes(8)
        pieces.append((LATER_NS, bytes(12) + place.pack(0x0800, 0)[:2] + raw))
    return pcap(pieces)


def list_in_small_segments(n: int) -> bytes:
    """A list of n devices with 255 interfaces each."""
    device = structs.pack_device(replace(INFO, bNumInterfaces=255)) + bytes(4 * 255)
    listed = structs.OP_COMMON.pack(structs.VERSION, structs.OP_REP_DEVLIST, 0) + structs.DEVLIST_COUNT.pack(n)
    asked = structs.OP_COMMON.pack(structs.VERSION, structs.OP_REQ_DEVLIST, 0)
    return recording(segments([(CLIENT, asked), (SERVER, listed + device * n)], size=300))


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (unlinks_of_nothing, 4000),
        (unlinks_that_cross, 2000),
        (last_first, 6000),
        (before_all_that_waits, 6000),
        (fragments_of_one_packet, 3500),
        (list_in_small_segments, 1000),
    ],
)
def test_converting_grows_linearly(make: Callable[[int], bytes], size: int) -> None:
    def prepare(n: int) -> Callable[[], object]:
        raw = make(n)
        return lambda: convert(raw)

    assert_grows_linearly(prepare, size)


def test_unlinks_that_cross_change_their_completions() -> None:
    got = convert(unlinks_that_cross(300))
    done = [r for r in got.records if r.usb and r.usb.type == ord("C")]
    assert {r.usb.status for r in done if r.usb} == {-104}
    assert len(done) == 300
    assert all(len(r.comments) == 1 for r in done)


def test_ends_that_wait_on_both_sides_do_not_nest() -> None:
    """Each end passes on what the other side has sent before it, and that can be an end too."""
    ends = [make(b"x", 100 + 10 * i, ACK | FIN) for i in range(2000) for make in (client, server)]
    got = convert(recording([*OPENED, *ends]))
    assert got.converter.sessions == 1


@pytest.mark.parametrize(
    "piece", [b"\x02\xff", b"\x09\x04\0\0\0\xff\0\0\0\x02\xff", b"\x07\x05\x81\x02\0\x02\0\x02\xff"]
)
def test_configurations_are_parsed_in_linear_time(piece: bytes) -> None:
    def prepare(n: int) -> Callable[[], object]:
        body = b"\x09\x04\0\0\0\xff\0\0\0" + piece * (n // len(piece))
        raw = b"\x09\x02\xff\xff\x01\x01\0\xc0\x32" + body
        return lambda: [parse_configuration(raw) for _ in range(4)]

    assert_grows_linearly(prepare, 32_000)
