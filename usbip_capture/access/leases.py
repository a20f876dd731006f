"""For whom a device is reserved, until when, and who comes next. Times are given, in seconds since 1970.

A device is named by its busid, a client by the text of a pattern: one that is written otherwise is another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from usbip_capture.errors import DeviceNotFound, LocalProtocolError

#: The longest turn, in seconds, and the most turns for one device, and devices.
MAX_SECONDS = 30 * 86_400
MAX_TURNS = 64
MAX_DEVICES = 256
_VERSION = 1
_MAX_BUSID, _MAX_HOLDER = 31, 256
_MAX_TIME = 1 << 34  # the year 2514, which any system can show


class Turn(NamedTuple):
    """The holder has the device from `begins` to `until`; both move forward when an earlier turn ends sooner."""

    holder: str
    begins: float
    until: float

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.until - self.begins


class Leases:
    """The turns of each device, in their order: each begins when the one before it ends. Never changed, but replaced.

    A holder has one turn that goes on, and one that waits, at most.
    """

    __slots__ = ("_turns",)

    def __init__(self, turns: Mapping[str, tuple[Turn, ...]] | None = None) -> None:
        self._turns = dict(turns or {})

    def turns(self, busid: str, now: float) -> tuple[Turn, ...]:
        """Those that are not over: of who has the device, then of who comes next."""
        return tuple(turn for turn in self._turns.get(busid, ()) if turn.until > now)

    def holder(self, busid: str, now: float) -> Turn | None:
        """The turn of who has it now; None if it is free."""
        return next((turn for turn in self._turns.get(busid, ()) if turn.until > now), None)

    def busids(self, now: float) -> list[str]:
        """The devices that are reserved."""
        return [busid for busid in self._turns if self.holder(busid, now) is not None]

    @property
    def holders(self) -> set[str]:
        """Who has a turn, or had one."""
        return {turn.holder for turns in self._turns.values() for turn in turns}

    def next_end(self, now: float) -> float | None:
        """When the first of the turns that go on ends; None if there is none."""
        return min((turn.until for busid in self._turns if (turn := self.holder(busid, now))), default=None)

    def reserve(self, busid: str, holder: str, seconds: float, now: float) -> tuple[Leases, Turn]:
        """These with one more turn, and that turn. Who has the device, or waits, has the length of the turn changed.

        Who has it while others wait may only shorten it: for more there is another turn, the last one. Raises
        LocalProtocolError.
        """
        if not 0 < seconds <= MAX_SECONDS:
            raise LocalProtocolError(f"a device is reserved for up to {MAX_SECONDS // 86_400} days at a time")
        turns = self.turns(busid, now)
        at = _place(turns, holder, now + seconds)
        if at == len(turns) and at >= MAX_TURNS:
            raise LocalProtocolError(f"{busid} is reserved {MAX_TURNS} times already: try again later")
        if not turns and len(self.busids(now)) >= MAX_DEVICES:
            raise LocalProtocolError(f"{MAX_DEVICES} devices are reserved already: release one")
        begins = now if at == 0 else turns[at - 1].until
        turn = Turn(holder, turns[0].begins if turns and at == 0 else begins, begins + seconds)
        following = _following(turn.until, turns[at + 1 :])
        return self._with(busid, (*turns[:at], turn, *following), now), turn

    def release(self, busid: str, holder: str, now: float) -> Leases:
        """These without the holder's turns; without the one that goes on if it is empty. Raises DeviceNotFound."""
        turns = self.turns(busid, now)
        if not turns:
            raise DeviceNotFound(f"{busid} is not reserved")
        kept = tuple(turn for turn in turns if turn.holder != holder) if holder else turns[1:]
        if len(kept) == len(turns):
            raise DeviceNotFound(f"{busid} is not reserved for {holder}, but for {turns[0].holder}")
        first = turns[:1] if kept[:1] == turns[:1] else ()  # whose turn goes on keeps it
        return self._with(busid, (*first, *_following(first[0].until if first else now, kept[len(first) :])), now)

    def _with(self, busid: str, turns: tuple[Turn, ...], now: float) -> Leases:
        """With these turns of a device; what is over is dropped."""
        current = {other: self.turns(other, now) for other in self._turns}
        return Leases({other: kept for other, kept in {**current, busid: turns}.items() if kept})

    def __str__(self) -> str:
        """As `parse` takes it."""
        return json.dumps(
            {
                "version": _VERSION,
                "leases": {busid: [turn._asdict() for turn in turns] for busid, turns in self._turns.items()},
            },
            indent=1,
        )

    @classmethod
    def parse(cls, text: str) -> Leases:
        """From the text of a file. Raises ValueError, with the reason, for whatever is not all of one."""
        try:
            state = json.loads(text, object_pairs_hook=_unique, parse_constant=_constant)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        leases = _fields(state, "version", "leases")["leases"]
        if state["version"] != _VERSION or isinstance(state["version"], bool):
            raise ValueError(f"its version is not {_VERSION}: it is of another program")
        if not isinstance(leases, dict) or len(leases) > MAX_DEVICES:
            raise ValueError(f"its leases are not those of at most {MAX_DEVICES} devices")
        return cls({_text(busid, _MAX_BUSID): _parsed_turns(busid, turns) for busid, turns in leases.items()})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Leases) and self._turns == other._turns

    __hash__ = None  # type: ignore[assignment]  # of what is compared by its dict

    def __repr__(self) -> str:
        return f"Leases({self._turns!r})"


def _place(turns: tuple[Turn, ...], holder: str, until: float) -> int:
    """Where the turn of this holder goes, which is to end at `until` if it goes on: of another one, or at the end."""
    if turns and turns[0].holder == holder and (len(turns) == 1 or until <= turns[0].until):
        return 0
    waiting = (at for at, turn in enumerate(turns) if at and turn.holder == holder)
    return next(waiting, len(turns))


def _following(until: float, turns: Iterable[Turn]) -> list[Turn]:
    """These turns, as long as they are, the first beginning at `until`."""
    made = []
    for turn in turns:
        made.append(Turn(turn.holder, until, until + turn.seconds))
        until = made[-1].until
    return made


def _parsed_turns(busid: str, turns: object) -> tuple[Turn, ...]:
    """Raises ValueError."""
    if not isinstance(turns, list) or not 0 < len(turns) <= MAX_TURNS:
        raise ValueError(f"those of {busid!r} are not 1 to {MAX_TURNS} turns")
    made: list[Turn] = []
    for fields in turns:
        given = _fields(fields, *Turn._fields)
        turn = Turn(_text(given["holder"], _MAX_HOLDER), _time(given["begins"]), _time(given["until"]))
        if turn.until <= turn.begins or (made and turn.begins != made[-1].until):
            raise ValueError(f"the turns of {busid!r} do not follow one another")
        made.append(turn)
    return tuple(made)


def _fields(found: object, *names: str) -> dict[str, object]:
    """Raises ValueError unless it has these, and no others."""
    if not isinstance(found, dict) or set(found) != set(names):
        raise ValueError(f"it has something else where {', '.join(names)} must be")
    return found


def _text(found: object, longest: int) -> str:
    if not isinstance(found, str) or not 0 < len(found) <= longest or not found.isprintable():
        raise ValueError(f"{str(found)[:40]!r} is not a name")
    return found


def _time(found: object) -> float:
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 <= found < _MAX_TIME:
        raise ValueError(f"{str(found)[:40]} is not a time")
    return found


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name in it is there twice")
    return made


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not a time")
