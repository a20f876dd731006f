"""See what a remote USB device and its host say to each other, in Wireshark, over USB/IP."""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing: that module alone doubles the time of an answer to Wireshark
if TYPE_CHECKING:
    from usbip_capture.capture.writer import PcapWriter
    from usbip_capture.collector import SyslogReceiver
    from usbip_capture.pyusb_backend import get_backend
    from usbip_capture.pyusb_backend.asynchronous import AsynchronousDevice, AsyncioDevice
    from usbip_capture.pyusb_backend.wrapper import PcapBackendWrapper
    from usbip_capture.serial_port.client import SerialClient
    from usbip_capture.servers.mdns import discover_usbip_servers

__version__ = "0.1.0"
__all__ = [
    "AsynchronousDevice",
    "AsyncioDevice",
    "PcapBackendWrapper",
    "PcapWriter",
    "SerialClient",
    "SyslogReceiver",
    "__version__",
    "discover_usbip_servers",
    "get_backend",
]

# Name -> module. Nothing is imported before it is asked for: Wireshark's queries start this package too.
_HOMES = {
    "AsynchronousDevice": "usbip_capture.pyusb_backend.asynchronous",
    "AsyncioDevice": "usbip_capture.pyusb_backend.asynchronous",
    "PcapBackendWrapper": "usbip_capture.pyusb_backend.wrapper",
    "PcapWriter": "usbip_capture.capture.writer",
    "SerialClient": "usbip_capture.serial_port.client",
    "SyslogReceiver": "usbip_capture.collector",
    "discover_usbip_servers": "usbip_capture.servers.mdns",
    "get_backend": "usbip_capture.pyusb_backend",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
