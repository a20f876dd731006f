"""Asks all servers of a fleet at once: one that is slow or dead does not hold up the others."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Generic, TypeAlias, TypeVar

from usbip_capture.errors import ServerUnreachable, UsbipError
from usbip_capture.fleet.answers import BY_DASHBOARD, BY_USBIP, FleetAnswer
from usbip_capture.fleet.members import Member
from usbip_capture.fleet.questions import allowed, ask_dashboard, ask_server
from usbip_capture.server_stream.requests import Refused
from usbip_capture.servers.known import KnownDevice, read_cache

T = TypeVar("T")
#: What came of the questions to one server, by how it was asked.
Came: TypeAlias = "dict[str, FleetAnswer | UsbipError]"
Known: TypeAlias = "Mapping[tuple[str, int], list[KnownDevice]]"

#: Questions that are asked at a time.
AT_ONCE = 64
#: Seconds for a thread to report that its time is over, before that is done for it; and between two looks at that.
_MARGIN, _LOOK = 0.5, 0.1
#: Part of its time-out that a dashboard may be silent before the list of the same server is asked for as well. Not at
#: once: who asks for a list is a client, and in the server's log.
_PATIENCE = 0.25


@dataclass(slots=True, frozen=True)
class Question(Generic[T]):
    """What is asked of the server with this number, and how. allowed: seconds until it is given up."""

    number: int
    way: str
    ask: Callable[[], T]
    allowed: float
    name: str


class Asking(Generic[T]):
    """Asks each question that is added, AT_ONCE at a time at most; `next` has the answers as they come.

    Its threads end when nothing waits. They are daemons: a name that is not resolved does not hold up the end of the
    program.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._waiting: deque[tuple[int, Question[T]]] = deque()
        self._answers: SimpleQueue[tuple[int, T | BaseException]] = SimpleQueue()
        self._open: dict[int, Question[T]] = {}
        self._begun: dict[int, float] = {}
        self._added = 0

    @property
    def open(self) -> bool:
        """Whether there are answers to come."""
        return bool(self._open)

    def add(self, question: Question[T]) -> int:
        """Ask it as soon as there is room; its number here. Raises UsbipError if there can be no thread."""
        at = self._added
        self._added += 1
        self._open[at] = question
        with self._lock:
            self._waiting.append((at, question))
            if self._threads >= AT_ONCE:
                return at
            self._threads += 1
        try:
            threading.Thread(target=self._run, name="usbip-fleet", daemon=True).start()
        except RuntimeError as error:
            with self._lock:
                self._threads -= 1
                others = self._threads  # they will ask it
            if not others:
                raise UsbipError(f"no server can be asked: {error}: end other programs") from error
        return at

    def age(self, at: int) -> float:
        """Seconds since this question was asked; 0 before it."""
        now = time.monotonic()
        return now - self._begun.get(at, now)

    def forget(self, number: int) -> None:
        """Nobody waits for answers of this server any more."""
        self._open = {at: question for at, question in self._open.items() if question.number != number}

    def next(self) -> tuple[Question[T], T | UsbipError] | None:
        """A question and its answer, the next that comes; None if there is none within a short time."""
        for at, question in self._open.items():
            if self.age(at) > question.allowed + _MARGIN:  # such as looking up a name, which has no time-out
                late = ServerUnreachable(f"{question.name} does not answer within {question.allowed:g} s")
                self._answers.put((at, late))
        try:
            at, answer = self._answers.get(timeout=_LOOK)
        except Empty:
            return None
        asked = self._open.pop(at, None)
        if asked is None:  # it was given up
            return None
        if isinstance(answer, BaseException) and not isinstance(answer, UsbipError):
            raise answer
        return asked, answer

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                at, question = self._waiting.popleft()
            self._begun[at] = time.monotonic()
            try:
                self._answers.put((at, question.ask()))
            except BaseException as error:  # noqa: BLE001  a fault of ours: who waits raises it
                self._answers.put((at, error))


def ask_all(members: Sequence[Member]) -> list[FleetAnswer]:
    """What each answers, in their order: its dashboard, if that does, else its port of USB/IP."""
    asking: Asking[FleetAnswer] = Asking()
    known = read_cache().devices
    came: list[Came] = [{} for _ in members]
    lists: dict[int, tuple[int, Question[FleetAnswer]]] = {}  # to be asked for if the dashboard is silent
    for number, member in enumerate(members):
        questions = _questions(number, member, known)
        for first in questions[:1]:
            at = asking.add(first)
            lists.update((number, (at, second)) for second in questions[1:])
    while asking.open:
        silent = [
            number for number, (at, question) in lists.items() if asking.age(at) > _PATIENCE * question.allowed / 2
        ]
        for number in silent:
            asking.add(lists.pop(number)[1])
        answered = asking.next()
        if answered is None:
            continue
        question, answer = answered
        came[question.number][question.way] = answer
        if question.way == BY_DASHBOARD:
            second = lists.pop(question.number, None)
            if isinstance(answer, FleetAnswer):
                asking.forget(question.number)
            elif second is not None:
                asking.add(second[1])
    return [_answer(member, found) for member, found in zip(members, came, strict=True)]


def _questions(number: int, member: Member, known: Known) -> list[Question[FleetAnswer]]:
    """To its dashboard, and to its port of USB/IP."""
    dashboard, server = member.dashboard, member.server
    made = []
    if dashboard is not None:
        ask = partial(ask_dashboard, member, dashboard)
        made.append(Question(number, BY_DASHBOARD, ask, allowed(dashboard), str(dashboard)))
    if server is not None:
        ask = partial(ask_server, member, server, known)
        made.append(Question(number, BY_USBIP, ask, allowed(server), str(server)))
    return made


def _answer(member: Member, came: Came) -> FleetAnswer:
    by_dashboard, by_usbip = came.get(BY_DASHBOARD), came.get(BY_USBIP)
    if isinstance(by_dashboard, FleetAnswer):
        return by_dashboard
    problem = by_dashboard or member.problem
    if isinstance(by_usbip, FleetAnswer):
        return replace(by_usbip, problem=problem)
    shown = problem if isinstance(problem, Refused) else by_usbip or problem
    return FleetAnswer(member, error=shown or UsbipError(f"{member.name} has no address"))
