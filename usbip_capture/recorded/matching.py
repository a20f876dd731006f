"""What a recorded device answers: finds in the conversation what a host asks now, and where it differs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from usbip_capture.recorded.conversation import Exchange
from usbip_capture.recorded.episodes import Conversation, Episode, cut_key, key_of
from usbip_capture.usb.urb import DIR_IN, TransferType

_CONTROL = TransferType.CONTROL
_TYPE_BITS = 0x60
#: Divergences that are kept one by one; what is compared to find the nearest one.
MAX_DIVERGENCES = 1000
_MAX_COMPARED = 2000


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


class Matching:
    """Not locked: who owns it does that. strict: everything is to be asked in the order of the recording, and once."""

    def __init__(self, exchanges: Sequence[Exchange], conversation: Conversation, *, strict: bool = False) -> None:
        self.outcome = Outcome()
        self._strict = strict
        self._conversation = conversation
        self._next: dict[int, int] = defaultdict(int)  # function -> place of the episode that is expected
        self._requests: dict[bytes, list[Exchange]] = defaultdict(list)
        self._heads: dict[bytes, list[Exchange]] = defaultdict(list)
        for exchange in exchanges:
            if exchange.transfer_type == _CONTROL and not exchange.unlinked:
                self._requests[exchange.setup + exchange.sent].append(exchange)
                self._heads[exchange.setup[:6] + exchange.sent].append(exchange)
        asks = [e for e in exchanges if _counts(e)]
        self._order = asks
        self._at = 0
        self._taken: set[int] = set()

    @property
    def unused(self) -> list[Exchange]:
        """What the recording has of asks and was not asked."""
        return [exchange for exchange in self._order if id(exchange) not in self._taken]

    def request(self, setup: bytes, sent: bytes) -> Exchange | None:
        """The control transfer that answers this one. None, and a divergence: the recording does not have it."""
        asked = Exchange(0, 0, _CONTROL, setup[0] & DIR_IN, setup, sent)
        counts = _counts(asked)
        self.outcome.asked += counts
        known = self._requests.get(setup + sent) or self._heads.get(setup[:6] + sent)
        if known is None or (self._strict and counts and not self._in_order(asked)):
            self._diverges(asked)
            return None
        return self._one_of(known, counts)

    def has(self, setup: bytes, sent: bytes) -> bool:
        """Whether the recording has this control transfer."""
        return setup + sent in self._requests or setup[:6] + sent in self._heads

    def begins(self, asked: Exchange, function: int) -> Episode | None:
        """The episode that this transfer, or request, begins; None if the recording does not have it.

        Of a transfer, that is a divergence.
        """
        is_transfer = asked.transfer_type != _CONTROL
        self.outcome.asked += is_transfer
        episodes = self._conversation.episodes.get(function, [])
        key = key_of(asked)
        at = self._find(episodes, key, self._next[function])
        if at is None and is_transfer:
            at = self._find(episodes, cut_key(asked), self._next[function])
        if is_transfer and (at is None or (self._strict and not self._in_order(asked))):
            self._diverges(asked)
            return None
        if at is None:
            return None
        episode = episodes[at]
        self._next[function] = at + 1
        if is_transfer and episode.ask is not None:
            self.outcome.repeated += id(episode.ask) in self._taken
            self._take(episode.ask)
        episode.used += 1
        return episode

    def _find(self, episodes: list[Episode], key: bytes, start: int) -> int | None:
        """The next of this key; else one before that was not used; else the last that was."""
        for at in range(start, len(episodes)):
            if episodes[at].key == key:
                return at
        places = [at for at in range(min(start, len(episodes))) if episodes[at].key == key]
        if self._strict or not places:
            return None
        return next((at for at in places if not episodes[at].used), places[-1])

    def _one_of(self, known: list[Exchange], counts: bool) -> Exchange:
        """The first that was not taken, in the order of the recording; else the last."""
        found = next((exchange for exchange in known if id(exchange) not in self._taken), None)
        if found is None:
            self.outcome.repeated += counts
            return known[-1]
        self._take(found)
        return found

    def _take(self, exchange: Exchange) -> None:
        self._taken.add(id(exchange))
        while self._at < len(self._order) and id(self._order[self._at]) in self._taken:
            self._at += 1

    def _in_order(self, asked: Exchange) -> bool:
        return self._at < len(self._order) and key_of(self._order[self._at]) == key_of(asked)

    def _diverges(self, asked: Exchange) -> None:
        like = [e for e in self._order if _place(e) == _place(asked)][:_MAX_COMPARED]
        nearest = max(like, key=_likeness(asked), default=None)
        following = self._order[self._at :]
        expected = next((e for e in following if self._strict or _place(e) == _place(asked)), None)
        divergence = Divergence(str(asked))
        if expected is not None:
            divergence.expected, divergence.number = str(expected), expected.number
        if nearest is not None:
            divergence.nearest, divergence.nearest_number = str(nearest), nearest.number
        self.outcome.add(divergence)


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
