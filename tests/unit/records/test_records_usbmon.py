"""`records.usbmon`: each field of each kind of event, and what becomes of too much data."""

from __future__ import annotations

from struct import unpack_from

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.errors import CaptureError
from usbip_capture.records.usbmon import (
    HEADER_SIZE,
    MAX_ISO_DESCRIPTORS,
    OWN_BUFFER,
    IsoDescriptor,
    UsbmonPacker,
    UsbmonRecord,
)
from usbip_capture.usb.urb import Buffer, Completion, IsoPacket, TransferType, Urb

CTL, INT, BLK, ISO = TransferType.CONTROL, TransferType.INTERRUPT, TransferType.BULK, TransferType.ISOCHRONOUS
TIME = 1_700_000_001_234_567_891
MAX_CAPTURED = 262_144 - 32

GET_DEVICE = bytes.fromhex("8006000100004000")
SET_CONFIG = bytes.fromhex("0009010000000000")
SET_REPORT = bytes.fromhex("2109000200000100")


def pack(
    urb: Urb,
    completion: Completion | None = None,
    snaplen: int = 262_144,
    comments: tuple[str, ...] = (),
    urb_id: int = 7,
    busnum: int = 1,
    devnum: int = 2,
) -> list[Buffer]:
    """The buffers of one block; they hold what the packer reports."""
    out: list[Buffer] = []
    packer = UsbmonPacker(3, snaplen, busnum, devnum)
    if completion is None:
        size = packer.submit(out, TIME, urb_id, urb, urb.data, comments)
    else:
        size = packer.complete(out, TIME, urb_id, urb, completion, comments)
    assert size == sum(map(len, out))
    return out


def record(block: list[Buffer]) -> tuple[bytes, int]:
    """The captured bytes of a block, and the original length; the block's own lengths are right."""
    raw = b"".join(block)
    kind, total, interface, high, low, captured, original = unpack_from("<7I", raw)
    assert (kind, interface) == (6, 3)
    assert (high << 32) + low == TIME
    assert total == len(raw) == int.from_bytes(raw[-4:], "little")
    assert not total % 4
    assert total <= 262_144
    return raw[28 : 28 + captured], original


def event(urb: Urb, completion: Completion | None = None) -> UsbmonRecord:
    return UsbmonRecord.parse(record(pack(urb, completion))[0])


def iso_urb(
    endpoint: int, count: int, slot: int, data: bytes = b"", flags: int = 0, interval: int = 1, start_frame: int = 0
) -> Urb:
    packets = [IsoPacket(n * slot, slot) for n in range(count)]
    return Urb(ISO, endpoint, count * slot, data, bytes(8), flags, interval, start_frame, packets)


def iso_done(urb: Urb, actual: list[int], status: list[int] | None = None, start_frame: int = 0) -> Completion:
    """The packets of a reply, packed as the wire has them; packet n is filled with n + 1."""
    packets = [
        IsoPacket(p.offset, p.length, size, code)
        for p, size, code in zip(urb.packets, actual, status or [0] * len(actual), strict=True)
    ]
    data = b"".join(bytes([n + 1]) * size for n, size in enumerate(actual)) if urb.endpoint & 0x80 else b""
    return Completion(0, sum(actual), data, start_frame, 0, packets)


def test_every_byte_of_a_control_submit() -> None:
    urb = Urb(CTL, 0x80, 0x40, b"", GET_DEVICE, flags=0x200)
    raw, original = record(pack(urb, urb_id=0x1112131415161718, busnum=0x2122, devnum=0x31))
    assert raw == bytes.fromhex(
        "1817161514131211"  # id
        "53 02 80 31 2221"  # 'S', control, epnum, devnum, busnum
        "00 3c"  # flag_setup: a setup follows; flag_data: '<'
        "01f1536500000000"  # ts_sec
        "47940300"  # ts_usec 234567
        "8dffffff"  # status -115
        "40000000 00000000"  # length, len_cap
        "8006000100004000"  # setup
        "00000000 00000000"  # interval, start_frame
        "00020000 00000000"  # xfer_flags, ndesc
    )
    assert original == 64


def test_every_byte_of_an_isochronous_completion() -> None:
    urb = iso_urb(0x81, 2, 4, interval=4, start_frame=5, flags=0x202)
    done = iso_done(urb, [3, 2], [0, -71], start_frame=0x01020304)
    done.error_count = 1
    raw, original = record(pack(urb, done))
    assert raw == bytes.fromhex(
        "0700000000000000"
        "43 00 81 02 0100"  # 'C', isochronous
        "2d 00"  # flag_setup '-', flag_data: data is there
        "01f1536500000000 47940300"
        "00000000"  # status
        "05000000 26000000"  # length: sum of packets; len_cap: 2 * 16 + 6
        "01000000 02000000"  # error_count, number_of_packets
        "04000000 04030201"  # interval, start_frame of the reply
        "02020000 02000000"  # xfer_flags, ndesc
        "00000000 00000000 03000000 00000000"
        "b9ffffff 04000000 02000000 00000000"
        "010101 00 0202"  # the buffer, with its gap
    )
    assert original == 64 + 32 + 6


# One row is one event of the reference: the URB, its completion (None: submit), then epnum, flag_setup, flag_data,
# status, length, len_cap, setup, interval, xfer_flags, data.
SHOWN = [
    (Urb(CTL, 0x80, 64, b"", GET_DEVICE, 0x200), None, (0x80, 0, 60, -115, 64, 0, GET_DEVICE, 0, 0x200, b"")),
    (Urb(CTL, 0x80, 64, b"", GET_DEVICE, 0x200), Completion(0, 18, b"d" * 18),
     (0x80, 45, 0, 0, 18, 18, bytes(8), 0, 0x200, b"d" * 18)),
    (Urb(CTL, 0x80, 64, b"", GET_DEVICE, 0x200), Completion(-32), (0x80, 45, 0, -32, 0, 0, bytes(8), 0, 0x200, b"")),
    (Urb(CTL, 0x00, 0, b"", SET_CONFIG), None, (0, 0, 0, -115, 0, 0, SET_CONFIG, 0, 0, b"")),
    (Urb(CTL, 0x00, 0, b"", SET_CONFIG), Completion(0), (0, 45, 62, 0, 0, 0, bytes(8), 0, 0, b"")),
    (Urb(CTL, 0x00, 1, b"\5", SET_REPORT, 4), None, (0, 0, 0, -115, 1, 1, SET_REPORT, 0, 4, b"\5")),
    (Urb(CTL, 0x00, 1, b"\5", SET_REPORT, 4), Completion(0, 1), (0, 45, 62, 0, 1, 0, bytes(8), 0, 4, b"")),
    (Urb(INT, 0x81, 8, flags=0x204, interval=64), None, (0x81, 45, 60, -115, 8, 0, bytes(8), 64, 0x204, b"")),
    (Urb(INT, 0x81, 8, flags=0x204, interval=64), Completion(0, 8, b"k" * 8),
     (0x81, 45, 0, 0, 8, 8, bytes(8), 64, 0x204, b"k" * 8)),
    (Urb(INT, 0x81, 8, flags=0x204, interval=64), Completion(-108),
     (0x81, 45, 0, -108, 0, 0, bytes(8), 64, 0x204, b"")),
    (Urb(BLK, 0x02, 31, b"c" * 31, flags=4), None, (2, 45, 0, -115, 31, 31, bytes(8), 0, 4, b"c" * 31)),
    (Urb(BLK, 0x02, 31, b"c" * 31, flags=4), Completion(0, 31), (2, 45, 62, 0, 31, 0, bytes(8), 0, 4, b"")),
    (Urb(BLK, 0x81, 4096, flags=0x201), None, (0x81, 45, 60, -115, 4096, 0, bytes(8), 0, 0x201, b"")),
    (Urb(BLK, 0x81, 4096, flags=0x201), Completion(0, 4096, b"s" * 4096),
     (0x81, 45, 0, 0, 4096, 4096, bytes(8), 0, 0x201, b"s" * 4096)),
    (Urb(BLK, 0x81, 4096, flags=0x200), Completion(-2), (0x81, 45, 0, -2, 0, 0, bytes(8), 0, 0x200, b"")),
    (Urb(BLK, 0x81, 4096, flags=0x200), Completion(-104, 3, b"abc"),
     (0x81, 45, 0, -104, 3, 3, bytes(8), 0, 0x200, b"abc")),
    (Urb(BLK, 0x81, 4, flags=0x200), Completion(-75, 4, b"abcd"),
     (0x81, 45, 0, -75, 4, 4, bytes(8), 0, 0x200, b"abcd")),
]  # fmt: skip


@pytest.mark.parametrize(("urb", "completion", "expected"), SHOWN)
def test_events_of_the_reference(urb: Urb, completion: Completion | None, expected: tuple[object, ...]) -> None:
    got = event(urb, completion)
    assert (
        got.epnum, got.flag_setup, got.flag_data, got.status, got.length, got.len_cap, got.setup, got.interval,
        got.xfer_flags, got.data,
    ) == expected  # fmt: skip
    assert got.type == ord("S" if completion is None else "C")
    assert (got.xfer_type, got.busnum, got.devnum, got.id) == (urb.transfer_type, 1, 2, 7)
    assert (got.ts_sec, got.ts_usec) == (1_700_000_001, 234_567)
    assert (got.start_frame, got.ndesc, got.packets) == (0, 0, [])
    raw, original = record(pack(urb, completion))
    assert len(raw) == original == 64 + got.len_cap


@pytest.mark.parametrize(
    ("endpoint", "setup", "epnum"),
    [
        (0x00, "8006000100001200", 0x80),  # the PDU's direction does not count
        (0x80, "8006000100000000", 0x00),  # nor does bmRequestType without a data stage
        (0x80, "0009010000000000", 0x00),
        (0x00, "c0010000000000ff", 0x80),
        (0x80, "21200000000007 00", 0x00),
    ],
)
def test_inward_control_is_what_has_data_to_the_host(endpoint: int, setup: str, epnum: int) -> None:
    urb = Urb(CTL, endpoint, 0, b"", bytes.fromhex(setup), flags=0x200 if endpoint else 0)
    for got in (event(urb), event(urb, Completion(0))):
        assert got.epnum == epnum
        assert got.xfer_flags == (0x200 if epnum else 0)


@pytest.mark.parametrize(
    ("endpoint", "flags", "shown"),
    [
        (0x81, 0x00000, 0x200),
        (0x81, 0x40201, 0x201),  # the map flag belongs to the wire
        (0x02, 0x40240, 0x040),  # so does a direction that the endpoint does not have
        (0x02, 0x000C0, 0x0C0),
    ],
)
def test_xfer_flags(endpoint: int, flags: int, shown: int) -> None:
    urb = Urb(BLK, endpoint, 0, flags=flags)
    assert event(urb).xfer_flags == event(urb, Completion(0)).xfer_flags == shown


@pytest.mark.parametrize(
    ("interval", "shown"), [(0, 0), (1, 1), (10, 8), (64, 64), (255, 128), (32768, 32768), (-1, -1)]
)
@pytest.mark.parametrize("kind", list(TransferType))
def test_interval_is_a_power_of_two_where_there_is_one(kind: TransferType, interval: int, shown: int) -> None:
    urb = Urb(kind, 0x81, 0, interval=interval)
    periodic = kind in (INT, ISO)
    assert event(urb).interval == event(urb, Completion(0)).interval == (shown if periodic else 0)


@pytest.mark.parametrize(
    ("flags", "endpoint", "status", "actual", "shown"),
    [
        (0x201, 0x81, 0, 3, -121),
        (0x201, 0x81, 0, 8, 0),
        (0x200, 0x81, 0, 3, 0),
        (0x201, 0x81, -32, 3, -32),
        (0x001, 0x02, 0, 3, 0),
    ],
)
def test_short_not_ok(flags: int, endpoint: int, status: int, actual: int, shown: int) -> None:
    inward = endpoint & 0x80
    urb = Urb(BLK, endpoint, 8, b"" if inward else bytes(8), flags=flags)
    got = event(urb, Completion(status, actual, b"x" * actual if inward else b""))
    assert (got.status, got.length) == (shown, actual)
    assert got.data == (b"x" * actual if inward else b"")


def test_short_not_ok_means_nothing_to_isochronous() -> None:
    urb = iso_urb(0x81, 2, 8, flags=0x201)
    assert event(urb, iso_done(urb, [3, 3])).status == 0


def test_fields_of_others_do_not_leak_in() -> None:
    urb = Urb(INT, 0x81, 8, setup=b"\xff" * 8, start_frame=-1)
    assert (event(urb).setup, event(urb).start_frame) == (bytes(8), 0)
    done = Completion(0, 8, bytes(8), start_frame=5, error_count=6)
    assert (event(urb, done).setup, event(urb, done).start_frame) == (bytes(8), 0)


@pytest.mark.parametrize(("devnum", "shown"), [(0, 0), (1, 1), (127, 127), (255, 255), (256, 1), (511, 1), (510, 255)])
def test_device_numbers_fit_in_their_byte(devnum: int, shown: int) -> None:
    raw, _ = record(pack(Urb(BLK, 0x81, 0), devnum=devnum, busnum=0x12345))
    assert (UsbmonRecord.parse(raw).devnum, UsbmonRecord.parse(raw).busnum) == (shown, 0x2345)


# -- isochronous


def test_iso_out() -> None:
    urb = iso_urb(0x01, 6, 192, bytes(range(256)) * 4 + bytes(128), interval=1, flags=4, start_frame=77)
    got = event(urb)
    assert (got.length, got.len_cap, got.iso_counts, got.ndesc) == (1152, 1248, (0, 6), 6)
    assert (got.interval, got.start_frame, got.flag_data, got.xfer_flags) == (1, 77, 0, 4)
    assert got.packets == [IsoDescriptor(-18, n * 192, 192) for n in range(6)]
    assert got.data == urb.data
    got = event(urb, iso_done(urb, [192] * 6, start_frame=127))
    assert (got.status, got.length, got.len_cap, got.start_frame, got.flag_data) == (0, 1152, 96, 127, ord(">"))
    assert got.packets == [IsoDescriptor(0, n * 192, 192) for n in range(6)]
    assert got.data == b""


def test_iso_in_shows_the_buffer_with_its_gaps() -> None:
    urb = iso_urb(0x81, 8, 32, flags=0x204)
    got = event(urb)
    assert (got.length, got.len_cap, got.flag_data, got.data) == (256, 128, ord("<"), b"")
    actual = [20, 24, 0, 20, 24, 32, 32, 24]
    block = pack(urb, iso_done(urb, actual, start_frame=9544))
    raw, original = record(block)
    got = UsbmonRecord.parse(raw)
    assert (got.length, got.len_cap, got.iso_counts, got.start_frame) == (176, 376, (0, 8), 9544)
    assert got.packets == [IsoDescriptor(0, n * 32, size) for n, size in enumerate(actual)]
    assert got.data == b"".join((bytes([n + 1]) * size).ljust(32, b"\0") for n, size in enumerate(actual))[:248]
    assert original == len(raw) == 64 + 376


def test_iso_in_with_nothing_in_it() -> None:
    urb = iso_urb(0x81, 3, 32)
    got = event(urb, iso_done(urb, [0, 0, 0], [-71, -18, 0]))
    assert (got.len_cap, got.flag_data, got.data) == (48, 0, b"")
    assert [p.status for p in got.packets] == [-71, -18, 0]


@pytest.mark.parametrize("completion", [Completion(-104), Completion(-2), Completion(-22)])
@pytest.mark.parametrize("endpoint", [0x81, 0x01])
def test_iso_that_was_unlinked(completion: Completion, endpoint: int) -> None:
    urb = iso_urb(endpoint, 4, 8, b"" if endpoint & 0x80 else bytes(32))
    got = event(urb, completion)
    assert (got.status, got.length, got.len_cap, got.ndesc) == (completion.status, 0, 64, 4)
    assert got.packets == [IsoDescriptor(-18, n * 8, 0) for n in range(4)]


def test_iso_replies_with_other_offsets_keep_those_of_the_request() -> None:
    urb = iso_urb(0x81, 2, 8)
    done = Completion(0, 8, b"aaaabbbb", packets=[IsoPacket(0, 0, 4, 0), IsoPacket(0, 0, 4, 0)])
    got = event(urb, done)
    assert got.packets == [IsoDescriptor(0, 0, 4), IsoDescriptor(0, 8, 4)]
    assert got.data == b"aaaa\0\0\0\0bbbb"


def test_more_than_128_packets() -> None:
    urb = iso_urb(0x81, 200, 8)
    got = event(urb)
    assert (got.ndesc, got.iso_counts, got.len_cap, got.length) == (MAX_ISO_DESCRIPTORS, (0, 200), 128 * 16, 1600)
    block = pack(urb, iso_done(urb, [4] * 200))
    raw, original = record(block)
    got = UsbmonRecord.parse(raw)
    assert (got.ndesc, got.iso_counts, got.length) == (128, (0, 200), 800)
    assert len(got.data) == 127 * 8 + 4
    assert original == len(raw) == 64 + 128 * 16 + len(got.data)


@pytest.mark.parametrize(
    "packets",
    [
        [IsoPacket(0xFFFF_FF00, 8), IsoPacket(8, 8)],  # not in the buffer: no 4 GiB for it
        [IsoPacket(0, 8), IsoPacket(14, 8)],
    ],
)
def test_iso_packets_outside_of_the_buffer(packets: list[IsoPacket]) -> None:
    urb = Urb(ISO, 0x81, 16, packets=packets)
    done = Completion(0, 16, b"a" * 16, packets=[IsoPacket(p.offset, 8, 8, 0) for p in packets])
    assert event(urb, done).data == b"a" * 16


def test_iso_packets_of_more_than_came() -> None:
    urb = iso_urb(0x81, 2, 8)
    done = Completion(0, 3, b"abc", packets=[IsoPacket(0, 8, 8, 0), IsoPacket(8, 8, 8, 0)])
    assert event(urb, done).data == b"abc"


# -- limits


@pytest.mark.parametrize(
    ("size", "snaplen", "captured"),
    [
        (1000, 262_144, 1064),
        (262_144, 262_144, MAX_CAPTURED),
        (4 << 20, 1 << 30, MAX_CAPTURED),
        (MAX_CAPTURED - 64, 262_144, MAX_CAPTURED),
        (MAX_CAPTURED - 63, 262_144, MAX_CAPTURED),
        (1000, 1064, 1064),
        (1000, 1063, 1063),
        (1000, 65, 65),
        (1000, 64, 64),
        (1000, 40, 40),
    ],
)
@pytest.mark.parametrize("inward", [True, False])
def test_captured_and_original_length(size: int, snaplen: int, captured: int, inward: bool) -> None:
    data = bytes(range(250)) * (size // 250 + 1)
    data = data[:size]
    urb = Urb(BLK, 0x81, size) if inward else Urb(BLK, 0x02, size, data)
    raw, original = record(pack(urb, Completion(0, size, data) if inward else None, snaplen))
    assert (len(raw), original) == (captured, 64 + size)
    if captured >= 64:
        got = UsbmonRecord.parse(raw)
        assert (got.len_cap, got.length, got.data) == (captured - 64, size, data[: captured - 64])
    raw, original = record(pack(urb, None if inward else Completion(0, size), snaplen))
    assert (len(raw), original) == (min(snaplen, 64), 64)


@pytest.mark.parametrize("text", ["x", "four", "ü" * 500, "y" * 100_000])
def test_comments_take_their_room_from_the_data(text: str) -> None:
    urb = Urb(BLK, 0x81, 300_000)
    block = pack(urb, Completion(0, 300_000, bytes(300_000)), comments=(text, "second"))
    raw, original = record(block)
    kept = text.encode()[:4096]
    options = 4 + (len(kept) + 3) // 4 * 4 + 4 + 8 + 4
    assert (len(raw), original) == (262_144 - 32 - options, 300_064)
    assert sum(map(len, block)) == 262_144
    code, size = unpack_from("<HH", block[-1], len(block[-1]) - 4 - options)
    assert (code, size) == (1, len(kept))


@pytest.mark.parametrize(
    ("snaplen", "ndesc", "data"),
    [(64 + 80 + 7, 5, 7), (64 + 80, 5, 0), (64 + 79, 4, 0), (64 + 16, 1, 0), (64 + 15, 0, 0), (64, 0, 0)],
)
def test_descriptors_are_cut_as_a_whole(snaplen: int, ndesc: int, data: int) -> None:
    urb = iso_urb(0x01, 5, 10, b"d" * 50)
    raw, original = record(pack(urb, snaplen=snaplen))
    got = UsbmonRecord.parse(raw)
    assert (got.ndesc, len(got.packets), len(got.data)) == (ndesc, ndesc, data)
    assert got.len_cap == len(raw) - 64 == 16 * ndesc + data
    assert (got.iso_counts, original) == ((0, 5), 64 + 80 + 50)


def test_original_length_of_isochronous_is_that_of_the_buffer_shown() -> None:
    urb = iso_urb(0x81, 2, 100)
    raw, original = record(pack(urb, iso_done(urb, [4, 5]), snaplen=100))
    assert (len(raw), original) == (100, 64 + 32 + 105)


def test_large_data_is_handed_on_as_it_is() -> None:
    data = bytearray(OWN_BUFFER)
    urb = Urb(BLK, 0x02, len(data), data)
    assert pack(urb)[1] is data
    assert len(pack(Urb(BLK, 0x02, OWN_BUFFER - 1, bytes(OWN_BUFFER - 1)))) == 1


def test_original_length_is_true_where_data_is_missing_and_never_below_the_captured() -> None:
    urb = Urb(BLK, 0x81, 100)
    raw, original = record(pack(urb, Completion(0, 80, b"lost")))
    assert (len(raw), original) == (68, 144)
    raw, original = record(pack(urb, Completion(0, 2, b"more")))
    assert (len(raw), original) == (68, 68)


# -- reading


@pytest.mark.parametrize("size", [0, 1, 63])
def test_parse_needs_a_header(size: int) -> None:
    with pytest.raises(CaptureError, match=f"{size} bytes"):
        UsbmonRecord.parse(bytes(size))


@given(st.binary(min_size=HEADER_SIZE, max_size=HEADER_SIZE + 70))
def test_parse_takes_anything(raw: bytes) -> None:
    got = UsbmonRecord.parse(raw)
    assert len(got.packets) <= (len(raw) - HEADER_SIZE) // 16
    assert len(got.packets) == got.ndesc or not got.data


@st.composite
def urbs(draw: st.DrawFn) -> tuple[Urb, Completion]:
    kind = draw(st.sampled_from(TransferType))
    inward = draw(st.booleans())
    sizes = draw(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=140)) if kind == ISO else []
    length = sum(slot for slot, _ in sizes) if kind == ISO else draw(st.integers(0, 300))
    packets, offset = [], 0
    for slot, actual in sizes:
        packets.append(IsoPacket(offset, slot, min(slot, actual), draw(st.sampled_from([0, -71, -18]))))
        offset += slot
    actual_length = sum(p.actual_length for p in packets) if kind == ISO else draw(st.integers(0, length))
    data = draw(st.binary(min_size=length, max_size=length))
    setup = bytes([0x80 if inward else 0, 9, 1, 2, 3, 4]) + length.to_bytes(2, "little")
    endpoint = draw(st.integers(1, 15)) if kind != CTL else 0
    urb = Urb(
        kind,
        endpoint | (0x80 if inward and (length or kind != CTL) else 0),
        length,
        b"" if inward else data,
        setup if kind == CTL else bytes(8),
        draw(st.integers(0, 0xFFFF)),
        draw(st.integers(0, 1 << 20)),
        draw(st.integers(-(1 << 31), (1 << 31) - 1)),
        packets,
    )
    status = draw(st.sampled_from([0, -32, -71, -104, -108]))
    received = data[:actual_length] if inward else b""
    return urb, Completion(status, actual_length, received, draw(st.integers(0, 4096)), 0, packets)


@given(urbs())
def test_what_is_packed_is_read_back(pair: tuple[Urb, Completion]) -> None:
    urb, completion = pair
    inward = urb.endpoint & 0x80
    shown = urb.packets[:128]
    submit, complete = event(urb), event(urb, completion)
    for got in (submit, complete):
        assert (got.epnum, got.xfer_type, got.ndesc) == (urb.endpoint, urb.transfer_type, len(shown))
        assert got.len_cap == 16 * got.ndesc + len(got.data)
    assert (submit.length, submit.status) == (urb.length, -115)
    assert submit.data == (b"" if inward else urb.data)
    assert submit.packets == [(-18, p.offset, p.length) for p in shown]
    assert complete.length == completion.actual_length
    assert complete.packets == [(p.status, p.offset, p.actual_length) for p in shown]
    if urb.transfer_type != ISO:
        assert complete.data == completion.data
    elif inward:
        rest = bytes(completion.data)
        for packet in shown:
            assert complete.data[packet.offset : packet.offset + packet.actual_length] == rest[: packet.actual_length]
            rest = rest[packet.actual_length :]
