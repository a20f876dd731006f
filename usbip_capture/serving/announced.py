"""Which of a server's ports is announced on the local network, and with which devices."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from usbip_capture.net.networks import is_loopback

if TYPE_CHECKING:
    from usbip_capture.lending.lender import Exported
    from usbip_capture.servers.announcing import AnnouncedDevice, Announcement
    from usbip_capture.serving.fronts import Front

Places: TypeAlias = "Sequence[tuple[str, int]]"


class Announced(NamedTuple):
    """port: by TCP, or that of TLS if others reach nothing else. listening: its addresses. tls_port: 0 without TLS."""

    port: int
    listening: list[str]
    tls_port: int


def announced(plain: Places, tls: Places, wanted: bool | None) -> Announced | None:
    """Of where a server listens; None for nothing. wanted: None is where other machines can connect."""
    beyond, tls_beyond = _beyond(plain), _beyond(tls)
    if wanted is None:
        wanted = bool(beyond or tls_beyond)
    chosen = beyond or tls_beyond or [*plain] or [*tls]
    if not wanted or not chosen:
        return None
    port = chosen[0][1]
    by_tls = tls_beyond if beyond else tls_beyond or tls
    listening = [address for address, other in chosen if other == port]
    return Announced(port, listening, by_tls[0][1] if by_tls else 0)


def _beyond(places: Places) -> list[tuple[str, int]]:
    return [place for place in places if not is_loopback(place[0])]


class Announcing:
    """Announces the server `name` with what `exported` returns, from `start` to `close`; nothing if it is not started.

    Threads may share it.
    """

    def __init__(self, name: str, exported: Callable[[], Sequence[Exported]]) -> None:
        self._name = name
        self._exported = exported
        self._announcement: Announcement | None = None
        self._lock = threading.Lock()  # held from looking at what is exported to announcing it

    def start(self, plain: Places, tls: Places, wanted: bool | None, dashboard: Front | None = None) -> None:
        """If that is wanted: without a word, where other machines can connect."""
        chosen = announced(plain, tls, wanted)
        if chosen is not None:
            from usbip_capture.servers.announcing import Announcement, FurtherPorts

            port, listening, tls_port = chosen
            with self._lock:
                web = _beyond(dashboard.addresses) if dashboard is not None else []
                secure = dashboard is not None and dashboard.is_secure
                further = FurtherPorts(tls_port, web[0][1] if web else 0, secure)
                self._announcement = Announcement(self._name, port, self._devices(), listening, further)

    def update(self) -> None:
        """What is exported has changed."""
        with self._lock:
            if self._announcement is not None:
                self._announcement.update(self._devices())

    def close(self) -> None:
        """Withdraw it."""
        if self._announcement is not None:
            self._announcement.close()

    def _devices(self) -> list[AnnouncedDevice]:
        from usbip_capture.servers.announcing import AnnouncedDevice

        return [AnnouncedDevice(exported.info, exported.product) for exported in self._exported()]
