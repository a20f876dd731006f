"""What is done with devices, for who likes to see it: watchers join and leave at any moment.

Each session is one tap around its device, which passes on what it sees to the taps of those who watch. All of a session
goes through one lock, so that who joins sees each URB that is out at that moment, and everything from then on, once.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from usbip_capture.capture.seen import SeenRequests
from usbip_capture.device import Device
from usbip_capture.sessions.observed import ObservedDevice
from usbip_capture.tap import Tap
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.urb import Completion, TransferType, Urb

log = logging.getLogger(__name__)

_CONTROL = TransferType.CONTROL

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


class Watcher(ABC, Generic[TapT]):
    """Sees sessions. Its methods are called with the lock of the session, so that they must not block."""

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
    """

    def __init__(
        self,
        device: Device,
        exported: Described,
        client_of: Callable[[str], str],
        server: str = "",
        own: Tap | None = None,
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
        self._last = 0
        self._over = False

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
        return number

    def completed(self, urb_id: int, urb: Urb, completion: Completion) -> None:
        with self._lock:
            for tap, tapped_as in self._flying.pop(urb_id)[1]:
                try:
                    tap.completed(tapped_as, urb, completion)
                except Exception:  # noqa: BLE001  it is logged
                    self._lose(tap)
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

    def join(self, watcher: Watcher[Any]) -> None:
        """Show it to `watcher` from now on."""
        with self._lock:
            if self._over or watcher in self._of:
                return
            tap = watcher.tap(self)
            if tap is None:
                return
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

    def leave(self, watcher: Watcher[Any]) -> None:
        """Show it to `watcher` no more: its tap is not called when this has returned."""
        with self._lock:
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
        self._taps = ()

    def end(self, loss: str) -> None:
        """The device is closed."""
        with self._lock:
            self._over = True
            for watcher, tap in self._of.items():
                watcher.ended(self, tap, loss)
            self._of.clear()
            self._taps = ()


class Sessions:
    """All sessions of a server or program, and who watches them.

    client_of: who has the device of this busid now, for people. on_change: called when one has begun or ended, from any
    thread.
    """

    def __init__(
        self, client_of: Callable[[str], str] = lambda busid: "", on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._client_of = client_of
        self._on_change = on_change
        self._lock = threading.Lock()
        self._sessions: dict[DeviceSession, None] = {}
        self._watchers: dict[Watcher[Any], None] = {}

    @property
    def current(self) -> list[DeviceSession]:
        """Those that are in progress."""
        with self._lock:
            return list(self._sessions)

    def observed(self, device: Device, exported: Described, server: str = "", own: Tap | None = None) -> Device:
        """`device`, with which a session begins, shown to `own` and to all who watch. server: where it is."""
        session = DeviceSession(device, exported, self._client_of, server, own)
        with self._lock:
            self._sessions[session] = None
            for watcher in self._watchers:
                try:
                    session.join(watcher)
                except Exception:  # the client gets its device all the same
                    log.exception("what %s does is not seen by one who watches", session.info)
        self._on_change()
        return ObservedDevice(device, session, lambda loss: self._ended(session, loss))

    def join(self, watcher: Watcher[Any]) -> None:
        """Show it all sessions from now on, also those that are in progress."""
        with self._lock:
            self._watchers[watcher] = None
            for session in self._sessions:
                session.join(watcher)

    def leave(self, watcher: Watcher[Any]) -> None:
        """Show it nothing more. May be called again."""
        with self._lock:
            self._watchers.pop(watcher, None)
            for session in self._sessions:
                session.leave(watcher)

    def forked(self) -> None:
        """In a child process: who watches is its parent's, and its locks may be held by threads that are gone."""
        self._lock = threading.Lock()
        self._watchers.clear()
        for session in self._sessions:
            session.forked()

    def _ended(self, session: DeviceSession, loss: str) -> None:
        with self._lock:
            self._sessions.pop(session, None)
        session.end(loss)
        self._on_change()
