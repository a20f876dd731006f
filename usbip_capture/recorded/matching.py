"""What a recorded device answers: finds in the conversation what a host asks now, and where it differs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import overload

from usbip_capture.recorded.blocks import RecordedDisk
from usbip_capture.recorded.conversation import Exchange
from usbip_capture.recorded.episodes import Conversation, Episode
from usbip_capture.recorded.exchanges import BEGINS_NOTHING, NOT_ASKED, Exchanges, indexed
from usbip_capture.recorded.keys import cut_digest, digest_of, key_of, request_digest
from usbip_capture.recorded.places import Places, Search
from usbip_capture.recorded.rows import Rows
from usbip_capture.recorded.tags import is_cbw
from usbip_capture.usb.urb import DIR_IN, TransferType

_CONTROL = TransferType.CONTROL
_TYPE_BITS = 0x60
#: Divergences that are kept one by one; what is compared to find the nearest one.
MAX_DIVERGENCES = 1000
_MAX_COMPARED = 2000
#: Different things asked of which it is kept where the recording has them.
_MAX_SEARCHES = 4096
_EPISODE = 2


@dataclass(slots=True)
class Divergence:
    """What was asked that the recording does not have. expected, nearest: what it has next, and what is most like it.

    number, nearest_number: their packets, as Wireshark counts them; 0 if there is none.
    """

    asked: str
    expected: str = ""
    number: int = 0
    nearest: str = ""
    nearest_number: int = 0

    def __str__(self) -> str:
        text = f"asked: {self.asked}"
        if self.number:
            text += f"; expected: {self.expected} (packet {self.number})"
        else:
            text += "; the recording has nothing more to be asked"
        if self.nearest_number and self.nearest_number != self.number:
            text += f"; most like it: {self.nearest} (packet {self.nearest_number})"
        return text


@dataclass(slots=True)
class Outcome:
    """What has happened in a replay. asked: of what counts; repeated: of these, what was answered as before again."""

    asked: int = 0
    repeated: int = 0
    lost: int = 0
    divergences: list[Divergence] = field(default_factory=list)

    def add(self, divergence: Divergence) -> None:
        """Keep it, if there is room."""
        if len(self.divergences) < MAX_DIVERGENCES:
            self.divergences.append(divergence)
        else:
            self.lost += 1


class Unused(Sequence[Exchange]):
    """What the recording has of asks and was not asked, made as it is looked at."""

    def __init__(self, exchanges: Exchanges, taken: Places) -> None:
        self._exchanges = exchanges
        self._taken = taken

    def __len__(self) -> int:
        return self._exchanges.counted - len(self._taken)

    def __iter__(self) -> Iterator[Exchange]:
        for at, (digest,) in enumerate(self._exchanges.digests.iterate()):
            if digest != NOT_ASKED and at not in self._taken:
                yield self._exchanges.asked_at(at)

    @overload
    def __getitem__(self, place: int) -> Exchange: ...
    @overload
    def __getitem__(self, place: slice) -> list[Exchange]: ...
    def __getitem__(self, place: int | slice) -> Exchange | list[Exchange]:
        if isinstance(place, slice):
            begin, end, step = place.indices(len(self))
            return list(islice(self, begin, end, step)) if step > 0 else list(self)[place]
        at = place + len(self) if place < 0 else place
        for exchange in islice(self, max(at, 0), None) if at >= 0 else ():
            return exchange
        raise IndexError(place)


class Matching:
    """Not locked: who owns it does that. strict: everything is to be asked in the order of the recording, and once."""

    def __init__(self, exchanges: Sequence[Exchange], conversation: Conversation, *, strict: bool = False) -> None:
        self.outcome = Outcome()
        self._strict = strict
        self._conversation = conversation
        self._disks: dict[int, RecordedDisk] = {}
        self._exchanges = indexed(exchanges)
        self._next: dict[int, int] = defaultdict(int)  # function -> from where on what it is asked next is expected
        self._searches: dict[tuple[int, bytes], Search] = {}
        self._at = 0
        self._taken = Places()
        self._played = Places()
        self._answered = Places()  # of the requests

    @property
    def unused(self) -> Sequence[Exchange]:
        """What the recording has of asks and was not asked."""
        return Unused(self._exchanges, self._taken.copy())

    @property
    def left(self) -> int:
        """How much of that there is."""
        return self._exchanges.counted - len(self._taken)

    def request(self, setup: bytes, sent: bytes) -> Exchange | None:
        """The control transfer that answers this one. None, and a divergence: the recording does not have it."""
        asked = Exchange(0, 0, _CONTROL, setup[0] & DIR_IN, setup, sent)
        counts = _counts(asked)
        self.outcome.asked += counts
        known = self._requests(setup, sent)
        if known is None or (self._strict and counts and not self._in_order(asked)):
            self._diverges(asked)
            return None
        return self._one_of(*known, counts)

    def has(self, setup: bytes, sent: bytes) -> bool:
        """Whether the recording has this control transfer."""
        return self._requests(setup, sent) is not None

    def begins(self, asked: Exchange, function: int) -> Episode | None:
        """The episode that this transfer, or request, begins; None if the recording does not have it.

        Of a transfer, that is a divergence.
        """
        is_transfer = asked.transfer_type != _CONTROL
        self.outcome.asked += is_transfer
        at = self._find(digest_of(asked), self._next[function])
        if at is None and is_transfer:
            at = self._find(cut_digest(asked), self._next[function])
        if is_transfer and at is None and not self._strict and is_cbw(asked.sent):
            if function not in self._disks:
                self._disks[function] = RecordedDisk(self._conversation, function)
            read = self._disks[function].read(asked.sent, self._played)
            if read is not None:
                return read
        if is_transfer and (at is None or (self._strict and not self._in_order(asked))):
            self._diverges(asked)
            return None
        if at is None:
            return None
        self._next[function] = at + 1
        if is_transfer:
            self.outcome.repeated += at in self._taken
            self._take(at)
        self._played.add(at)
        return self._conversation.episode(at, function)

    def _search(self, kind: int, rows: Rows, digest: bytes) -> Search:
        """What is known of a digest's places: the latest ones are kept."""
        search = self._searches.pop((kind, digest), None) or Search(rows, digest)
        self._searches[kind, digest] = search
        if len(self._searches) > _MAX_SEARCHES:
            del self._searches[next(iter(self._searches))]
        return search

    def _requests(self, setup: bytes, sent: bytes) -> tuple[Search, int] | None:
        """Those that are like this one, and the place of any of them."""
        exchanges = self._exchanges
        for kind, (rows, head) in enumerate(((exchanges.request_digests, setup), (exchanges.request_heads, setup[:6]))):
            search = self._search(kind, rows, request_digest(head, sent))
            first = search.following(0) if search.last is None else search.last
            if first is not None:
                return search, first
        return None

    def _find(self, digest: bytes, start: int) -> int | None:
        """The next of this key; else one before that was not used; else the last that was."""
        search = self._search(_EPISODE, self._exchanges.digests, digest)
        found = search.following(start)
        while found is not None and self._exchanges.tags[found][0] >= BEGINS_NOTHING:
            found = search.following(found + 1)
        if found is not None or self._strict:
            return found
        while (found := search.unused(self._played)) is not None:
            if self._exchanges.tags[found][0] < BEGINS_NOTHING:
                return found
            self._played.add(found)
        last = search.last
        return last if last is not None and self._exchanges.tags[last][0] < BEGINS_NOTHING else None

    def _one_of(self, search: Search, known: int, counts: bool) -> Exchange:
        """The first that was not taken, in the order of the recording; else the last."""
        found = search.unused(self._answered)
        if found is None:
            self.outcome.repeated += counts
            found = known if search.last is None else search.last
        else:
            self._answered.add(found)
        place, asked = self._exchanges.requests[found]
        if asked >= 0:
            self._take(asked)
        return self._exchanges.at(place)

    def _take(self, at: int) -> None:
        self._taken.add(at)
        whole = len(self._exchanges.asked)
        while self._at < whole and (self._at in self._taken or self._exchanges.digests[self._at][0] == NOT_ASKED):
            self._at += 1

    def _in_order(self, asked: Exchange) -> bool:
        at = self._at
        whole = len(self._exchanges.asked)
        while at < whole and self._exchanges.digests[at][0] == NOT_ASKED:
            at += 1
        return at < whole and self._exchanges.digests[at][0] == digest_of(asked)

    def _diverges(self, asked: Exchange) -> None:
        nearest = max(self._near(asked, max(self._at - _MAX_COMPARED // 2, 0)), key=_likeness(asked), default=None)
        expected = next(self._near(asked, self._at, everything=self._strict), None)
        divergence = Divergence(str(asked))
        if expected is not None:
            divergence.expected, divergence.number = str(expected), expected.number
        if nearest is not None:
            divergence.nearest, divergence.nearest_number = str(nearest), nearest.number
        self.outcome.add(divergence)

    def _near(self, asked: Exchange, start: int, *, everything: bool = False) -> Iterator[Exchange]:
        """What is asked in the recording from there on, of the same place as `asked`, as far as it is looked at."""
        exchanges = self._exchanges
        columns = zip(exchanges.asked.iterate(start), exchanges.digests.iterate(start), strict=True)
        for (place,), (digest,) in islice(columns, _MAX_COMPARED):
            row = exchanges.row(place)
            is_like = everything or (row.transfer_type, row.endpoint if row.transfer_type != _CONTROL else 0) == _place(
                asked
            )
            if digest != NOT_ASKED and is_like:
                yield exchanges[place]


def _counts(exchange: Exchange) -> bool:
    """Whether it is something that a program asks: what a system asks of every device by itself does not count."""
    if exchange.transfer_type == _CONTROL:
        return bool(exchange.setup[0] & _TYPE_BITS) and not (exchange.number and exchange.unlinked)
    is_out = not exchange.endpoint & DIR_IN and exchange.transfer_type != TransferType.ISOCHRONOUS
    return is_out and not (exchange.number and exchange.unlinked)


def _place(exchange: Exchange) -> tuple[int, int]:
    """What is compared with each other."""
    return exchange.transfer_type, 0 if exchange.transfer_type == _CONTROL else exchange.endpoint


def _likeness(asked: Exchange) -> Callable[[Exchange], int]:
    wanted = key_of(asked)

    def likeness(other: Exchange) -> int:
        key = key_of(other)
        same = sum(one == another for one, another in zip(wanted, key, strict=False))
        return 2 * same - abs(len(wanted) - len(key))

    return likeness
