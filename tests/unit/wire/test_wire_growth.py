"""What a peer sends costs what it is long, whatever is held already: observer, recognition, hindsight."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.builders.tcp_recording import CLIENT
from tests.builders.usbip_sessions import BULK_IN, INFO, imported, submit, unlink, unlink_reply
from tests.growth import assert_grows_linearly
from usbip_capture.usb.urb import Completion, TransferType, Urb
from usbip_capture.wire import structs
from usbip_capture.wire.hindsight import Hindsight
from usbip_capture.wire.observed import Completed, Event, Unlink
from usbip_capture.wire.observer import MAX_PENDING, Observer
from usbip_capture.wire.operations import MAX_DEVICES
from usbip_capture.wire.recognition import find_command, find_reply

READ = Urb(TransferType.BULK, BULK_IN, 100)
CHUNK = 128 << 10
Run = Callable[[], object]


def joined() -> Observer:
    observer = Observer()
    for side, data in imported():
        (observer.client if side == CLIENT else observer.server)(data, 0)
    return observer


def submits(first: int, count: int) -> bytes:
    return b"".join(submit(seqnum, READ)[1] for seqnum in range(first, first + count))


def misfit(seqnum: int) -> bytes:
    """A reply of more than was asked for."""
    return structs.RET_SUBMIT.pack(structs.USBIP_RET_SUBMIT, seqnum, 0, 0, 0, 0, 101, 0, 0, 0)


def in_chunks(send: Callable[[memoryview, int], object], data: bytes) -> Run:
    view = memoryview(data)

    def run() -> None:
        for at in range(0, len(view), CHUNK):
            send(view[at : at + CHUNK], at)

    return run


def never_answered(size: int) -> Run:
    observer = joined()
    observer.client(submits(1, MAX_PENDING), 0)
    return in_chunks(observer.client, submits(MAX_PENDING + 1, size))


def never_unlinked(size: int) -> Run:
    observer = joined()
    return in_chunks(observer.client, b"".join(unlink(n, 1)[1] for n in range(1, MAX_PENDING // 4 + size)))


def late_forever(size: int) -> Run:
    """Unlinked URBs whose reply never comes."""
    observer = joined()
    observer.client(submits(1, size) + b"".join(unlink(size + n, n)[1] for n in range(1, size + 1)), 0)
    return in_chunks(observer.server, b"".join(unlink_reply(size + n, 0)[1] for n in range(1, size + 1)))


def misfits(size: int) -> Run:
    observer = joined()
    observer.client(submits(1, size), 0)
    return in_chunks(observer.server, b"".join(misfit(n) for n in range(1, size + 1)))


def misfits_of_many(size: int) -> Run:
    """Each reply that does not fit, then one that does."""
    observer = joined()
    observer.client(submits(1, 2 * size), 0)
    good = [structs.RET_SUBMIT.pack(structs.USBIP_RET_SUBMIT, n, 0, 0, 0, 0, 0, 0, 0, 0) for n in range(1, size + 1)]
    return in_chunks(observer.server, b"".join(misfit(size + n) + good[n - 1] for n in range(1, size + 1)))


def impossible_commands(size: int) -> Run:
    bad = structs.CMD_SUBMIT.pack(structs.USBIP_CMD_SUBMIT, 5, INFO.devid, 2, 1, 0, 0, 0, 0, 0, bytes(8))
    return in_chunks(joined().client, (bad + submit(7, READ)[1]) * size)


def listed(size: int) -> Run:
    """A list of devices, one at a time."""
    observer = Observer()
    head = structs.OP_COMMON.pack(structs.VERSION, structs.OP_REP_DEVLIST, 0) + structs.DEVLIST_COUNT.pack(size)
    device = structs.pack_device(INFO)
    observer.server(head, 0)

    def run() -> None:
        for _ in range(size):
            observer.server(device, 0)

    return run


@pytest.mark.parametrize(
    ("prepare", "size"),
    [
        (never_answered, 10_000),
        (never_unlinked, 40_000),
        (late_forever, 8_000),
        (misfits, 4_000),
        (misfits_of_many, 2_500),
        (impossible_commands, 2_500),
        (listed, MAX_DEVICES // 2),
    ],
)
def test_the_observers_work_grows_as_what_is_sent(prepare: Callable[[int], Run], size: int) -> None:
    assert_grows_linearly(prepare, size)


@pytest.mark.parametrize("start", [b"\0\0\0\1", b"\0\0\0\2", b"\0\0\0\3", b"\0\0\0\4", b"\0", b"\0\0\0\4\0\0\0\1"])
def test_the_searchs_work_grows_as_what_is_searched(start: bytes) -> None:
    def prepare(size: int) -> Run:
        data = memoryview(start * (size // len(start)))

        def run() -> None:
            assert find_command(data, 0, INFO.devid) == -1
            assert find_reply(data, 0, {99: READ}, {98}) == -1

        return run

    assert_grows_linearly(prepare, 200_000)


def test_a_search_that_goes_on_does_not_copy_what_is_left() -> None:
    """Many searches in one chunk, each of which ends soon."""

    def prepare(size: int) -> Run:
        reply = structs.RET_SUBMIT.pack(structs.USBIP_RET_SUBMIT, 1, 0, 0, 0, 0, 0, 0, 0, 0)
        data = memoryview(reply * size)

        def run() -> None:
            for at in range(0, len(data), structs.HEADER_SIZE):
                assert find_reply(data, at, {1: READ}, ()) == at

        return run

    assert_grows_linearly(prepare, 8_000)


class Counted:
    """A connection as a key, which counts how often it is looked up."""

    def __init__(self) -> None:
        self.lookups = 0

    def __hash__(self) -> int:
        self.lookups += 1
        return 7


def test_an_unlink_costs_the_same_however_much_is_held() -> None:
    owner = Counted()
    out: list[Event] = []
    hindsight: Hindsight = Hindsight(lambda _, event: out.append(event), 10**9, max_events=10**6, max_bytes=1)
    done = Completion(0)
    hindsight.add(owner, [Completed(n, n, READ, done, 0) for n in range(4000)])
    hindsight.add(owner, [Unlink(4000, 10**6, 10**6, b"")])
    before = owner.lookups
    hindsight.add(owner, [Unlink(4001 + n, 10**6 + n, n, b"") for n in range(4000)])
    assert owner.lookups - before <= 4000 * 2
    hindsight.flush()
    assert [event.unlink for event in out if isinstance(event, Completed)] == list(range(10**6, 10**6 + 4000))
    assert not hindsight._completed
    assert not hindsight._changed


@pytest.mark.parametrize("crossing", [False, True])
def test_the_work_of_hindsight_grows_as_what_comes(crossing: bool) -> None:
    def prepare(size: int) -> Run:
        hindsight: Hindsight = Hindsight(lambda *_: None, 10**9, max_events=10**6, max_bytes=1)
        done = Completion(0)
        events: list[Event] = []
        for n in range(size):
            events += [Completed(n, n, READ, done, 0), Unlink(n, n, n if crossing else -1, b"")]

        def run() -> None:
            for at in range(0, len(events), 50):
                hindsight.add(1, events[at : at + 50])
            hindsight.flush()

        return run

    assert_grows_linearly(prepare, 4_000)
