"""What convert and the relay share: completions found by their seqnum, changed if a CMD_UNLINK crossed them."""

from __future__ import annotations

from random import Random

import pytest

from usbip_capture.convert.hindsight import WINDOW_NS
from usbip_capture.convert.hindsight import Hindsight as ByPortions
from usbip_capture.usb.status import ECONNRESET
from usbip_capture.usb.urb import Completion, TransferType, Urb
from usbip_capture.wire.hindsight import Held, Hindsight
from usbip_capture.wire.observed import Completed, Event, Submitted, Unlink

READ = Urb(TransferType.BULK, 0x81, 64)


class Users:
    """The same events through the relay's hindsight and convert's."""

    def __init__(self) -> None:
        self.relay: list[tuple[object, Event]] = []
        self.convert: list[tuple[object, Event]] = []
        self._by_age: Hindsight = Hindsight(
            lambda *item: self.relay.append(item), WINDOW_NS, max_events=10**6, max_bytes=10**9
        )
        self._by_portions = ByPortions(lambda *item: self.convert.append(item))

    def add(self, owner: object, *events: Event) -> None:
        self._by_age.add(owner, list(events))
        self._by_portions.add(owner, list(events))

    def at(self, now_ns: int) -> None:
        self._by_age.release(now_ns)
        self._by_portions.portion(now_ns, 1)

    def flush(self) -> None:
        self._by_age.flush()
        self._by_portions.flush()


def completed(timestamp_ns: int, seqnum: int) -> Completed:
    return Completed(timestamp_ns, seqnum, READ, Completion(0, 4, b"data"), 0)


def changed(items: list[tuple[object, Event]]) -> list[tuple[object, int, int]]:
    return [(owner, e.seqnum, e.unlink) for owner, e in items if isinstance(e, Completed) and e.unlink]


def comparable(items: list[tuple[object, Event]]) -> list[tuple[object, ...]]:
    """Completions that were changed are objects of each user's own."""
    return [
        (owner, e.timestamp_ns, e.seqnum, e.unlink, e.completion.status) if isinstance(e, Completed) else (owner, e)
        for owner, e in items
    ]


def test_a_crossed_completion_is_one_of_an_unlinked_urb() -> None:
    users = Users()
    users.add("a", completed(0, 7), completed(1, 8))
    users.add("b", completed(2, 7))
    users.add("a", Unlink(3, 9, 7, b""))
    users.flush()
    assert comparable(users.relay) == comparable(users.convert)
    assert changed(users.convert) == [("a", 7, 9)]
    first = users.convert[0][1]
    assert isinstance(first, Completed)
    assert (first.completion.status, first.completion.data) == (-ECONNRESET, b"data")


@pytest.mark.parametrize("seed", range(20))
def test_both_users_hand_on_the_same(seed: int) -> None:
    random, users = Random(seed), Users()
    given: list[Event] = []
    now = 0
    for n in range(3000):
        now += random.randrange(WINDOW_NS // 50)
        kind, seqnum = random.random(), random.randrange(40)
        event: Event
        if kind < 0.4:
            event = completed(now, seqnum)
        elif kind < 0.8:
            event = Submitted(now, seqnum, READ, b"")
        else:
            event = Unlink(now, 1000 + n, seqnum, b"")
        users.add(random.choice("ab"), event)
        given.append(event)
        if random.random() < 0.05:  # convert holds events of so many portions only
            users.at(now)
    users.flush()
    assert changed(users.convert)
    assert comparable(users.relay) == comparable(users.convert)
    assert [event.timestamp_ns for _, event in users.relay] == [event.timestamp_ns for event in given]


def test_what_cannot_be_written_does_not_move_the_index() -> None:
    def fail(*_: object) -> None:
        raise ValueError

    out: list[Event] = []
    held: Held = Held(fail, WINDOW_NS)
    held.items += [("a", completed(0, 1)), ("a", completed(1, 2))]
    with pytest.raises(ValueError, match=r"^$"):
        held.hand_on(1)
    held._write = lambda _, event: out.append(event)
    held.unlinked("a", Unlink(2, 9, 2, b""))
    held.hand_on(1)
    assert [event.unlink for event in out if isinstance(event, Completed)] == [9]
