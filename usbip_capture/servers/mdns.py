"""Servers that announce themselves on the local network, by mDNS and DNS-SD.

Ref: RFC 6763; the service type is that of ESP32 bridges, `_usbip._tcp`
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from usbip_capture.errors import ServerUnreachable
from usbip_capture.net.address import HTTP, HTTPS, TLS

if TYPE_CHECKING:
    from zeroconf import ServiceBrowser, ServiceInfo, Zeroconf

SERVICE_TYPE = "_usbip._tcp.local."
#: Of a TXT record: the port of USB/IP over TLS, if there is one.
TLS_PROPERTY = "tls"
#: The port of its dashboard, if others can reach it, by http; or by https.
WEB_PROPERTY, WEB_TLS_PROPERTY = "web", "webtls"
#: Milliseconds for what an announcement has left out, such as the address: it is asked for again meanwhile.
_DETAILS_TIMEOUT = 3000
#: Incomplete announcements that are asked about at a time, and servers that are kept: anybody may announce any number.
_ASKED_AT_ONCE, _MAX_FOUND = 16, 256


@dataclass(slots=True, frozen=True)
class DiscoveredServer:
    """name: the instance's name. host: an address of it, IPv4 if there is one. properties: its TXT record."""

    name: str
    host: str
    port: int
    addresses: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)

    @property
    def places(self) -> list[tuple[str, int]]:
        """Where it is, as `ServerAddress.at` takes it: by TCP and by TLS, or by TLS alone if that has its port."""
        port = self._port(TLS_PROPERTY)
        by_tls = [self._at(TLS, port)] if port else []
        return by_tls if port == self.port else [(self.host, self.port), *by_tls]

    @property
    def dashboards(self) -> list[tuple[str, int]]:
        """Where its dashboard is, the host with its scheme; none if it has none for others."""
        ports = {HTTPS: self._port(WEB_TLS_PROPERTY), HTTP: self._port(WEB_PROPERTY)}
        return [self._at(scheme, port) for scheme, port in ports.items() if port][:1]

    def _port(self, key: str) -> int:
        """A port of the TXT record, 0 if it is not there."""
        text = self.properties.get(key, "")
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
        return number if number < 65536 else 0

    def _at(self, scheme: str, port: int) -> tuple[str, int]:
        return f"{scheme}://[{self.host}]" if ":" in self.host else f"{scheme}://{self.host}", port


def discover_usbip_servers(timeout: float = 3.0) -> list[DiscoveredServer]:
    """Who answers within `timeout` seconds, by name. Raises ServerUnreachable where there is no network for it."""
    found: dict[str, DiscoveredServer] = {}
    lock = threading.Lock()

    def on_found(server: DiscoveredServer) -> None:
        with lock:
            if server.name in found or len(found) < _MAX_FOUND:
                found[server.name] = server

    def on_gone(name: str) -> None:
        with lock:
            found.pop(name, None)

    with browsing(on_found, on_gone):
        threading.Event().wait(timeout)
    with lock:
        return sorted(found.values(), key=lambda server: server.name)


@contextmanager
def browsing(
    on_found: Callable[[DiscoveredServer], None], on_gone: Callable[[str], None] = lambda name: None
) -> Iterator[None]:
    """Look for servers during the block; each is reported as soon as it has answered, and again when it has changed.

    The callbacks run on a thread of zeroconf. Raises ServerUnreachable where there is no network for it.
    """
    from zeroconf import Zeroconf

    try:
        zeroconf = Zeroconf()
    except OSError as error:
        reason = error.strerror or error
        raise ServerUnreachable(f"no server can be looked for: {reason}: is there a network?") from error
    done = threading.Event()
    try:
        browser = _browse(zeroconf, lambda server: None if done.is_set() else on_found(server), on_gone)
        try:
            yield
        finally:
            done.set()
            browser.cancel()
    finally:
        zeroconf.close()


def _browse(
    zeroconf: Zeroconf, on_found: Callable[[DiscoveredServer], None], on_gone: Callable[[str], None]
) -> ServiceBrowser:
    from zeroconf import ServiceBrowser, ServiceInfo, ServiceListener

    def report(name: str, info: ServiceInfo) -> None:
        server = _server(name, info)
        if server is not None:
            on_found(server)

    room = threading.BoundedSemaphore(_ASKED_AT_ONCE)

    def ask(zc: Zeroconf, name: str, info: ServiceInfo) -> None:
        try:
            info.request(zc, _DETAILS_TIMEOUT)
        except Exception:  # noqa: BLE001  it was closed meanwhile, which zeroconf reports in several ways
            return
        finally:
            room.release()
        report(name, info)

    class Listener(ServiceListener):
        def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
            info = ServiceInfo(type_, name)
            if info.load_from_cache(zc):
                report(name, info)
            elif room.acquire(blocking=False):
                # On a thread: others must not wait for one that never completes its announcement.
                thread = threading.Thread(target=ask, args=(zc, name, info), name="usbip-mdns", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no thread is left
                    room.release()

        update_service = add_service

        def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
            on_gone(_instance(name))

    return ServiceBrowser(zeroconf, SERVICE_TYPE, listener=Listener())


def _server(name: str, info: ServiceInfo) -> DiscoveredServer | None:
    """None if the announcement is not complete."""
    addresses = tuple(info.parsed_scoped_addresses())
    if not info.port or not addresses:
        return None
    host = next((address for address in addresses if ":" not in address), addresses[0])
    properties = {_text(key): _text(value) for key, value in info.properties.items()}
    return DiscoveredServer(_instance(name), host, info.port, addresses, properties)


def _instance(name: str) -> str:
    return name.removesuffix("." + SERVICE_TYPE)


def _text(raw: bytes | None) -> str:
    return raw.decode("utf-8", "replace") if raw else ""
