"""A server of simulated serial adapters, and the URLs of their ports, for tests of what uses them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from usbip_capture.server import Server
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.simulated.serial.acm import acm
from usbip_capture.simulated.serial.exported import Adapter
from usbip_capture.simulated.serial.line import Line, Loopback


class SerialServer:
    """Exports `adapters` on a port of 127.0.0.1."""

    def __init__(self, *adapters: Adapter) -> None:
        self.server = Server()
        self.adapters = list(adapters)
        for adapter in adapters:
            self.server.add(adapter.info, adapter.open)
        self.port: int = self.server.listen("127.0.0.1", 0)[1]

    def url(self, device: str = "1-1", query: str = "") -> str:
        """Of a port."""
        return f"usbip://127.0.0.1:{self.port}/{device}{'?' + query if query else ''}"

    @property
    def device(self) -> SimulatedDevice:
        """The first adapter, as it was imported last."""
        device = self.adapters[0].device
        assert device is not None
        return device

    @property
    def line(self) -> Line:
        """Its line."""
        return self.adapters[0].peers[0].line

    def replace(self, adapter: Adapter) -> None:
        """The first device comes back as another one."""
        self.server.remove(self.adapters[0].info.busid)
        self.adapters[0] = adapter
        self.server.add(adapter.info, adapter.open)


@contextmanager
def serial_server(*adapters: Adapter) -> Iterator[SerialServer]:
    """A server that is closed at the end; without adapters, of a looped-back CDC-ACM port at 1-1."""
    server = SerialServer(*(adapters or (acm(Loopback()),)))
    try:
        yield server
    finally:
        server.server.close()


def open_port(server: SerialServer, query: str = "", device: str = "1-1", **settings: Any) -> Any:
    """A port of pyserial on one of its devices."""
    import serial

    return serial.serial_for_url(server.url(device, query), **{"timeout": 10, **settings})
