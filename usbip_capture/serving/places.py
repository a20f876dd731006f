"""Where a server listens, by its settings."""

from __future__ import annotations

from usbip_capture.net.networks import listen_address
from usbip_capture.servers.server_table import ServerTable

_DEFAULT = "127.0.0.1"


def listen_places(settings: ServerTable) -> list[tuple[str, int]]:
    """Addresses and ports for TCP. Raises LocalProtocolError."""
    texts = settings.listen or (() if settings.unix else (_DEFAULT,))
    places = [listen_address(text) for text in texts]
    return [("0.0.0.0" if address == "*" else address, port) for address, port in places]
