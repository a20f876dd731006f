"""Devices that are reserved: who else imports one is refused, who else has it when a turn begins is disconnected."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from usbip_capture.access.clients import ANY, LOCAL, ClientPattern
from usbip_capture.access.leases import Leases, Turn
from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.net.listening import Peer
from usbip_capture.net.ruling import requester_of
from usbip_capture.server.access import ALLOWED, Decision
from usbip_capture.server.events import LEASE_ENDED, LEASED, Events
from usbip_capture.serving.following import FollowedFile, Trouble
from usbip_capture.serving.lease_file import LeaseFile, leases_path
from usbip_capture.syslog.severity import NOTICE
from usbip_capture.syslog.timestamps import format_rfc3339
from usbip_capture.system.local_time import local_time
from usbip_capture.system.timetable import Due, Timetable
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.wire.structs import OpStatus

log = logging.getLogger(__name__)

#: Seconds that the timer sleeps, at most: meanwhile the clock may be set, and the machine may sleep.
_LONGEST = 60.0


class _State(NamedTuple):
    """Replaced as a whole, so that who only reads needs no lock. clients: by the texts of holders."""

    leases: Leases
    clients: dict[str, ClientPattern]


class DeviceLeases:
    """The leases of this machine's devices, in a file, whose changes are followed from `start` to `close`.

    events: where it is reported who has what. clock: seconds since 1970. Threads may share it. Raises FileFormatError
    for a damaged file, UsbipError.
    """

    def __init__(self, events: Events | None = None, path: str = "", clock: Callable[[], float] = time.time) -> None:
        self._events = events or Events(clock)
        self._file = LeaseFile(path or leases_path(), ClientPattern.parse)
        self._clock = clock
        self._changing = threading.Lock()
        self._holders: dict[str, Turn] = {}  # as they were reported
        self._on_change: Callable[[str], object] = lambda by: None
        self._timer = Timetable("usbip-leases")
        self._due: Due | None = None
        self._followed: FollowedFile | None = None
        self._trouble = Trouble(log)
        self._state = _State(Leases(), {})
        self._replace(self._file.read(), "server")

    @property
    def path(self) -> str:
        """The file."""
        return self._file.path

    def start(self, on_change: Callable[[str], object]) -> None:
        """Follow the file, and the time.

        on_change: called from any thread when a device may have another holder, with who causes it, as events have it.
        """
        self._on_change = on_change
        self._followed = FollowedFile(self._file.path, self.reload)
        self.reload()  # it may have changed since it was read

    def close(self) -> None:
        """Follow neither any more. May be called again."""
        if self._followed is not None:
            self._followed.close()
        self._timer.close()

    def turns(self, busid: str) -> tuple[Turn, ...]:
        """Who has the device now, and who comes next."""
        return self._state.leases.turns(busid, self._clock())

    def busids(self) -> list[str]:
        """The devices that are reserved."""
        return self._state.leases.busids(self._clock())

    def reserve(self, busid: str, seconds: float, client: str = LOCAL) -> Turn:
        """One more turn for those whom the pattern `client` names, now or when others' are over. Raises UsbipError."""
        pattern = ClientPattern.parse(client)
        if pattern.kind == ANY:
            raise LocalProtocolError("a device is reserved for a client: an address, a network, local, paired or cert")
        holder = str(pattern)
        made: list[Turn] = []

        def changed(leases: Leases) -> Leases:
            leases, turn = leases.reserve(busid, holder, seconds, self._clock())
            made.append(turn)
            return leases

        self._change(changed)
        return made[0]

    def release(self, busid: str, client: str = "") -> None:
        """End the turn of who has the device now, or all turns of `client`. Raises UsbipError."""
        holder = str(ClientPattern.parse(client)) if client else ""
        self._change(lambda leases: leases.release(busid, holder, self._clock()))

    def decision(self, peer: Peer, info: DeviceInfo) -> Decision:
        """Whether this client may have the device now, if rules allow it."""
        leases, clients = self._state
        now = self._clock()
        turn = leases.holder(info.busid, now)
        if turn is None or clients[turn.holder].matches(requester_of(peer)):
            return ALLOWED
        reason = f"it is reserved for {turn.holder} until {local_time(turn.until, now)}"
        return Decision(allowed=False, reason=reason, rule="lease", status=OpStatus.DEV_BUSY)

    def reload(self) -> bool:
        """Read the file again; False if it cannot be read, which is logged, and all stays reserved as it was."""
        try:
            with self._changing:
                leases = self._file.read()
                self._trouble.over()
                if leases == self._state.leases:  # as this server has written it
                    return True
                self._replace(leases, "user")
        except UsbipError as error:
            self._trouble.log(f"{error}; what was reserved before still is")
            return False
        self._on_change("user")
        return True

    def _change(self, changed: Callable[[Leases], Leases]) -> None:
        with self._changing:
            self._replace(self._file.change(changed), "user")
        self._on_change("user")

    def _replace(self, leases: Leases, by: str) -> None:
        """Have these from now on."""
        self._state = _State(leases, {holder: ClientPattern.parse(holder) for holder in leases.holders})
        self._follow_time(by)

    def _follow_time(self, by: str) -> None:
        """Report who has what now, and wake when that ends. The lock is held."""
        now = self._clock()
        leases = self._state.leases
        holders = {busid: turn for busid in leases.busids(now) if (turn := leases.holder(busid, now))}
        for busid, turn in holders.items():
            if self._holders.get(busid) != turn:
                log.info("%s is reserved for %s until %s", busid, turn.holder, local_time(turn.until, now))
                text = f"for {turn.holder} until {format_rfc3339(turn.until)}"
                self._events.emit(LEASED, NOTICE, busid=busid, text=text, by=by)
        for busid in self._holders.keys() - holders.keys():
            log.info("%s is not reserved any more", busid)
            self._events.emit(LEASE_ENDED, NOTICE, busid=busid, by=by)
        self._holders = holders
        if self._due is not None:
            self._timer.drop(self._due)
            self._due = None
        ends = leases.next_end(now)
        if ends is not None:
            try:
                self._due = self._timer.after(min(max(ends - now, 0.0), _LONGEST), self._on_time)
            except RuntimeError as error:  # who imports a device is refused all the same
                log.error("that a device is reserved for somebody else is noticed late: %s: end other programs", error)

    def _on_time(self) -> None:
        with self._changing:
            before = self._holders
            self._follow_time("server")
            changed = before != self._holders
        if changed:
            self._on_change("server")
