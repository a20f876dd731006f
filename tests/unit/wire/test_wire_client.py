"""`wire.client`: framing by the pending table, unlink races, hostile lengths."""

from __future__ import annotations

from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.errors import LocalProtocolError, RemoteProtocolError
from usbip_capture.usb.status import ECONNRESET, EPIPE, EXDEV
from usbip_capture.usb.urb import Completion, IsoPacket, TransferType, Urb
from usbip_capture.wire import structs
from usbip_capture.wire.client import MAX_GHOSTS, OWN_BUFFER, ClientConnection

DEVID = 0x0001_0002
SETUP = bytes.fromhex("8006000100001200")
NOTHING = (0, 0, 0)


def ret_submit(
    seqnum: int, status: int = 0, actual: int = 0, npk: int = 0, body: bytes = b"", *, base: tuple[int, ...] = NOTHING
) -> bytes:
    return structs.RET_SUBMIT.pack(3, seqnum, *base, status, actual, 7, npk, 1) + body


def ret_unlink(seqnum: int, status: int) -> bytes:
    return structs.RET_UNLINK.pack(4, seqnum, 0, 0, 0, status)


def bulk_in(length: int) -> Urb:
    return Urb(TransferType.BULK, 0x81, length)


def iso_in() -> Urb:
    return Urb(TransferType.ISOCHRONOUS, 0x83, 96, packets=[IsoPacket(0, 32), IsoPacket(32, 32), IsoPacket(64, 32)])


def connection() -> ClientConnection:
    return ClientConnection(DEVID)


def summary(events: list[tuple[str, Completion]]) -> list[tuple[str, int, int, bytes, list[IsoPacket]]]:
    return [(name, c.status, c.actual_length, bytes(c.data), list(c.packets)) for name, c in events]


def test_submit_in_carries_every_field_at_its_place() -> None:
    conn = connection()
    urb = Urb(TransferType.INTERRUPT, 0x8A, 0x1314, flags=0x01020304, interval=0x31323334, start_frame=0x41424344)
    seqnum, parts = conn.submit(urb, "x")
    assert seqnum == 1
    assert b"".join(bytes(p) for p in parts).hex(" ", 4) == (
        "00000001 00000001 00010002 00000001 0000000a 01020304 00001314 41424344 00000000 31323334 00000000 00000000"
    )


def test_what_is_given_up_keeps_no_memory_of_its_owner() -> None:
    conn = connection()
    data = bytearray(1000)
    conn.submit(Urb(TransferType.BULK, 0x02, 1000, memoryview(data)), "x")
    assert conn.forget("x")
    data.append(0)  # not possible while it is looked at
    assert conn.receive_data(ret_submit(1, actual=1000)) == []
    assert not conn.in_message()


def test_memory_of_an_owner_gets_its_own_data_only() -> None:
    """Another URB was submitted, and answered first, while one waited with its memory lent."""
    conn = connection()
    mine, other = bytearray(OWN_BUFFER), bytearray(OWN_BUFFER)
    conn.submit(bulk_in(OWN_BUFFER), "mine", memoryview(mine))
    buffers = conn.scatter("mine")
    assert buffers is not None
    conn.submit(bulk_in(OWN_BUFFER), "other", memoryview(other))
    reply = ret_submit(2, 0, OWN_BUFFER, 0, b"o" * OWN_BUFFER)
    buffers[0][:], buffers[1][:OWN_BUFFER] = reply[:48], reply[48:]
    got: list[tuple[str, bytes]] = []
    conn.scattered(buffers, len(reply), lambda name, done: got.append((name, bytes(done.data))), "mine")
    assert got == [("other", b"o" * OWN_BUFFER)]


def test_what_is_sent_is_not_received_into() -> None:
    """Its reply has no data, and the reply that follows it is somebody else's."""
    conn = connection()
    sent = bytearray(b"s" * OWN_BUFFER)
    conn.submit(Urb(TransferType.BULK, 0x02, OWN_BUFFER, memoryview(sent)), "sent", memoryview(sent))
    assert conn.scatter("sent") is None
    conn.submit(bulk_in(OWN_BUFFER), "read")
    replies = ret_submit(1, 0, OWN_BUFFER) + ret_submit(2, 0, OWN_BUFFER, 0, b"r" * OWN_BUFFER)
    got = []
    for at in range(0, len(replies), 5000):
        piece = replies[at : at + 5000]
        conn.free[: len(piece)] = piece
        sent_done = conn.received(len(piece), lambda name, done: got.append((name, bytes(done.data))), "sent")
        if sent_done is not None:
            got.append(("sent", bytes(sent_done.data)))
    assert got == [("sent", b""), ("read", b"r" * OWN_BUFFER)]
    assert sent == b"s" * OWN_BUFFER


@pytest.mark.parametrize("before", [[], ["other"]], ids=["alone", "after another one"])
@pytest.mark.parametrize("after", [b"", b"\0\0"], ids=["nothing follows", "something follows"])
def test_the_last_reply_of_who_waits_is_returned_and_others_are_delivered(before: list[str], after: bytes) -> None:
    conn = connection()
    conn.submit(bulk_in(8), "mine")
    conn.submit(bulk_in(8), "other")
    data = ret_submit(1, 0, 4, 0, b"mine") + after
    for _ in before:
        data = ret_submit(2, 0, 5, 0, b"other") + data
    delivered: list[tuple[str, bytes]] = []
    conn.free[: len(data)] = data
    returned = conn.received(len(data), lambda name, done: delivered.append((name, bytes(done.data))), "mine")
    if returned is not None:
        delivered.append(("returned", bytes(returned.data)))
    assert delivered == [(name, b"other") for name in before] + [("mine" if after else "returned", b"mine")]
    assert conn.in_message() is bool(after)
    assert conn.pending == 1 - len(before)


def test_divert_keeps_what_has_come() -> None:
    conn = connection()
    mine = bytearray(OWN_BUFFER)
    conn.submit(bulk_in(OWN_BUFFER), "mine", memoryview(mine))
    reply = ret_submit(1, 0, OWN_BUFFER, 0, b"m" * OWN_BUFFER)
    conn.free[:1000] = reply[:1000]
    conn.received(1000, lambda name, done: None, "mine")
    assert conn.borrowed
    conn.divert()
    mine[:] = bytes(OWN_BUFFER)
    ((name, completion),) = conn.receive_data(reply[1000:])
    assert (name, bytes(completion.data)) == ("mine", b"m" * OWN_BUFFER)
    assert not any(mine)


def test_what_close_has_to_unlink() -> None:
    conn = connection()
    for name in ("a", "b", "c"):
        conn.submit(bulk_in(8), name)
    conn.unlink("b")
    assert (conn.not_unlinked(), conn.unanswered_unlinks) == (["a", "c"], 1)
    conn.receive_data(ret_unlink(4, -ECONNRESET))
    assert (conn.pending, conn.unanswered_unlinks) == (2, 0)


def test_a_server_that_answers_no_unlink_costs_no_memory() -> None:
    conn = connection()
    for _ in range(3 * MAX_GHOSTS):
        conn.submit(bulk_in(8), "x")
        assert conn.unlink("x")
        assert conn.forget("x")
    assert max(len(conn._unlinks), len(conn._ghosts)) <= MAX_GHOSTS
    conn.submit(bulk_in(8), "last")
    conn.unlink("last")
    assert [name for name, _ in conn.receive_data(ret_unlink(6 * MAX_GHOSTS + 2, -ECONNRESET))] == ["last"]


def test_submit_out_sends_data_and_setup() -> None:
    urb = Urb.control(bytes.fromhex("21200000000003 00".replace(" ", "")), b"abc")
    _, parts = connection().submit(urb, "x")
    raw = b"".join(bytes(p) for p in parts)
    assert raw[12:20] == bytes(8)  # direction OUT, endpoint 0
    assert raw[40:] == bytes.fromhex("2120000000000300") + b"abc"


def test_iso_out_sends_descriptors_after_the_data() -> None:
    urb = Urb(TransferType.ISOCHRONOUS, 0x02, 4, b"wxyz", packets=[IsoPacket(0, 1), IsoPacket(1, 3)])
    _, parts = connection().submit(urb, "x")
    raw = b"".join(bytes(p) for p in parts)
    assert raw[32:36] == bytes([0, 0, 0, 2])  # number_of_packets
    assert raw[48:52] == b"wxyz"
    assert raw[52:].hex(" ", 4) == "00000000 00000001 00000000 00000000 00000001 00000003 00000000 00000000"


@pytest.mark.parametrize("base", [NOTHING, (DEVID, 1, 1)], ids=["zeroed", "echoed"])
@pytest.mark.parametrize("npk", [0, -1, 12345], ids=["0", "-1", "junk"])
def test_replies_in_any_order_and_dialect(base: tuple[int, ...], npk: int) -> None:
    conn = connection()
    for name in ("a", "b", "c"):
        conn.submit(bulk_in(8), name)
    stream = ret_submit(3, 0, 2, npk, b"33", base=base) + ret_submit(1, -EPIPE, 0, npk, base=base)
    stream += ret_submit(2, 0, 8, npk, b"22222222", base=base)
    assert summary(conn.receive_data(stream)) == [
        ("c", 0, 2, b"33", []),
        ("a", -EPIPE, 0, b"", []),
        ("b", 0, 8, b"22222222", []),
    ]
    assert conn.pending == 0
    assert not conn.in_message()


def test_iso_reply_keeps_the_offsets_of_the_request() -> None:
    conn = connection()
    conn.submit(iso_in(), "iso")
    iso = structs.pack_iso([IsoPacket(0, 32, 3, 0), IsoPacket(0, 32, 0, -EXDEV), IsoPacket(0, 32, 2, 0)])
    ((_, completion),) = conn.receive_data(ret_submit(1, 0, 5, 3, b"abcde" + iso))
    assert completion.packets == [IsoPacket(0, 32, 3, 0), IsoPacket(32, 32, 0, -EXDEV), IsoPacket(64, 32, 2, 0)]
    assert bytes(completion.data) == b"abcde"
    assert (completion.start_frame, completion.error_count) == (7, 1)


def test_iso_refused_as_a_whole() -> None:
    conn = connection()
    conn.submit(iso_in(), "iso")
    conn.submit(bulk_in(1), "next")
    assert summary(conn.receive_data(ret_submit(1, -95) + ret_submit(2, 0, 1, 0, b"n"))) == [
        ("iso", -95, 0, b"", []),
        ("next", 0, 1, b"n", []),
    ]


class TestUnlink:
    """Every order in which a reply and an unlink can cross."""

    @pytest.mark.parametrize("status", [-ECONNRESET, 0, -2], ids=["-104", "0", "-2"])
    def test_any_ret_unlink_ends_a_pending_urb(self, status: int) -> None:
        conn = connection()
        conn.submit(bulk_in(8), "a")
        assert conn.unlink("a") == structs.CMD_UNLINK.pack(2, 2, DEVID, 0, 0, 1)
        assert summary(conn.receive_data(ret_unlink(2, status))) == [("a", -ECONNRESET, 0, b"", [])]

    def test_a_reply_that_won_the_race_counts(self) -> None:
        conn = connection()
        conn.submit(bulk_in(8), "a")
        conn.unlink("a")
        assert summary(conn.receive_data(ret_submit(1, 0, 1, 0, b"1") + ret_unlink(2, 0))) == [("a", 0, 1, b"1", [])]

    def test_a_reply_after_the_unlink_is_framed_and_dropped(self) -> None:
        conn = connection()
        conn.submit(bulk_in(8), "a")
        conn.submit(bulk_in(8), "b")
        conn.unlink("a")
        stream = ret_unlink(3, 0) + ret_submit(1, 0, 3, 0, b"old") + ret_submit(2, 0, 3, 0, b"new")
        assert [name for name, _ in conn.receive_data(stream)] == ["a", "b"]

    def test_a_second_ret_unlink_is_ignored(self) -> None:
        conn = connection()
        conn.submit(bulk_in(8), "a")
        conn.unlink("a")
        assert len(conn.receive_data(ret_unlink(2, 0) + ret_unlink(2, -ECONNRESET))) == 1

    def test_forgotten_urbs_may_still_be_answered(self) -> None:
        conn = connection()
        conn.submit(bulk_in(64 << 10), "a")
        assert conn.forget("a")
        assert not conn.forget("a")
        assert conn.receive_data(ret_submit(1, 0, 40000, 0, bytes(40000))) == []
        assert not conn.in_message()

    def test_unlinked_iso_packets_have_exdev(self) -> None:
        conn = connection()
        conn.submit(iso_in(), "iso")
        conn.unlink("iso")
        ((_, completion),) = conn.receive_data(ret_unlink(2, -ECONNRESET))
        assert [p.status for p in completion.packets] == [-EXDEV] * 3

    def test_nothing_to_unlink(self) -> None:
        assert connection().unlink("a") is None


HOSTILE = {
    "unknown command": structs.RET_SUBMIT.pack(9, 1, 0, 0, 0, 0, 0, 0, 0, 0),
    "a request": structs.RET_SUBMIT.pack(1, 1, 0, 0, 0, 0, 0, 0, 0, 0),
    "never sent": ret_submit(77),
    "longer than asked": ret_submit(1, 0, 9),
    "2 GiB": ret_submit(1, 0, 0x7FFFFFFF),
    "negative": ret_submit(1, 0, -1),
    "iso: other packet count": ret_submit(2, 0, 4, 2, bytes(36)),
    "iso: negative packet count with data": ret_submit(2, 0, 4, -1, bytes(4)),
    "iso: packets do not add up": ret_submit(2, 0, 4, 3, b"abcd" + structs.pack_iso([IsoPacket(0, 32, 1)] * 3)),
    "iso: packet too long": ret_submit(2, 0, 33, 3, bytes(33) + structs.pack_iso([IsoPacket(0, 32, 33)] * 3)),
}


@pytest.mark.parametrize("stream", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_replies_raise_after_what_was_good(stream: bytes) -> None:
    conn = connection()
    conn.submit(bulk_in(8), "bulk")
    conn.submit(iso_in(), "iso")
    conn.submit(bulk_in(8), "good")
    got: list[str] = []
    data = ret_submit(3, 0, 2, 0, b"ok") + stream
    conn.free[: len(data)] = data
    with pytest.raises(RemoteProtocolError):
        conn.received(len(data), lambda name, completion: got.append(name))
    assert got == ["good"]


@pytest.mark.parametrize(
    "urb",
    [
        Urb(TransferType.BULK, 0x01, 5, b"four"),
        Urb(TransferType.BULK, 0x81, structs.MAX_TRANSFER + 1),
        Urb(TransferType.BULK, 0x81, -1),
        Urb(TransferType.ISOCHRONOUS, 0x81, 0, packets=[IsoPacket(0, 0)] * (structs.MAX_ISO_PACKETS + 1)),
    ],
    ids=["data and length differ", "over 4 MiB", "negative", "too many packets"],
)
def test_impossible_urbs_are_refused_here(urb: Urb) -> None:
    conn = connection()
    with pytest.raises(LocalProtocolError):
        conn.submit(urb, "x")
    assert conn.pending == 0


SIZES = st.lists(st.sampled_from([0, 1, 13, 512, OWN_BUFFER - 1, OWN_BUFFER, 70_000, 300_000]), min_size=1, max_size=6)


@given(sizes=SIZES, cuts=st.lists(st.integers(0, 10**6), max_size=12), data=st.data())
def test_any_cut_gives_the_same_events(sizes: list[int], cuts: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(sizes) + 1)))
    packets = [IsoPacket(0, 32, 3, 0), IsoPacket(0, 32, 0, -EXDEV), IsoPacket(0, 32, 2, 0)]
    iso_body = b"abcde" + structs.pack_iso(packets)

    def fresh() -> ClientConnection:
        conn = connection()
        for size in sizes:
            conn.submit(bulk_in(300_000), str(size))
        conn.submit(iso_in(), "iso")
        return conn

    messages = [ret_submit(i + 1, 0, size, 0, bytes([i]) * size) for i, size in enumerate(sizes)]
    messages.append(ret_submit(len(sizes) + 1, 0, 5, 3, iso_body))
    stream = b"".join(messages[i] for i in order)
    whole = fresh()
    expected = summary(whole.receive_data(stream))
    assert len(expected) == len(messages)

    conn, got = fresh(), []
    edges = sorted({min(c, len(stream)) for c in cuts} | {0, len(stream)})
    for start, end in pairwise(edges):
        got += conn.receive_data(stream[start:end])
    assert summary(got) == expected
    assert not conn.in_message()


@given(st.binary(max_size=400))
def test_garbage_raises_only_remote_protocol_error(garbage: bytes) -> None:
    conn = connection()
    conn.submit(bulk_in(8), "a")
    conn.submit(iso_in(), "b")
    try:
        conn.receive_data(garbage)
    except RemoteProtocolError:
        pass


def test_large_bodies_are_not_copied() -> None:
    conn = connection()
    conn.submit(bulk_in(100_000), "a")
    header = ret_submit(1, 0, 100_000)
    conn.free[: len(header)] = header
    conn.received(len(header), lambda name, completion: None)
    target = conn.free
    assert len(target) == 100_000
    target[:] = b"x" * 100_000
    got: list[Completion] = []
    conn.received(100_000, lambda name, completion: got.append(completion))
    assert isinstance(got[0].data, memoryview)
    assert got[0].data.obj is target.obj


def test_sequence_numbers_begin_again_and_leave_out_those_in_use() -> None:
    conn = connection()
    conn.submit(bulk_in(1), "first")
    conn._numbers = count(0xFFFFFFFF)
    assert [conn.submit(bulk_in(1), name)[0] for name in "ab"] == [0xFFFFFFFF, 2]
