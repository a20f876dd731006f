"""What is done with devices, for who likes to see it: all sessions of a server or program.

Each session is one tap around its device, which passes on what it sees to the taps of those who watch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from usbip_capture.capture.recent import RecentUrbs
from usbip_capture.capture.span import Span
from usbip_capture.device import Device
from usbip_capture.sessions.observed import ObservedDevice
from usbip_capture.sessions.session import Described, DeviceSession, Watcher, key_of
from usbip_capture.tap import Tap

log = logging.getLogger(__name__)

#: Devices of which something is kept though nobody uses them.
_MAX_KEPT = 64


class Sessions:
    """All sessions of a server or program, and who watches them.

    client_of: who has the device of this busid now, for people. on_change: called when one has begun or ended, from any
    thread. keeps: how much of each device, for those who join later; set it at any moment, for sessions to come.
    """

    def __init__(
        self,
        client_of: Callable[[str], str] = lambda busid: "",
        on_change: Callable[[], None] = lambda: None,
        keeps: Span | None = None,
    ) -> None:
        self.keeps = keeps
        self._client_of = client_of
        self._on_change = on_change
        self._lock = threading.Lock()
        self._sessions: dict[DeviceSession, None] = {}
        self._watchers: dict[Watcher[Any], None] = {}
        self._kept: dict[str, tuple[RecentUrbs, DeviceSession]] = {}  # of each device, with its latest session

    @property
    def current(self) -> list[DeviceSession]:
        """Those that are in progress."""
        with self._lock:
            return list(self._sessions)

    def observed(self, device: Device, exported: Described, server: str = "", own: Tap | None = None) -> Device:
        """`device`, with which a session begins, shown to `own` and to all who watch. server: where it is."""
        with self._lock:
            recent = self._recent(key_of(exported, server))
            session = DeviceSession(device, exported, self._client_of, server, own, recent)
            self._sessions[session] = None
            if recent is not None:
                self._kept[session.key] = recent, session
            for watcher in self._watchers:
                try:
                    session.join(watcher)
                except Exception:  # the client gets its device all the same
                    log.exception("what %s does is not seen by one who watches", session.info)
        self._on_change()
        return ObservedDevice(device, session, lambda loss: self._ended(session, loss))

    def join(self, watcher: Watcher[Any]) -> None:
        """Show it all sessions from now on, also those that are in progress; and what was kept, if it wants that."""
        with self._lock:
            self._watchers[watcher] = None
            kept = [session for _, session in self._kept.values() if session not in self._sessions]
            sessions = [*kept, *self._sessions]
        # Not with the lock: who is shown what was kept may take its time, and others go on using devices.
        for session in sessions:
            session.join(watcher, late=True)
        if watcher not in self._watchers:  # it has left meanwhile
            for session in sessions:
                session.leave(watcher)

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
        self._kept.clear()
        for session in self._sessions:
            session.forked()

    def _recent(self, key: str) -> RecentUrbs | None:
        """What keeps the URBs of this device. The lock is held."""
        known = self._kept.pop(key, None)
        if self.keeps is None:
            return None
        for other in [other for other, (_, session) in self._kept.items() if session.over]:
            if len(self._kept) < _MAX_KEPT:
                break
            del self._kept[other]
        return RecentUrbs(self.keeps) if known is None else known[0]

    def _ended(self, session: DeviceSession, loss: str) -> None:
        with self._lock:
            self._sessions.pop(session, None)
        session.end(loss)
        self._on_change()
