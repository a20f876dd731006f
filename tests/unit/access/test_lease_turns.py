"""Reservations of devices, against a model that counts each second."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field

import pytest

from usbip_capture.access.leases import MAX_DEVICES, MAX_SECONDS, MAX_TURNS, Leases, Turn
from usbip_capture.errors import DeviceNotFound, LocalProtocolError

ANN, BOB, CAT = "paired:ann", "192.0.2.7", "local"


@dataclass
class Slow:
    """One device: who waits, each with the seconds that are left. Time passes second by second."""

    line: list[list[object]] = field(default_factory=list)
    now: int = 1000

    def second(self) -> None:
        self.now += 1
        if self.line:
            self.line[0][1] -= 1  # type: ignore[operator]
            if self.line[0][1] == 0:
                self.line.pop(0)

    def reserve(self, holder: str, seconds: int) -> None:
        if self.line and self.line[0][0] == holder and (len(self.line) == 1 or seconds <= self.line[0][1]):  # type: ignore[operator]
            self.line[0][1] = seconds
            return
        for entry in self.line[1:]:
            if entry[0] == holder:
                entry[1] = seconds
                return
        self.line.append([holder, seconds])

    def release(self, holder: str) -> bool:
        before = len(self.line)
        if holder:
            self.line = [entry for entry in self.line if entry[0] != holder]
        else:
            self.line = self.line[1:]
        return len(self.line) < before

    def expected(self) -> list[tuple[object, int]]:
        """Each holder, and when it loses the device if nothing else happens."""
        ahead = Slow([list(entry) for entry in self.line], self.now)
        found = []
        while ahead.line:
            holder, count = ahead.line[0][0], len(ahead.line)
            while len(ahead.line) == count:
                ahead.second()
            found.append((holder, ahead.now))
        return found


@pytest.mark.parametrize("seed", range(40))
def test_they_are_those_of_a_model_that_counts_each_second(seed: int) -> None:
    dice = random.Random(seed)
    models = {busid: Slow() for busid in ("1-1", "1-2")}
    leases, now = Leases(), 1000
    for _ in range(150):
        busid = dice.choice(list(models))
        holder = dice.choice([ANN, BOB, CAT])
        action = dice.random()
        if action < 0.5:
            seconds = dice.randint(1, 30)
            leases, turn = leases.reserve(busid, holder, seconds, now)
            models[busid].reserve(holder, seconds)
            assert turn in leases.turns(busid, now)
            assert turn.holder == holder
        elif action < 0.7:
            wanted = dice.choice([holder, ""])
            if models[busid].release(wanted):
                leases = leases.release(busid, wanted, now)
            else:
                with pytest.raises(DeviceNotFound):
                    leases.release(busid, wanted, now)
        else:
            for _ in range(dice.randint(1, 25)):
                now += 1
                for model in models.values():
                    model.second()
        for other, model in models.items():
            assert [(turn.holder, turn.until) for turn in leases.turns(other, now)] == model.expected()
            first = leases.holder(other, now)
            assert (first and first.holder) == (model.line[0][0] if model.line else None)
        assert leases.busids(now) == [other for other in leases.busids(now) if models[other].line]
        ends = [model.expected()[0][1] for model in models.values() if model.line]
        assert leases.next_end(now) == (min(ends) if ends else None)
        assert Leases.parse(str(leases)) == leases


def test_a_device_goes_from_one_holder_to_the_next() -> None:
    first, turn = Leases().reserve("1-1", ANN, 60, 1000)
    assert turn == Turn(ANN, 1000, 1060)
    both, turn = first.reserve("1-1", BOB, 30, 1010)
    assert turn == Turn(BOB, 1060, 1090)
    assert both.holder("1-1", 1059.9) == Turn(ANN, 1000, 1060)
    assert both.holder("1-1", 1060) == Turn(BOB, 1060, 1090)
    assert both.holder("1-1", 1090) is None
    assert both.holder("1-2", 1000) is None
    assert first.holder("1-1", 1060) is None  # what was there before is as it was


def test_the_next_one_moves_forward_when_the_device_is_released() -> None:
    leases, _ = Leases().reserve("1-1", ANN, 60, 1000)
    leases, _ = leases.reserve("1-1", BOB, 30, 1000)
    assert leases.release("1-1", "", 1010).turns("1-1", 1010) == (Turn(BOB, 1010, 1040),)
    assert leases.release("1-1", BOB, 1010).turns("1-1", 1010) == (Turn(ANN, 1000, 1060),)
    with pytest.raises(DeviceNotFound, match="1-1 is not reserved for local, but for paired:ann"):
        leases.release("1-1", CAT, 1010)
    with pytest.raises(DeviceNotFound, match=r"1-1 is not reserved$"):
        leases.release("1-1", "", 2000)


def test_who_waits_is_not_kept_waiting_by_who_has_it() -> None:
    leases, _ = Leases().reserve("1-1", ANN, 60, 1000)
    _, turn = leases.reserve("1-1", ANN, 120, 1010)
    assert turn == Turn(ANN, 1000, 1130)
    leases, _ = leases.reserve("1-1", BOB, 30, 1010)
    longer, turn = leases.reserve("1-1", ANN, 120, 1020)
    assert turn == Turn(ANN, 1090, 1210)
    assert [one.holder for one in longer.turns("1-1", 1020)] == [ANN, BOB, ANN]
    shorter, _ = leases.reserve("1-1", ANN, 10, 1020)
    assert shorter.turns("1-1", 1020) == (Turn(ANN, 1000, 1030), Turn(BOB, 1030, 1060))


def test_a_clock_that_is_set_back_frees_nothing() -> None:
    leases, _ = Leases().reserve("1-1", ANN, 60, 1000)
    assert leases.holder("1-1", 10) == Turn(ANN, 1000, 1060)


def test_there_are_limits() -> None:
    leases = Leases()
    for seconds in (0, -1, MAX_SECONDS + 1, float("nan"), float("inf")):
        with pytest.raises(LocalProtocolError, match="for up to 30 days"):
            leases.reserve("1-1", ANN, seconds, 1000)
    for number in range(MAX_TURNS):
        leases, _ = leases.reserve("1-1", f"192.0.2.{number}", 60, 1000)
    with pytest.raises(LocalProtocolError, match="64 times already"):
        leases.reserve("1-1", ANN, 60, 1000)
    leases.reserve("1-1", "192.0.2.5", 30, 1000)  # that one waits already
    leases = Leases()
    for number in range(MAX_DEVICES):
        leases, _ = leases.reserve(f"1-{number}", ANN, 60 + number, 1000)
    with pytest.raises(LocalProtocolError, match="256 devices"):
        leases.reserve("2-1", ANN, 60, 1000)
    leases, _ = leases.reserve("2-1", ANN, 60, 1060)  # one of them is over
    assert len(leases.busids(1060)) == MAX_DEVICES
    assert len(json.loads(str(leases))["leases"]) == MAX_DEVICES  # and is not kept


def state(**changed: object) -> str:
    made = {"holder": ANN, "begins": 1000, "until": 1060, **changed}
    return json.dumps({"version": 1, "leases": {"1-1": [made]}})


def test_a_state_cut_at_any_byte_is_not_one() -> None:
    leases, _ = Leases().reserve("1-1", ANN, 60.5, 1000.25)
    leases, _ = leases.reserve("1-1", BOB, 30, 1000.25)
    leases, _ = leases.reserve("1-4.2", "cert:b\N{LATIN SMALL LETTER U WITH DIAERESIS}ro", 30, 1000)
    text = str(leases)
    assert Leases.parse(text) == leases
    for length in range(len(text)):
        with pytest.raises(ValueError, match=r"."):
            Leases.parse(text[:length])


@pytest.mark.parametrize(
    "text",
    [
        "[]", "null", "{}", '{"version": 1}', '{"version": 1, "leases": []}', '{"version": 2, "leases": {}}',
        '{"version": true, "leases": {}}', '{"version": 1, "leases": {}, "more": 1}',
        '{"version": 1, "leases": {"1-1": []}}', '{"version": 1, "leases": {"1-1": {}}}',
        '{"version": 1, "leases": {"1-1": [[]]}}', '{"version": 1, "leases": {"": []}}',
        '{"version": 1, "leases": {}, "leases": {}}', "[" * 100_000,
        state(holder=""), state(holder=7), state(holder="\x1b[2J"), state(holder="a" * 257),
        state(begins=None), state(begins=True), state(until="1060"), state(until=1000), state(until=10**400),
        state(begins=float("nan")), state(until=float("inf")), state(until=1e400), state(more=1),
        state().replace("]", ', {"holder": "local", "begins": 1061, "until": 1070}]'),
        state().replace("]", ', {"holder": "local", "begins": 1000, "until": 1070}]'),
    ],
)  # fmt: skip
def test_what_is_not_a_state_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Leases.parse(text)


def test_any_damaged_byte_is_refused_or_is_another_whole_state() -> None:
    """Never another kind of error, and never fewer devices or turns."""
    leases, _ = Leases().reserve("1-1", ANN, 60, 1000)
    leases, _ = leases.reserve("1-1", BOB, 60, 1000)
    text = str(leases)
    dice = random.Random(17)
    for _ in range(3000):
        at = dice.randrange(len(text))
        damaged = text[:at] + chr(dice.randrange(128)) + text[at + 1 :]
        try:
            read = Leases.parse(damaged)
        except ValueError:
            continue
        (busid,) = read.busids(0)
        assert len(read.turns(busid, 0)) == 2
