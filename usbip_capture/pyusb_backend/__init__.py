"""PyUSB over USB/IP: `usb.core.find(backend=get_backend("192.168.1.20"), ...)`."""

from __future__ import annotations

import os
from typing import BinaryIO

from usbip_capture.address import DEFAULT_PORT
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.hosts import Server
from usbip_capture.pyusb_backend.backend import UsbipBackend
from usbip_capture.pyusb_backend.exported import ServerSource

__all__ = ["UsbipBackend", "get_backend"]


def get_backend(
    host: str,
    port: int = DEFAULT_PORT,
    timeout: float = 2.0,
    pcap: PcapWriter | str | os.PathLike[str] | BinaryIO | None = None,
) -> UsbipBackend:
    """A PyUSB backend for the devices of a USB/IP server; `demo` is the built-in one.

    timeout: seconds for connecting and for listing and importing devices.
    Raises ValueError for a host or port that cannot be, CaptureError when the capture cannot be written.
    pcap: where to capture all URBs. A PcapWriter stays open and is yours to close; a capture into a path or a stream
    is completed by the backend's `close()`, which leaves a stream of yours open.
    """
    server = Server.parse(host, port, timeout)
    owned = pcap is not None and not isinstance(pcap, PcapWriter)
    writer = pcap if isinstance(pcap, PcapWriter) or pcap is None else PcapWriter(pcap)
    return UsbipBackend(ServerSource(server, writer, owned))
