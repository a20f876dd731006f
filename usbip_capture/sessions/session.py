"""One use of a device, for who likes to see it: watchers join and leave at any moment.

Each session is one tap around its device, which passes on what it sees to the taps of those who watch. All of a session
goes through one lock, so that who joins sees each URB that is out at that moment, and everything from then on, once.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from usbip_capture.capture.recent import FEW, RecentUrb, RecentUrbs, Replay, oldest_ns
from usbip_capture.capture.seen import SeenRequests
from usbip_capture.device import Device
from usbip_capture.tap import Tap
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.urb import Completion, TransferType, Urb

log = logging.getLogger(__name__)

_CONTROL = TransferType.CONTROL
#: How often what has happened meanwhile is shown to one who joins, before others have to wait for the rest.
_MAX_TURNS = 20

TapT = TypeVar("TapT", bound=Tap)
_Ids: TypeAlias = "tuple[tuple[Tap, int], ...]"


class Described(Protocol):
    """A device, with its texts as it has them; empty where they are not known."""

    @property
    def info(self) -> DeviceInfo: ...

    @property
    def product(self) -> str: ...

    @property
    def serial(self) -> str: ...


def key_of(device: Described, server: str) -> str:
    """The same for one device of one server only."""
    return f"{server} {device.info} {device.serial}"


class Watcher(ABC, Generic[TapT]):
    """Sees sessions. Its methods are called with the lock of the session, so that they must not block.

    hindsight: whether it also has what was kept of the device, by `replay`.
    """

    hindsight = False

    def replay(self, tap: TapT) -> Replay:
        """What shows `tap` that, before it sees anything else. Only for those with `hindsight`."""
        raise NotImplementedError

    def label(self) -> str:
        """Of what was learnt of the device, where it comes with what was kept. Only for those with `hindsight`."""
        raise NotImplementedError

    @abstractmethod
    def tap(self, session: DeviceSession) -> TapT | None:
        """What sees this session, which begins or is there already, from now on; None if it is of no interest."""

    @abstractmethod
    def earlier(self, tap: TapT, requests: Sequence[tuple[Urb, Completion]]) -> None:
        """What was learnt of the device before: descriptors that were read, settings that were made."""

    @abstractmethod
    def in_flight(self, tap: TapT, urb: Urb) -> int:
        """This URB was submitted before, and will be completed. Returns the id that its completion is reported with."""

    @abstractmethod
    def ended(self, session: DeviceSession, tap: TapT, loss: str) -> None:
        """The session is over. loss: why the device is gone, empty if it was released."""


class DeviceSession(Tap):
    """One use of one device. info: as it is used; exported: as it was known before. server: where it is, for people.

    client: who has it, for people; empty if that is not known any more. own: sees all of it, beside those who join.
    recent: keeps what happens, for those who join later.
    """

    def __init__(
        self,
        device: Device,
        exported: Described,
        client_of: Callable[[str], str],
        server: str = "",
        own: Tap | None = None,
        recent: RecentUrbs | None = None,
    ) -> None:
        self.info: DeviceInfo = device.info
        self.exported = exported
        self.server = server
        self._client_of = client_of
        self._client = ""
        self._lock = threading.Lock()
        self._taps: tuple[Tap, ...] = () if own is None else (own,)
        self._of: dict[Watcher[Any], Tap] = {}
        self._flying: dict[int, tuple[Urb, _Ids]] = {}
        self._seen = SeenRequests()
        self._joining: dict[Watcher[Any], Tap] = {}  # those that are shown what was kept
        self._recent = recent
        self._last = 0 if recent is None else recent.new_keys()
        self._until: int | None = None  # position of `recent` at the end
        self._over = False
        self._loss = ""

    @property
    def key(self) -> str:
        """The same for sessions of one device only."""
        return key_of(self.exported, self.server)

    @property
    def over(self) -> bool:
        """Whether the device was closed."""
        return self._over

    @property
    def client(self) -> str:
        """Who has the device."""
        if not self._client and not self._over:
            self._client = self._client_of(self.info.busid)
        return self._client

    # -- as the device reports it

    def submitted(self, urb: Urb) -> int:
        with self._lock:
            self._last = number = self._last + 1
            self._flying[number] = urb, self._shown(urb) if self._taps else ()
            if self._recent is not None:
                self._recent.submitted(number, urb)
        return number

    def completed(self, urb_id: int, urb: Urb, completion: Completion) -> None:
        with self._lock:
            for tap, tapped_as in self._flying.pop(urb_id)[1]:
                try:
                    tap.completed(tapped_as, urb, completion)
                except Exception:  # noqa: BLE001  it is logged
                    self._lose(tap)
            if self._recent is not None:
                self._recent.completed(urb_id, completion)
            if urb.transfer_type is _CONTROL:
                self._seen.saw(urb, completion)

    def unlink(self, urb_id: int, message: bytes) -> None:
        with self._lock:
            found = self._flying.get(urb_id)
            for tap, tapped_as in found[1] if found is not None else tuple((tap, 0) for tap in self._taps):
                try:
                    tap.unlink(tapped_as, message)
                except Exception:  # noqa: BLE001  it is logged
                    self._lose(tap)

    # -- as the watchers come and go

    def join(self, watcher: Watcher[Any], *, late: bool = False) -> None:
        """Show it to `watcher` from now on; late: and what was kept of the device before, also when it is over."""
        with self._lock:
            if watcher in self._of or watcher in self._joining:
                return
            recent = self._recent if late and watcher.hindsight else None
            if self._over and (recent is None or not recent.since(0, self._until)):
                return
            tap = watcher.tap(self)
            if tap is None:
                return
            if recent is None:
                self._join(watcher, tap)
                return
            self._joining[watcher] = tap
            recent.held += 1
        try:
            self._join_late(watcher, tap, recent)
        finally:
            with self._lock:
                recent.held -= 1
                self._joining.pop(watcher, None)

    def _join(self, watcher: Watcher[Any], tap: Tap) -> None:
        """From now on. The lock is held."""
        try:
            if requests := self._seen.requests:
                watcher.earlier(tap, requests)
            for number, (urb, ids) in self._flying.items():
                self._flying[number] = urb, (*ids, (tap, watcher.in_flight(tap, urb)))
        except BaseException:
            self._drop(tap)
            raise
        self._of[watcher] = tap
        self._taps += (tap,)

    def _join_late(self, watcher: Watcher[Any], tap: Tap, recent: RecentUrbs) -> None:
        """Most of what was kept is shown without the lock: nobody who uses the device waits for that."""
        replay = watcher.replay(tap)
        for turn in range(_MAX_TURNS):
            with self._lock:
                news = recent.position - replay.position
                kept = self._kept(replay, recent)
                if turn and (news < FEW or turn == _MAX_TURNS - 1):
                    self._join_at_last(watcher, tap, replay, kept)
                    return
                requests = () if turn else self._seen.requests
            replay.describe(requests, watcher.label(), oldest_ns(kept))
            replay.show(kept, may_wait=True)

    def _join_at_last(self, watcher: Watcher[Any], tap: Tap, replay: Replay, kept: Sequence[RecentUrb]) -> None:
        """The rest of what was kept, then all that happens. The lock is held."""
        if self._joining.get(watcher) is not tap:  # it has left meanwhile
            return
        replay.show(kept, may_wait=False)
        replay.end()
        if self._over:
            watcher.ended(self, tap, self._loss)
            return
        flying = {} if self._recent is None else self._recent.flying
        for number, (urb, ids) in self._flying.items():
            self._flying[number] = urb, (*ids, (tap, replay.ids[flying[number].number]))
        self._of[watcher] = tap
        self._taps += (tap,)

    def _kept(self, replay: Replay, recent: RecentUrbs) -> list[RecentUrb]:
        """What came back since `replay` has seen it last, and what is in flight. The lock is held."""
        kept = recent.since(replay.position, self._until)
        replay.position = recent.position
        return kept if self._over else kept + [recent.flying[number] for number in self._flying]

    def leave(self, watcher: Watcher[Any]) -> None:
        """Show it to `watcher` no more: its tap is not called when this has returned."""
        with self._lock:
            self._joining.pop(watcher, None)
            tap = self._of.pop(watcher, None)
            if tap is not None:
                self._drop(tap)

    def _shown(self, urb: Urb) -> _Ids:
        """The taps that have it now, and its ids. The lock is held."""
        ids = []
        for tap in self._taps:
            try:
                ids.append((tap, tap.submitted(urb)))
            except Exception:  # noqa: BLE001  it is logged
                self._lose(tap)
        return tuple(ids)

    def _lose(self, tap: Tap) -> None:
        """It has failed: the client and the others go on. The lock is held."""
        log.exception("what %s does is not seen any longer by one who watched", self.info)  # noqa: LOG004  for handlers
        self._drop(tap)

    def _drop(self, tap: Tap) -> None:
        """Show it nothing more. The lock is held."""
        self._taps = tuple(other for other in self._taps if other is not tap)
        for number, (urb, ids) in self._flying.items():
            self._flying[number] = urb, tuple(pair for pair in ids if pair[0] is not tap)

    def forked(self) -> None:
        """In a child process, in which nobody watches."""
        self._lock = threading.Lock()
        self._of.clear()
        self._joining.clear()
        self._taps = ()

    def end(self, loss: str) -> None:
        """The device is closed."""
        with self._lock:
            self._over, self._loss = True, loss
            if self._recent is not None:
                self._until = self._recent.position
                for number in self._flying:
                    self._recent.unanswered(number)
            for watcher, tap in self._of.items():
                watcher.ended(self, tap, loss)
            self._of.clear()
            self._taps = ()
