"""Servers that announce themselves on the local network, by mDNS and DNS-SD.

Ref: RFC 6763; the service type is that of ESP32 bridges, `_usbip._tcp`
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from usbip_capture.errors import ServerUnreachable

SERVICE_TYPE = "_usbip._tcp.local."


@dataclass(slots=True, frozen=True)
class DiscoveredServer:
    """name: the instance's name. host: an address of it, IPv4 if there is one. properties: its TXT record."""

    name: str
    host: str
    port: int
    addresses: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)


def discover_usbip_servers(timeout: float = 3.0) -> list[DiscoveredServer]:
    """Who answers within `timeout` seconds, by name. Raises ServerUnreachable where there is no network for it."""
    from zeroconf import ServiceBrowser, ServiceListener, Zeroconf

    found: dict[str, DiscoveredServer] = {}
    lock = threading.Lock()
    deadline = time.monotonic() + timeout

    class Listener(ServiceListener):
        def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
            left = max(deadline - time.monotonic(), 0.1)
            info = zc.get_service_info(type_, name, timeout=int(left * 1000))
            addresses = tuple(info.parsed_scoped_addresses()) if info is not None else ()
            if info is None or not info.port or not addresses:
                return
            host = next((address for address in addresses if ":" not in address), addresses[0])
            properties = {_text(key): _text(value) for key, value in info.properties.items()}
            server = DiscoveredServer(name.removesuffix("." + SERVICE_TYPE), host, info.port, addresses, properties)
            with lock:
                found[name] = server

        update_service = add_service

        def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
            with lock:
                found.pop(name, None)

    try:
        zeroconf = Zeroconf()
    except OSError as error:
        reason = error.strerror or error
        raise ServerUnreachable(f"no server can be looked for: {reason}: is there a network?") from error
    try:
        browser = ServiceBrowser(zeroconf, SERVICE_TYPE, listener=Listener())
        threading.Event().wait(timeout)
        browser.cancel()
    finally:
        zeroconf.close()
    with lock:
        return sorted(found.values(), key=lambda server: server.name)


def _text(raw: bytes | None) -> str:
    return raw.decode("utf-8", "replace") if raw else ""
