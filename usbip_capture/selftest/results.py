"""What a check has found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class Verdict(Enum):
    """RIGHT: as Linux does it. NOTE: otherwise, and clients can live with it. WRONG: programs will trip over it."""

    RIGHT = "ok"
    NOTE = "note"
    WRONG = "WRONG"
    SKIPPED = "-"


@dataclass(slots=True, frozen=True)
class Result:
    """`detail` is what was seen, in a few words."""

    name: str
    verdict: Verdict
    detail: str

    def __str__(self) -> str:
        return f"{self.verdict.value:5}  {self.name:26}  {self.detail}"


Report: TypeAlias = Callable[[Result], None]


def right(name: str, detail: str) -> Result:
    """As Linux does it."""
    return Result(name, Verdict.RIGHT, detail)


def note(name: str, detail: str) -> Result:
    """Otherwise, harmless."""
    return Result(name, Verdict.NOTE, detail)


def wrong(name: str, detail: str) -> Result:
    """Programs will trip over it."""
    return Result(name, Verdict.WRONG, detail)


def skipped(name: str, detail: str) -> Result:
    """This device has nothing to try it with."""
    return Result(name, Verdict.SKIPPED, detail)
