"""`wire.server`: requests in any cut, who wins UNLINK, and what a Linux server would close the connection for."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.demo import device as demo
from usbip_capture.errors import RemoteProtocolError
from usbip_capture.usb.status import ECONNRESET, EINVAL, ENOENT, EPIPE, EXDEV
from usbip_capture.usb.urb import Completion, IsoPacket, TransferType, Urb
from usbip_capture.wire import structs
from usbip_capture.wire.client import ClientConnection
from usbip_capture.wire.server import (
    TRANSITIONS,
    DevlistRequested,
    Event,
    ImportRequested,
    ServerConnection,
    State,
    UnlinkRequested,
    UrbRefused,
    UrbSubmitted,
)

REQ_IMPORT = structs.OP_COMMON.pack(0x111, structs.OP_REQ_IMPORT, 0) + structs.pack_busid("1-1")
REQ_DEVLIST = structs.OP_COMMON.pack(0x111, structs.OP_REQ_DEVLIST, 0)
ENDPOINTS = {
    0x81: TransferType.BULK,
    0x02: TransferType.BULK,
    0x83: TransferType.ISOCHRONOUS,
    0x04: TransferType.ISOCHRONOUS,
}


def imported() -> ServerConnection:
    conn = ServerConnection()
    assert conn.receive_data(REQ_IMPORT) == [ImportRequested("1-1")]
    conn.import_reply(demo.INFO, ENDPOINTS.get)
    return conn


def client() -> ClientConnection:
    return ClientConnection(demo.INFO.devid)


def sent(conn: ClientConnection, urb: Urb, name: str = "x") -> bytes:
    return b"".join(bytes(part) for part in conn.submit(urb, name)[1])


def iso_out() -> Urb:
    return Urb(TransferType.ISOCHRONOUS, 0x04, 4, b"wxyz", packets=[IsoPacket(0, 1), IsoPacket(1, 3)])


def iso_in() -> Urb:
    return Urb(TransferType.ISOCHRONOUS, 0x83, 64, packets=[IsoPacket(0, 32), IsoPacket(32, 32)])


URBS = [
    Urb.control(bytes.fromhex("8006000100001200")),
    Urb.control(bytes.fromhex("0009010000000000")),
    Urb.control(bytes.fromhex("2120000000000300"), b"abc"),
    Urb(TransferType.BULK, 0x81, 4096, flags=0x201),
    Urb(TransferType.BULK, 0x02, 70_000, bytes(70_000)),
    Urb(TransferType.BULK, 0x02, 0),
    iso_out(),
    iso_in(),
]


def shown(events: list[Event]) -> list[tuple[object, ...]]:
    out: list[tuple[object, ...]] = []
    for event in events:
        if isinstance(event, UrbSubmitted):
            u = event.urb
            out.append((event.seqnum, u.transfer_type, u.endpoint, u.length, bytes(u.data), u.setup, u.packets))
        else:
            out.append(event)
    return out


@given(cuts=st.lists(st.integers(0, 80_000), max_size=12), order=st.permutations(range(len(URBS))))
def test_any_cut_gives_the_same_requests(cuts: list[int], order: list[int]) -> None:
    peer = client()
    stream = b"".join(sent(peer, URBS[i]) for i in order)
    stream += structs.CMD_UNLINK.pack(2, 99, demo.INFO.devid, 0, 0, 3)
    expected = shown(imported().receive_data(stream))
    assert len(expected) == len(URBS) + 1
    conn, got = imported(), []
    edges = sorted({min(c, len(stream)) for c in cuts} | {0, len(stream)})
    for start, end in pairwise(edges):
        got += conn.receive_data(stream[start:end])
    assert shown(got) == expected


def test_what_the_client_sends_is_what_the_server_gets() -> None:
    for urb in URBS:
        (event,) = imported().receive_data(sent(client(), urb))
        assert isinstance(event, UrbSubmitted)
        for name in ("transfer_type", "endpoint", "length", "setup", "flags", "interval", "start_frame"):
            assert getattr(event.urb, name) == getattr(urb, name), name
        assert bytes(event.urb.data) == bytes(urb.data)
        assert list(event.urb.packets) == list(urb.packets)


COMPLETIONS = {
    "in": (URBS[3], Completion(0, 3, b"abc")),
    "in, failed with data": (URBS[3], Completion(-121, 2, b"ab")),
    "stall": (URBS[0], Completion(-EPIPE)),
    "out": (URBS[4], Completion(0, 70_000)),
    "iso in": (iso_in(), Completion(0, 5, b"abcde", 9, 1, [IsoPacket(0, 32, 2, 0), IsoPacket(32, 32, 3, -71)])),
    "iso out": (iso_out(), Completion(0, 4, b"", 9, 0, [IsoPacket(0, 1, 1, 0), IsoPacket(1, 3, 3, 0)])),
}


@pytest.mark.parametrize(("urb", "completion"), COMPLETIONS.values(), ids=COMPLETIONS.keys())
def test_completions_reach_the_client(urb: Urb, completion: Completion) -> None:
    peer, conn = client(), imported()
    (event,) = conn.receive_data(sent(peer, urb, "mine"))
    assert isinstance(event, UrbSubmitted)
    reply = b"".join(bytes(part) for part in conn.complete(event.seqnum, completion))
    ((name, got),) = peer.receive_data(reply)
    assert name == "mine"
    assert (got.status, got.actual_length, bytes(got.data)) == (
        completion.status,
        completion.actual_length,
        bytes(completion.data),
    )
    assert list(got.packets) == list(completion.packets)


@pytest.mark.parametrize("count", [0, -1, 77], ids=["0", "-1", "left over"])
def test_number_of_packets_is_echoed(count: int) -> None:
    raw = bytearray(sent(client(), URBS[3]))
    raw[32:36] = (count & 0xFFFFFFFF).to_bytes(4, "big")
    conn = imported()
    conn.receive_data(raw)
    assert structs.RET_SUBMIT.unpack_from(bytes(conn.complete(1, Completion(0))[0]))[8] == count


class TestUnlink:
    def replies(self, conn: ServerConnection, completion: Completion) -> list[tuple[int, int, int]]:
        """Command, seqnum and status of each PDU."""
        raw = b"".join(bytes(part) for part in conn.complete(1, completion))
        found = []
        while raw:
            fields = structs.RET_SUBMIT.unpack_from(raw)
            found.append((fields[0], fields[1], fields[5]))
            raw = raw[structs.HEADER_SIZE + (fields[6] if fields[0] == structs.USBIP_RET_SUBMIT else 0) :]
        return found

    def unlinking(self) -> ServerConnection:
        conn, peer = imported(), client()
        conn.receive_data(sent(peer, URBS[3]))
        request = peer.unlink("x")
        assert request is not None
        assert conn.receive_data(request) == [UnlinkRequested(1)]
        return conn

    def test_let_go(self) -> None:
        assert self.replies(self.unlinking(), Completion(-ECONNRESET)) == [(4, 2, -ECONNRESET)]

    def test_done_all_the_same(self) -> None:
        assert self.replies(self.unlinking(), Completion(0, 1, b"x")) == [(3, 1, 0), (4, 2, 0)]

    def test_finished_or_unknown(self) -> None:
        conn = imported()
        assert conn.receive_data(structs.CMD_UNLINK.pack(2, 5, demo.INFO.devid, 0, 0, 1)) == [UnlinkRequested(1)]
        assert structs.RET_UNLINK.unpack(conn.unlinked(1))[:6] == (4, 5, 0, 0, 0, 0)


def test_operations() -> None:
    conn = ServerConnection()
    assert conn.receive_data(REQ_DEVLIST[:5]) == []
    assert conn.receive_data(REQ_DEVLIST[5:]) == [DevlistRequested()]
    assert len(conn.devlist([demo.INFO])) == 12 + 312 + 4 * 4
    with pytest.raises(RemoteProtocolError):
        conn.receive_data(REQ_DEVLIST)


@pytest.mark.parametrize("version", [0x0100, 0x0106, 0x0111])
def test_answers_have_the_version_of_the_client(version: int) -> None:
    listing, importing, refused = ServerConnection(), ServerConnection(), ServerConnection()
    request = version.to_bytes(2, "big")
    assert listing.receive_data(request + REQ_DEVLIST[2:]) == [DevlistRequested()]
    for conn in (importing, refused):
        assert conn.receive_data(request + REQ_IMPORT[2:]) == [ImportRequested("1-1")]
    answers = [
        (listing.devlist([demo.INFO]), structs.OP_REP_DEVLIST, 0),
        (importing.import_reply(demo.INFO, ENDPOINTS.get), structs.OP_REP_IMPORT, 0),
        (refused.import_refused(structs.OpStatus.NODEV), structs.OP_REP_IMPORT, structs.OpStatus.NODEV),
    ]
    for answer, code, status in answers:
        assert structs.OP_COMMON.unpack_from(answer) == (version, code, status)


@pytest.mark.parametrize("version", [0, 0x0101, 0x0200, 0xFFFF])
def test_a_version_that_is_not_known_is_not_answered(version: int) -> None:
    with pytest.raises(RemoteProtocolError, match="speaks version"):
        ServerConnection().receive_data(version.to_bytes(2, "big") + REQ_DEVLIST[2:])


def test_a_seqnum_is_free_again_once_it_was_answered() -> None:
    conn = imported()
    for _ in range(3):
        assert len(conn.receive_data(submit(seqnum=5))) == 1
        with pytest.raises(RemoteProtocolError, match="request 5 is pending already"):
            conn.receive_data(submit(seqnum=5))
        conn.complete(5, Completion(0))
        conn._data.clear()  # what was refused would have ended the session


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("code", [structs.OP_REQ_DEVLIST, structs.OP_REQ_IMPORT, structs.OP_REP_IMPORT, 0x1234])
def test_every_step_is_listed_or_refused(state: State, code: int) -> None:
    conn = ServerConnection()
    conn.state = state
    if (state, code) in TRANSITIONS:
        conn._step(code)
        assert conn.state == TRANSITIONS[state, code]
    else:
        with pytest.raises(RemoteProtocolError):
            conn._step(code)


def submit(**fields: int) -> bytes:
    values = {"command": 1, "seqnum": 1, "devid": demo.INFO.devid, "direction": 1, "ep": 1, "flags": 0, "length": 8,
              "start_frame": 0, "count": 0, "interval": 0, **fields}  # fmt: skip
    return structs.CMD_SUBMIT.pack(*values.values(), bytes(8))


HOSTILE = {
    "other device": submit(devid=7),
    "unknown command": submit(command=9),
    "negative length": submit(length=-1),
    "2 GiB": submit(length=0x7FFFFFFF),
    "over 4 MiB": submit(length=structs.MAX_TRANSFER + 1),
    "endpoint 16": submit(ep=16),
    "direction 2": submit(direction=2),
    "iso: -1 packets": submit(ep=3, count=-1),
    "iso: 1025 packets": submit(ep=3, count=1025),
    "seqnum twice": submit() + submit(),
}


@pytest.mark.parametrize("stream", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_requests(stream: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        imported().receive_data(stream)


REFUSED = {
    "no such endpoint, in": (submit(ep=9), -ENOENT),
    "no such endpoint, out": (submit(ep=9, direction=0, length=4) + b"data", -ENOENT),
    "iso: beyond the buffer": (submit(ep=3, count=1) + structs.pack_iso([IsoPacket(4, 5)]), -EINVAL),
    "wLength differs": (submit(ep=0), -EINVAL),
    "wLength differs, out": (submit(ep=0, direction=0, length=4) + b"data", -EINVAL),
}


@pytest.mark.parametrize(("stream", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_run_fails_alone(stream: bytes, status: int) -> None:
    conn = imported()
    refused, following = conn.receive_data(stream + submit(seqnum=2))
    assert isinstance(refused, UrbRefused)
    assert isinstance(following, UrbSubmitted)
    reply = b"".join(bytes(part) for part in conn.complete(refused.seqnum, refused.completion))
    assert structs.RET_SUBMIT.unpack_from(reply)[1:7] == (1, 0, 0, 0, status, 0)
    packets = structs.unpack_iso(reply[structs.HEADER_SIZE :])
    assert all(packet.status == -EXDEV for packet in packets)
    assert conn.receive_data(structs.CMD_UNLINK.pack(2, 5, demo.INFO.devid, 0, 0, 1)) == [UnlinkRequested(1)]
    assert conn.unlinked(1)


@given(st.binary(max_size=300), st.booleans())
def test_garbage_raises_only_remote_protocol_error(garbage: bytes, after_import: bool) -> None:
    try:
        (imported() if after_import else ServerConnection()).receive_data(garbage)
    except RemoteProtocolError:
        pass
