"""`wire.observer`: the events of a session, however its bytes come, whatever a peer sends, wherever it is joined."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.tcp_recording import CLIENT, SERVER, Turn, golden_turns
from tests.builders.usbip_sessions import (
    BULK_IN,
    BULK_OUT,
    CONFIGURATION,
    INFO,
    INTERRUPT_IN,
    ISO_IN,
    described,
    imported,
    iso_in,
    iso_in_done,
    reply,
    run,
    session,
    submit,
    traffic,
    unlink,
    unlink_reply,
)
from usbip_capture.usb.setup import get_descriptor
from usbip_capture.usb.status import ECONNRESET, ESHUTDOWN, EXDEV
from usbip_capture.usb.urb import Completion, IsoPacket, TransferType, Urb
from usbip_capture.wire import structs
from usbip_capture.wire.following import GIVE_UP
from usbip_capture.wire.observed import (
    Completed,
    Ended,
    Event,
    Imported,
    Noted,
    Submitted,
    Unanswered,
    Unlink,
    UnlinkReply,
)
from usbip_capture.wire.observer import MAX_PENDING, Observer

GOLDEN = sorted((Path(__file__).parents[2] / "golden").glob("*/usbip.pcap"))
READ = Urb(TransferType.BULK, BULK_IN, 100)
WRITE = Urb(TransferType.BULK, BULK_OUT, 100, b"w" * 100)


def watch(turns: Iterable[Turn], observer: Observer | None = None) -> list[Event]:
    """Each turn at a time, with its number as time stamp."""
    observer = observer or Observer()
    events: list[Event] = []
    for number, (side, data) in enumerate(turns):
        events += observer.client(data, number) if side == CLIENT else observer.server(data, number)
    return events


def plain(events: Iterable[Event]) -> list[object]:
    """Without time stamps, and in values that can be compared."""
    out: list[object] = []
    for event in events:
        if isinstance(event, Submitted):
            out.append(("S", event.seqnum, values(event.urb), bytes(event.data)))
        elif isinstance(event, Completed):
            done = event.completion
            out.append(
                ("C", event.seqnum, values(event.urb), done.status, done.actual_length, bytes(done.data),
                 list(done.packets), event.unlink)
            )  # fmt: skip
        else:
            out.append(event[1:])
    return out


def values(urb: Urb) -> tuple[object, ...]:
    return (
        urb.transfer_type, urb.endpoint, urb.length, urb.data, urb.setup, urb.flags, urb.interval, urb.start_frame,
        tuple(urb.packets),
    )  # fmt: skip


def completions(events: Iterable[Event]) -> dict[int, Completed]:
    return {event.seqnum: event for event in events if isinstance(event, Completed)}


def submissions(events: Iterable[Event]) -> dict[int, Submitted]:
    return {event.seqnum: event for event in events if isinstance(event, Submitted)}


def notes(events: Iterable[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Noted)]


def test_every_kind_of_transfer() -> None:
    events = watch(session(rounds=1))
    assert isinstance(events[0], Imported)
    assert (events[0].info, events[0].seen) == (INFO, True)
    kinds = {s.urb.endpoint: s.urb.transfer_type for s in submissions(events).values()}
    assert kinds == {
        0x80: TransferType.CONTROL,
        0: TransferType.CONTROL,
        BULK_IN: TransferType.BULK,
        BULK_OUT: TransferType.BULK,
        INTERRUPT_IN: TransferType.INTERRUPT,
        ISO_IN: TransferType.ISOCHRONOUS,
        5: TransferType.ISOCHRONOUS,
    }
    done = completions(events)
    assert bytes(done[3].completion.data) == b"\x01" * 700
    assert bytes(submissions(events)[4].data) == b"\x01" * 700
    assert [p.actual_length for p in done[6].completion.packets] == [1, 2, 3]
    assert done[8].completion.status == -32
    assert set(done) == set(submissions(events))
    assert notes(events) == []


def test_time_stamps_are_those_of_the_last_byte() -> None:
    observer = Observer()
    watch(imported(), observer)
    _, data = submit(1, WRITE)
    assert observer.client(data[:50], 10) == []
    (event,) = observer.client(data[50:], 20)
    assert event.timestamp_ns == 20


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.parent.name)
def test_cut_anywhere(path: Path) -> None:
    turns = golden_turns(path)
    whole = plain(watch(turns))
    for seed in range(8):
        random = Random(seed)
        cuts: list[Turn] = []
        for side, raw in turns:
            at = sorted(random.randrange(len(raw) + 1) for _ in range(random.randrange(4)))
            cuts += [(side, raw[a:b]) for a, b in zip([0, *at], [*at, len(raw)], strict=True)]
        assert plain(watch(cuts)) == whole


def test_byte_by_byte() -> None:
    whole = session(rounds=2, size=50)
    bytewise = [(side, raw[at : at + 1]) for side, raw in whole for at in range(len(raw))]
    assert plain(watch(bytewise)) == plain(watch(whole))


def test_all_requests_before_all_replies() -> None:
    start = imported() + described()
    rest = traffic(3)
    swapped = [s for s in rest if s[0] == CLIENT] + [s for s in rest if s[0] == SERVER]
    assert plain(completions(watch(start + rest)).values()) == plain(completions(watch(start + swapped)).values())


# -- unlink


def test_unlinked() -> None:
    events = watch([*imported(), submit(1, READ), unlink(2, 1), unlink_reply(2, -ECONNRESET)])
    request, answer, done = events[2:]
    assert isinstance(request, Unlink)
    assert isinstance(answer, UnlinkReply)
    assert isinstance(done, Completed)
    assert (request.seqnum, request.target, answer.seqnum, answer.target) == (2, 1, 2, 1)
    assert (done.completion.status, done.completion.actual_length, done.unlink) == (-ECONNRESET, 0, 2)


def test_unlinked_isochronous_packets_are_not_done() -> None:
    events = watch([*imported(), *described(), submit(3, iso_in()), unlink(4, 3), unlink_reply(4, -ECONNRESET)])
    assert [(p.status, p.actual_length) for p in completions(events)[3].completion.packets] == [(-EXDEV, 0)] * 3


@pytest.mark.parametrize("status", [0, -32, -ECONNRESET])
def test_any_answer_to_an_unlink_ends_a_urb_that_waits(status: int) -> None:
    done = completions(watch([*imported(), submit(1, READ), unlink(2, 1), unlink_reply(2, status)]))[1]
    assert done.completion.status == -ECONNRESET


def test_reply_that_wins_keeps_its_data_but_is_unlinked() -> None:
    turns = [submit(1, READ), unlink(2, 1), reply(1, READ, Completion(0, 5, b"early")), unlink_reply(2, 0)]
    events = watch([*imported(), *turns])
    done = [e for e in events if isinstance(e, Completed)]
    assert len(done) == 1
    assert (done[0].completion.status, bytes(done[0].completion.data), done[0].unlink) == (-ECONNRESET, b"early", 2)


def test_reply_after_its_urb_was_unlinked_is_left_out() -> None:
    late = [submit(1, READ), unlink(2, 1), unlink_reply(2, 0), reply(1, READ, Completion(0, 4, b"late"))]
    observer = Observer()
    events = watch([*imported(), *late, *run(3, READ, b"next")], observer)
    assert bytes(completions(events)[3].completion.data) == b"next"
    assert len([e for e in events if isinstance(e, Completed)]) == 2
    assert observer.counts == {"RET_SUBMIT after its URB was unlinked": 1}


def test_second_answer_to_an_unlink_is_counted() -> None:
    observer = Observer()
    watch([*imported(), submit(1, READ), unlink(2, 1), unlink_reply(2, 0), unlink_reply(2, -ECONNRESET)], observer)
    assert observer.counts == {"RET_UNLINK without its CMD_UNLINK": 1}


# -- the end


def test_end_of_the_connection_gives_all_back() -> None:
    observer = Observer()
    watch([*imported(), submit(1, READ), submit(2, READ), unlink(3, 2)], observer)
    first, second, end = observer.closed(77)
    assert isinstance(first, Completed)
    assert isinstance(second, Completed)
    assert isinstance(end, Ended)
    assert (first.seqnum, first.completion.status, first.timestamp_ns) == (1, -ESHUTDOWN, 77)
    assert (second.seqnum, second.completion.status, second.unlink) == (2, -ECONNRESET, 3)
    assert observer.closed(78) == observer.client(b"more", 79) == observer.server_gap(5, 80) == []
    assert observer.pending == 0


def test_refused_import_and_device_list_bring_no_events() -> None:
    refused = structs.OP_COMMON.pack(structs.VERSION, structs.OP_REP_IMPORT, 2)
    listed = structs.OP_COMMON.pack(structs.VERSION, structs.OP_REQ_DEVLIST, 0)
    listing = structs.OP_COMMON.pack(structs.VERSION, structs.OP_REP_DEVLIST, 0) + (2).to_bytes(4, "big")
    two = structs.pack_device(INFO) + structs.pack_device(INFO)[:-1] + b"\2" + bytes(8)
    observer = Observer()
    assert watch([(CLIENT, listed), (SERVER, listing + two), imported()[0], (SERVER, refused)], observer) == []
    assert not observer.counts
    assert isinstance(watch(imported(), observer)[0], Imported)


# -- types that are not known


def guess(urb: Urb, count: int | None = None) -> TransferType:
    """What an observer takes a URB for, when it knows nothing of its endpoint; the next one must be understood."""
    observer = Observer()
    events = watch([*imported(), submit(1, urb, count=count), submit(2, READ)], observer)
    assert not observer.counts
    assert list(submissions(events)) == [1, 2]
    return submissions(events)[1].urb.transfer_type


def test_guesses() -> None:
    assert guess(READ) == TransferType.BULK
    assert guess(Urb(TransferType.INTERRUPT, INTERRUPT_IN, 8, interval=8)) == TransferType.INTERRUPT
    assert guess(iso_in()) == TransferType.ISOCHRONOUS


@pytest.mark.parametrize("count", [-1, 5, 1000, 77_777])
def test_number_of_packets_means_nothing_where_no_packets_follow(count: int) -> None:
    assert guess(READ, count) == TransferType.BULK
    assert guess(Urb(TransferType.INTERRUPT, INTERRUPT_IN, 8, interval=8), count) == TransferType.INTERRUPT


def test_guess_is_corrected_when_the_descriptors_pass_by() -> None:
    odd = Urb(TransferType.INTERRUPT, INTERRUPT_IN, 8, interval=0)  # interval 0: taken for bulk
    turns = [*imported(), *run(1, odd, b"a"), *described(2), *run(4, odd, b"b")]
    submitted = submissions(watch(turns))
    assert submitted[1].urb.transfer_type == TransferType.BULK
    assert submitted[4].urb.transfer_type == TransferType.INTERRUPT


def test_descriptors_help_even_if_the_configuration_was_set_before() -> None:
    read = Urb.control(get_descriptor(2, 0, 0, len(CONFIGURATION)).pack())
    odd = Urb(TransferType.INTERRUPT, INTERRUPT_IN, 8, interval=0)
    events = watch([*run(1, read, CONFIGURATION), *run(2, odd, b"a")], Observer(from_start=False))
    assert submissions(events)[2].urb.transfer_type == TransferType.INTERRUPT


# -- joined in the middle, gaps, nonsense


def test_joined_in_the_middle() -> None:
    before = submit(1, READ)[1][20:] + submit(2, READ)[1]
    replies = reply(1, READ, Completion(0, 100, b"x" * 100))[1][60:] + reply(2, READ, Completion(0, 3, b"two"))[1]
    observer = Observer(from_start=False)
    events = watch([(CLIENT, before), (SERVER, replies), *run(3, READ, b"three")], observer)
    assert isinstance(events[0], Imported)
    assert (events[0].seen, events[0].info.busnum, events[0].info.devnum) == (False, INFO.busnum, INFO.devnum)
    assert {n: bytes(c.completion.data) for n, c in completions(events).items()} == {2: b"two", 3: b"three"}


def test_gap_within_data_loses_the_data_only() -> None:
    observer = Observer()
    watch([*imported(), submit(1, READ), submit(2, READ)], observer)
    _, whole = reply(1, READ, Completion(0, 100, bytes(range(100))))
    events = observer.server(whole[:58], 5)
    events += observer.server_gap(60, 6)
    events += observer.server(whole[118:] + reply(2, READ, Completion(0, 2, b"ok"))[1], 7)
    done = completions(events)
    assert bytes(done[1].completion.data) == bytes(range(10))
    assert done[1].completion.actual_length == 100
    assert bytes(done[2].completion.data) == b"ok"
    assert notes(events) == ["60 bytes that the server sent are not in the recording"]


def test_gap_over_the_end_of_a_message_is_found_back_from() -> None:
    observer = Observer()
    events = watch(imported(), observer)
    one, two, three = (submit(n, Urb(TransferType.BULK, BULK_OUT, 9, b"some data"))[1] for n in (1, 2, 3))
    events += observer.client(one[:50], 1)
    events += observer.client_gap(len(one) + len(two) - 50 - 20, 2)
    events += observer.client(two[-20:] + three, 3)
    assert [(n, bytes(s.data)) for n, s in submissions(events).items()] == [(1, b"so"), (3, b"some data")]
    assert observer.counts == {
        "gap in what the client sent": 1,
        "found back into what the client sent": 1,
    }


def test_gap_in_an_isochronous_reply_leaves_its_header() -> None:
    observer = Observer()
    urb = iso_in()
    watch([*imported(), *described(), submit(3, urb), submit(4, READ)], observer)
    _, whole = reply(3, urb, iso_in_done(urb))
    events = observer.server(whole[:60], 5) + observer.server_gap(10, 6)
    events += observer.server(whole[70:] + reply(4, READ, Completion(0, 2, b"ok"))[1], 7)
    done = completions(events)
    assert list(done) == [3, 4]
    got, sent = done[3].completion, iso_in_done(urb)
    assert (got.status, got.actual_length, got.start_frame) == (0, sent.actual_length, sent.start_frame)
    assert (bytes(got.data), list(got.packets)) == (b"", [])
    assert observer.counts["isochronous URB with a gap in it"] == 1


@pytest.mark.parametrize(
    ("nonsense", "reason"),
    [
        (bytes.fromhex("00000009") + bytes(44), "message of unknown kind from the server"),
        (b"HTTP/1.1 200 OK\r\n" + bytes(31), "message of unknown kind from the server"),
        (structs.RET_SUBMIT.pack(3, 99, 0, 0, 0, 0, 5, 0, 0, 0), "RET_SUBMIT without its CMD_SUBMIT"),
        (structs.RET_SUBMIT.pack(3, 1, 0, 0, 0, 0, 101, 0, 0, 0), "RET_SUBMIT that does not fit its CMD_SUBMIT"),
        (structs.RET_SUBMIT.pack(3, 1, 0, 0, 0, 0, -1, 0, 0, 0), "RET_SUBMIT that does not fit its CMD_SUBMIT"),
    ],
)
def test_nonsense_of_the_server_is_left_out(nonsense: bytes, reason: str) -> None:
    observer = Observer()
    turns = [*imported(), submit(1, READ), submit(2, READ), (SERVER, nonsense)]
    events = watch([*turns, reply(2, READ, Completion(0, 2, b"ok"))], observer)
    assert bytes(completions(events)[2].completion.data) == b"ok"
    assert observer.counts[reason] == 1
    assert notes(events) == [f"{reason}: looking for the next message"]


@pytest.mark.parametrize(
    "nonsense",
    [
        structs.CMD_SUBMIT.pack(1, 5, INFO.devid, 0, 1, 0, 1 << 30, 0, 0, 0, bytes(8)),
        structs.CMD_SUBMIT.pack(1, 5, INFO.devid, 2, 1, 0, 0, 0, 0, 0, bytes(8)),
        structs.CMD_SUBMIT.pack(1, 5, INFO.devid, 1, 16, 0, 0, 0, 0, 0, bytes(8)),
        structs.OP_COMMON.pack(structs.VERSION, 0x8009, 0),
        b"\x7f" * 100,
    ],
)
def test_nonsense_of_the_client_is_left_out(nonsense: bytes) -> None:
    observer = Observer()
    events = watch([*imported(), (CLIENT, nonsense), *run(7, READ, b"ok")], observer)
    assert bytes(completions(events)[7].completion.data) == b"ok"
    assert observer.counts["found back into what the client sent"] == 1


def test_gives_up_with_a_reason() -> None:
    observer = Observer()
    watch(imported(), observer)
    events: list[Event] = []
    piece = b"\xff" * (1 << 20)
    for number in range((GIVE_UP >> 20) + 2):
        events += observer.client(piece, number)
    assert isinstance(events[-1], Ended)
    assert observer.ended
    assert any(reason.startswith("gave up") for reason in observer.counts)


def test_urbs_that_are_never_answered_are_bounded() -> None:
    observer = Observer()
    watch(imported(), observer)
    waiting: dict[int, Urb] = {}
    for seqnum in range(1, MAX_PENDING + 11):
        for event in observer.client(submit(seqnum, READ)[1], seqnum):
            if isinstance(event, Submitted):
                waiting[event.seqnum] = event.urb
            elif isinstance(event, Unanswered):
                assert waiting.pop(event.seqnum) is event.urb
        assert observer.pending == len(waiting) <= MAX_PENDING
    forgotten = observer.counts["URB that was never answered"]
    assert forgotten + observer.pending == MAX_PENDING + 10
    assert list(waiting) == list(range(forgotten + 1, MAX_PENDING + 11))  # the oldest ones went
    assert observer.pending > MAX_PENDING * 9 // 10


def test_packets_of_urbs_that_are_never_answered_are_bounded() -> None:
    observer = Observer()
    watch([*imported(), *described()], observer)
    urb = iso_in(1024)
    held = 0
    for seqnum in range(3, 600):
        events = watch([submit(seqnum, urb), unlink(10_000 + seqnum, seqnum)][: 1 + seqnum % 2], observer)
        if seqnum % 2:
            events += watch([unlink_reply(10_000 + seqnum, 0)], observer)
        held += sum(isinstance(e, Submitted) for e in events)
        held -= sum(isinstance(e, (Completed, Unanswered)) for e in events)
        assert observer.pending == held
        assert len(observer._ghosts) + observer.pending <= 130
    done = Completion(0, 0, packets=[IsoPacket(p.offset, p.length, 0, 0) for p in urb.packets])
    assert 9000 in completions(watch([submit(9000, urb), reply(9000, urb, done)], observer))


@given(st.lists(st.tuples(st.sampled_from([CLIENT, SERVER]), st.binary(max_size=200), st.booleans()), max_size=8))
def test_nothing_makes_it_raise(turns: list[tuple[int, bytes, bool]]) -> None:
    observer = Observer()
    watch([*imported(), submit(1, READ), submit(2, iso_in()), unlink(3, 1)], observer)
    for number, (side, data, gap) in enumerate(turns):
        if gap:
            (observer.client_gap if side == CLIENT else observer.server_gap)(len(data), number)
        else:
            watch([(side, data)], observer)
    observer.closed(99)


def test_packets_that_do_not_add_up_are_reported_as_they_are() -> None:
    urb = iso_in(2)
    odd = Completion(0, 70, b"z" * 70, packets=[IsoPacket(0, 64, 64, 0), IsoPacket(64, 64, 64, 0)])
    events = watch([*imported(), *described(), submit(3, urb), reply(3, urb, odd), *run(4, READ, b"ok")])
    assert [p.actual_length for p in completions(events)[3].completion.packets] == [64, 64]
    assert bytes(completions(events)[4].completion.data) == b"ok"
