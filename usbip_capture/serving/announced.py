"""Which of a server's ports is announced on the local network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from usbip_capture.net.networks import is_loopback

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
