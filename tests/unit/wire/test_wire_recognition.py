"""Where a session is joined in its middle, or found again: with peers that leave garbage in unused fields."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path
from random import Random

import pytest

from tests.builders.conversion import convert
from tests.builders.tcp_recording import CLIENT, Turn
from tests.builders.usbip_sessions import (
    BULK_IN,
    INFO,
    described,
    imported,
    reply,
    run,
    submit,
    traffic,
    unlink,
    unlink_reply,
)
from usbip_capture.usb.urb import Completion, TransferType, Urb
from usbip_capture.wire import structs
from usbip_capture.wire.observed import Completed, Event, Noted, Submitted
from usbip_capture.wire.observer import Observer
from usbip_capture.wire.recognition import command_length

GARBAGE = Path(__file__).parent / "garbage"
READ = Urb(TransferType.BULK, BULK_IN, 100)


@pytest.mark.parametrize(("name", "events"), [("whole", 124), ("gap", 122), ("middle", 114)])
def test_a_client_that_leaves_the_number_of_packets_to_chance(name: str, events: int) -> None:
    """As recorded, with the values that usbip-win left there; as many events as with a client that does not."""
    assert len(convert(gzip.decompress((GARBAGE / f"{name}.pcap.gz").read_bytes())).urbs()) == events


def spoil_command(data: bytes, random: Random, *, devid: bool) -> bytes:
    """A CMD_SUBMIT, not isochronous, with anything in the fields that mean nothing for it."""
    fields = list(structs.CMD_SUBMIT.unpack_from(data))
    if fields[0] == structs.USBIP_CMD_SUBMIT and fields[4] not in (4, 5):
        fields[5] = random.getrandbits(32)  # flags
        fields[7], fields[9] = random.getrandbits(31), random.getrandbits(31) - (1 << 30)
        fields[8] = random.choice([-1, 0, random.getrandbits(31), -random.getrandbits(31)])
        if devid:
            fields[2] = 0
    return structs.CMD_SUBMIT.pack(*fields) + data[structs.HEADER_SIZE :]


def spoil_reply(data: bytes, random: Random, urb: Urb) -> bytes:
    """The same for a RET_SUBMIT."""
    fields = list(structs.RET_SUBMIT.unpack_from(data))
    fields[2] = random.getrandbits(32)
    if urb.transfer_type is not TransferType.ISOCHRONOUS:
        fields[7:] = (random.getrandbits(31) for _ in range(3))
    head = structs.RET_SUBMIT.pack(*fields)[:40] + random.randbytes(8)
    return head + data[structs.HEADER_SIZE :]


def spoiled(turns: list[Turn], seed: int, *, devid: bool = False) -> list[Turn]:
    random = Random(seed)
    kinds = {structs.CMD_SUBMIT.unpack_from(d)[1]: structs.CMD_SUBMIT.unpack_from(d)[4] for s, d in turns if not s}
    assert CLIENT == 0
    out = []
    for side, data in turns:
        if side == CLIENT:
            out.append((side, spoil_command(data, random, devid=devid)))
        else:
            iso = kinds[structs.RET_SUBMIT.unpack_from(data)[1]] in (4, 5)
            kind = TransferType.ISOCHRONOUS if iso else TransferType.BULK
            out.append((side, spoil_reply(data, random, Urb(kind, BULK_IN, 0))))
    return out


def found(observer: Observer, turns: list[Turn]) -> tuple[list[int], list[tuple[int, bytes]]]:
    """Seqnums of the URBs submitted, and of those completed with what they brought."""
    events: list[Event] = []
    for number, (side, data) in enumerate(turns):
        events += (observer.client if side == CLIENT else observer.server)(data, number)
    return (
        [event.seqnum for event in events if isinstance(event, Submitted)],
        [(event.seqnum, bytes(event.completion.data)) for event in events if isinstance(event, Completed)],
    )


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("devid", [False, True])
def test_found_again_after_a_gap(seed: int, devid: bool) -> None:
    turns = traffic(3, rounds=4)

    def after_a_gap(turns: list[Turn]) -> tuple[list[int], list[tuple[int, bytes]]]:
        observer = Observer()
        found(observer, [*imported(), *described()])
        observer.client_gap(10, 1)
        observer.server_gap(10, 1)
        return found(observer, [(CLIENT, b"rest of a message"), *turns])

    expected = after_a_gap(turns)
    assert len(expected[0]) == 24
    assert after_a_gap(spoiled(turns, seed, devid=devid)) == expected


@pytest.mark.parametrize("seed", range(10))
def test_joined_in_the_middle(seed: int) -> None:
    turns = [turn for n in range(1, 40) for turn in run(n, READ, b"x" * n)]
    expected = found(Observer(from_start=False), turns)
    assert expected[0] == list(range(1, 40))
    assert found(Observer(from_start=False), spoiled(turns, seed)) == expected


@pytest.mark.parametrize("status", [-71, 0, 5, 121])
def test_any_status_is_one(status: int) -> None:
    observer = Observer()
    found(observer, [*imported(), submit(1, READ), submit(2, READ), unlink(3, 2)])
    observer.server_gap(10, 1)
    done = Completion(status, 3, b"abc")
    assert found(observer, [reply(1, READ, done), unlink_reply(3, status)])[1] == [(1, b"abc"), (2, b"")]


def test_a_reply_with_garbage_is_not_believed_where_none_follows_it() -> None:
    observer = Observer()
    found(observer, [*imported(), submit(1, READ), submit(2, READ)])
    observer.server_gap(10, 1)
    lie = reply(1, READ, Completion(0, 4, b"data"))[1][:40] + b"\x55" * 12
    assert found(observer, [(1, lie + b"\xaa" * 60), reply(2, READ, Completion(0, 2, b"ok"))])[1] == [(2, b"ok")]


def test_what_holds_zeros_and_ones_is_no_command() -> None:
    zeros = b"\0\0\0\1" + bytes(44)
    assert command_length(zeros, 0, None) == 0
    for at, value in itertools.product(range(4, 48, 4), (1, 2, 16, 0x7FFFFFFF)):
        data = bytearray(zeros)
        data[4:8] = b"\0\0\0\7"
        data[at : at + 4] = value.to_bytes(4, "big")
        assert command_length(data, 0, INFO.devid) == 0 or data[8:12] == bytes(4), (at, value)


def test_what_is_missing_is_noted_for_what_was_out_then() -> None:
    observer = Observer()
    found(observer, [*imported(), submit(1, READ), submit(2, READ)])
    observer.server_gap(10, 1)
    found(observer, [(1, b"\xff" * 60), submit(3, READ)])
    notes = [event.text for event in observer.closed(9) if isinstance(event, Noted)]
    assert [note.split(" may")[0] for note in notes] == ["the reply to CMD_SUBMIT 1", "the reply to CMD_SUBMIT 2"]
