"""The exchanges of a recorded device as an index: their data stay in the capture, which may be long.

In memory is what does not grow with it. Each exchange is a row of the `Storage`, and is made anew when it is asked for.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple, overload

from usbip_capture.recorded.conversation import Exchange
from usbip_capture.recorded.keys import cut_digest, digest_of, request_digest, transfer_digest
from usbip_capture.recorded.rows import MemoryStorage, Rows, Storage
from usbip_capture.usb.setup import RECIPIENT_INTERFACE
from usbip_capture.usb.status import GONE, UNLINKED
from usbip_capture.usb.urb import DIR_IN, TransferType

_CONTROL, _ISOCHRONOUS = TransferType.CONTROL, TransferType.ISOCHRONOUS
_TYPE_BITS = 0x60
#: Of what was asked, what it may begin: that of an OUT transfer is its endpoint, that of a request its interface.
OF_INTERFACE, OF_DEVICE = 0x100, 0x200
BEGINS_NOTHING, _NEVER = 0x300, 0xFFFF
_TAG = Struct("<H").pack
#: Digest of what the device has not ended.
NOT_ASKED = bytes(8)
# Submit: place in the capture, time, packet, size, interface, transfer type, endpoint; then of its completion: place,
# time, packet, size, status, whether data is missing in either.
_URB, _DONE_AT = "<QqQIHBBQqQIiB", 32
_DONE = Struct("<QqQIiB").pack


class Row(NamedTuple):
    """An exchange without its data; places are those of its packets in the capture."""

    submit_at: int
    time_ns: int
    number: int
    submit_size: int
    interface: int
    transfer_type: int
    endpoint: int
    done_at: int
    end_ns: int
    answered: int
    done_size: int
    status: int
    cut: int


@dataclass(slots=True)
class Endpoint:
    """One that was used. longest: bytes of a transfer. answers: packet and place of what it has brought, of IN."""

    transfer_type: TransferType
    longest: int = 0
    answers: Rows | None = None


class Open(NamedTuple):
    """A transfer under way: its places in the tables, -1 where it is not. cut: its packet if data are missing."""

    place: int
    asked: int
    request: int
    cut: int
    length: int


class Exchanges(Sequence[Exchange]):
    """Those of a device in the order of their submits. fetch: makes the one of a row, at its place.

    asked, tags, digests: what counts as asked by a program, each table in the order of the recording. requests: all
    control transfers, with where they are in `asked`. standard: places of the standard requests. counted: those of
    `asked` that the device has ended. begins_ns: the earliest submit. cut: how many lack data, first_cut: its packet.
    last_alive: packet of the last completion by which the device was there. gone_ns: the first one after that.
    """

    def __init__(self, storage: Storage, fetch: Callable[[Exchanges, int, Row], Exchange]) -> None:
        self._fetch = fetch
        self._urbs = Rows(storage, _URB)
        self._storage = storage
        self.asked, self.tags, self.digests = (Rows(storage, layout) for layout in ("<Q", "<H", "<8s"))
        self.requests, self.request_digests = Rows(storage, "<Qq"), Rows(storage, "<8s")
        self.request_heads = Rows(storage, "<8s")
        self.standard = Rows(storage, "<Q")
        self._apart = Rows(storage, "<QQI")
        self.endpoints: dict[int, Endpoint] = {}
        self.tags_used: set[int] = set()
        self.begins_ns = 0
        self.counted = 0
        self.answered = self.cut = self.first_cut = self.last_alive = self.gone_ns = 0

    def __len__(self) -> int:
        return len(self._urbs)

    @overload
    def __getitem__(self, place: int) -> Exchange: ...
    @overload
    def __getitem__(self, place: slice) -> list[Exchange]: ...
    def __getitem__(self, place: int | slice) -> Exchange | list[Exchange]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        at = place + len(self) if place < 0 else place
        if not 0 <= at < len(self):
            raise IndexError(place)
        return self.at(at)

    def __iter__(self) -> Iterator[Exchange]:
        for place, row in enumerate(self._urbs.iterate()):
            yield self._fetch(self, place, Row(*row))

    def row(self, place: int) -> Row:
        """An exchange without its data."""
        return Row(*self._urbs[place])

    def at(self, place: int) -> Exchange:
        """An exchange."""
        return self._fetch(self, place, self.row(place))

    def asked_at(self, place: int) -> Exchange:
        """The exchange at a place of `asked`."""
        return self.at(self.asked[place][0])

    def rows(self) -> Iterator[Row]:
        """All of them, without their data."""
        return map(Row._make, self._urbs.iterate())

    def standard_requests(self) -> Iterator[Exchange]:
        """All of them, in order."""
        return (self[place] for (place,) in self.standard.iterate())

    @property
    def seconds_to_end(self) -> float:
        """From the last thing that was asked until the device was unplugged, 0 if it was not."""
        asked_ns = self.row(self.asked[len(self.asked) - 1][0]).time_ns if len(self.asked) else self.begins_ns
        return max(self.gone_ns - asked_ns, 0) * 1e-9 if self.gone_ns else 0.0

    def table(self, layout: str) -> Rows:
        """An empty table where the index is."""
        return Rows(self._storage, layout)

    def control_requests(self) -> Iterator[Exchange]:
        """All of them, in order."""
        return (self.at(place) for place, _ in self.requests.iterate())

    # -- as they are read

    def endpoint(self, address: int, transfer_type: TransferType) -> Endpoint:
        """The endpoint of a transfer, known from now on."""
        found = self.endpoints.get(address)
        if found is None:
            found = self.endpoints[address] = Endpoint(transfer_type)
            if address & DIR_IN:
                found.answers = Rows(self._storage, "<QQ")
        return found

    def begin(
        self, number: int, time_ns: int, kind: int, endpoint: int, setup: bytes, sent: bytes, length: int, cut: bool,
        at: int = 0, size: int = 0, interface: int = 0,
    ) -> Open:  # fmt: skip
        """A submit, or, with number 0, that there was one before the capture began."""
        urbs = self._urbs
        cuts = None if not cut else cut_digest(Exchange(0, 0, TransferType(kind), endpoint, setup, length=length))
        place = len(urbs)
        if not place or time_ns < self.begins_ns:
            self.begins_ns = time_ns
        urbs.append(urbs.pack(at, time_ns, number, size, interface, kind, endpoint, 0, 0, 0, 0, 0, 0))
        asked = request = -1
        if kind == _CONTROL:
            digest = request_digest(setup, sent)
            if setup[0] & _TYPE_BITS:
                asked = self._ask(place, cuts or digest, _tag_of_request(setup))
            else:
                self.standard.append(self.standard.pack(place))
            request = len(self.requests)
            self.requests.append(self.requests.pack(place, asked))
            self.request_digests.append(digest)
            self.request_heads.append(request_digest(setup[:6], sent))
        elif not endpoint & DIR_IN and kind != _ISOCHRONOUS:
            asked = self._ask(place, cuts or transfer_digest(endpoint, sent), endpoint)
        return Open(place, asked, request, number if cut else 0, length)

    def _ask(self, place: int, digest: bytes, tag: int) -> int:
        ordinal = len(self.asked)
        self.asked.append(self.asked.pack(place))
        self.tags.append(_TAG(tag))
        self.digests.append(digest)
        if tag != BEGINS_NOTHING:
            self.tags_used.add(tag)
        self.counted += 1
        return ordinal

    def sent(self, found: Open, setup: bytes, sent: bytes, at: int, *, whole: bool) -> Open:
        """The data of a request, which a packet of its own has there."""
        self._apart.append(self._apart.pack(found.place, at, len(sent)))
        digest = request_digest(setup, sent)
        if found.asked >= 0 and whole:
            self.digests.patch(found.asked, 0, digest)
        self.request_digests.patch(found.request, 0, digest)
        self.request_heads.patch(found.request, 0, request_digest(setup[:6], sent))
        return found._replace(cut=0) if whole else found

    def where_sent(self, place: int) -> tuple[int, int] | None:
        """Where the data of a request are, and how many, if they have a packet of their own."""
        found = bisect_left(_Firsts(self._apart), place)
        if found == len(self._apart) or self._apart[found][0] != place:
            return None
        _, at, size = self._apart[found]
        return at, size

    def end(
        self, found: Open, number: int, time_ns: int, status: int, answers: Rows | None, cut: bool,
        at: int = 0, size: int = 0,
    ) -> None:  # fmt: skip
        """A completion; answers: those of its endpoint, if it is IN and not of control."""
        self.answered += 1
        missing = found.cut or (number if cut else 0)
        self._urbs.patch(found.place, _DONE_AT, _DONE(at, time_ns, number, size, status, bool(missing)))
        if missing:
            self.cut += 1
            self.first_cut = self.first_cut or missing
        if status in UNLINKED:
            self._forget(found)
            return
        if not status or status not in GONE:
            self.last_alive, self.gone_ns = number, 0
        elif not self.gone_ns:
            self.gone_ns = time_ns
        if answers is not None:
            answers.append(answers.pack(number, found.place))
        elif status and found.request >= 0 and found.asked >= 0:
            self.tags.patch(found.asked, 0, _TAG(BEGINS_NOTHING))

    def abandon(self, found: Open) -> None:
        """It has no completion in the capture."""
        if found.cut:
            self.cut += 1
            self.first_cut = self.first_cut or found.cut
            self._urbs.patch(found.place, _DONE_AT, _DONE(0, 0, 0, 0, 0, 1))
        self._forget(found)

    def settle_sent(self) -> None:
        """The device has taken all OUT transfers that were submitted."""
        for place, row in enumerate(self.rows()):
            if row.transfer_type != _CONTROL and not row.endpoint & DIR_IN:
                self._urbs.patch(place, _DONE_AT, _DONE(0, row.time_ns, row.number, 0, 0, row.cut))
                self.answered += 1
        for ordinal, (place,) in enumerate(self.asked.iterate()):
            one = self.at(place)
            if one.transfer_type != _CONTROL:
                self.tags.patch(ordinal, 0, _TAG(one.endpoint))
                self.digests.patch(ordinal, 0, digest_of(one))
                self.counted += 1

    def _forget(self, found: Open) -> None:
        if found.asked >= 0:
            self.tags.patch(found.asked, 0, _TAG(_NEVER))
            self.digests.patch(found.asked, 0, NOT_ASKED)
            self.counted -= 1
        if found.request >= 0:
            self.request_digests.patch(found.request, 0, NOT_ASKED)
            self.request_heads.patch(found.request, 0, NOT_ASKED)


def _tag_of_request(setup: bytes) -> int:
    if setup[0] & DIR_IN:
        return BEGINS_NOTHING
    return OF_INTERFACE | setup[4] if setup[0] & 0x1F == RECIPIENT_INTERFACE else OF_DEVICE


def indexed(exchanges: Sequence[Exchange]) -> Exchanges:
    """Any exchanges as such an index."""
    if isinstance(exchanges, Exchanges):
        return exchanges
    made = Exchanges(MemoryStorage(), lambda _self, place, _row: exchanges[place])
    begun = []
    for one in exchanges:
        kind = one.transfer_type
        if kind != _CONTROL:
            used = made.endpoint(one.endpoint, kind)
            used.longest = max(used.longest, one.length, one.moved)
        begun.append(made.begin(one.number, one.time_ns, kind, one.endpoint, one.setup, one.sent, one.length, one.cut))
    for place in sorted(range(len(exchanges)), key=lambda place: exchanges[place].answered):
        one = exchanges[place]
        if not one.answered:
            made.abandon(begun[place])
            continue
        answers = made.endpoints[one.endpoint].answers if one.transfer_type != _CONTROL else None
        made.end(begun[place], one.answered, one.end_ns, one.status, answers, one.cut)
    return made


def first_after(answers: Rows, number: int, hint: int = 0) -> int:
    """Where the answers that came after packet `number` begin; it is looked at `hint` first."""
    follows = hint <= len(answers) and (not hint or answers[hint - 1][0] <= number)
    if follows and (hint == len(answers) or answers[hint][0] > number):
        return hint
    return bisect_right(_Firsts(answers), number)


class _Firsts(Sequence[int]):
    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> int:  # type: ignore[override]  # no slices
        return int(self._rows[place][0])
