"""See what a remote USB device and its host say to each other, in Wireshark, over USB/IP.

For pytest, which finds it imported before it can rewrite its asserts: PYTEST_DONT_REWRITE
"""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing: that module alone doubles the time of an answer to Wireshark
if TYPE_CHECKING:
    from usbip_capture.capture.writer import PcapWriter
    from usbip_capture.collector import SyslogReceiver
    from usbip_capture.collector.counts import Counts
    from usbip_capture.device import Device, Transfer
    from usbip_capture.devices.backend import BackendDevice
    from usbip_capture.errors import (
        CannotListen,
        CaptureError,
        DeviceError,
        DeviceGone,
        DeviceNotFound,
        FileFormatError,
        ImportRefused,
        LocalProtocolError,
        RemoteProtocolError,
        RequestRefused,
        ResponseTimeout,
        ServerLost,
        ServerUnreachable,
        StrayReply,
        TransferFailed,
        TransferTimeout,
        UsbipError,
    )
    from usbip_capture.net.listening import Peer
    from usbip_capture.pyusb_backend import get_backend
    from usbip_capture.pyusb_backend.asynchronous import AsynchronousDevice, AsyncioDevice, TransferFuture
    from usbip_capture.pyusb_backend.backend import UsbipBackend
    from usbip_capture.pyusb_backend.wrapper import PcapBackendWrapper
    from usbip_capture.serial_port.client import SerialClient, SerialConnection
    from usbip_capture.serial_port.port import SerialPort
    from usbip_capture.serial_port.url import PortUrl
    from usbip_capture.server import Access, Client, Decision, Server
    from usbip_capture.servers.mdns import discover_usbip_servers
    from usbip_capture.serving import LocalServer, serve
    from usbip_capture.tap import Tap, Tapped
    from usbip_capture.uart.settings import LineErrors, LineSettings, ModemLines
    from usbip_capture.usb.info import DeviceInfo
    from usbip_capture.usb.urb import Completion, IsoPacket, Urb

__version__ = "0.1.0"
__all__ = [
    "Access",
    "AsynchronousDevice",
    "AsyncioDevice",
    "BackendDevice",
    "CannotListen",
    "CaptureError",
    "Client",
    "Completion",
    "Counts",
    "Decision",
    "Device",
    "DeviceError",
    "DeviceGone",
    "DeviceInfo",
    "DeviceNotFound",
    "FileFormatError",
    "ImportRefused",
    "IsoPacket",
    "LineErrors",
    "LineSettings",
    "LocalProtocolError",
    "LocalServer",
    "ModemLines",
    "PcapBackendWrapper",
    "PcapWriter",
    "Peer",
    "PortUrl",
    "RemoteProtocolError",
    "RequestRefused",
    "ResponseTimeout",
    "SerialClient",
    "SerialConnection",
    "SerialPort",
    "Server",
    "ServerLost",
    "ServerUnreachable",
    "StrayReply",
    "SyslogReceiver",
    "Tap",
    "Tapped",
    "Transfer",
    "TransferFailed",
    "TransferFuture",
    "TransferTimeout",
    "Urb",
    "UsbipBackend",
    "UsbipError",
    "__version__",
    "discover_usbip_servers",
    "get_backend",
    "serve",
]

# Each public name and its module, in the order of the reference. Nothing is imported before it is asked for:
# Wireshark's queries start this package too.
_HOMES = {
    "get_backend": "pyusb_backend",
    "UsbipBackend": "pyusb_backend.backend",
    "PcapWriter": "capture.writer",
    "PcapBackendWrapper": "pyusb_backend.wrapper",
    "AsynchronousDevice": "pyusb_backend.asynchronous",
    "AsyncioDevice": "pyusb_backend.asynchronous",
    "TransferFuture": "pyusb_backend.asynchronous",
    "SerialClient": "serial_port.client",
    "SerialConnection": "serial_port.client",
    "SerialPort": "serial_port.port",
    "PortUrl": "serial_port.url",
    "LineSettings": "uart.settings",
    "ModemLines": "uart.settings",
    "LineErrors": "uart.settings",
    "SyslogReceiver": "collector",
    "Counts": "collector.counts",
    "discover_usbip_servers": "servers.mdns",
    "Server": "server",
    "Access": "server",
    "Decision": "server",
    "Client": "server",
    "Peer": "net.listening",
    "serve": "serving",
    "LocalServer": "serving",
    "Device": "device",
    "Transfer": "device",
    "Urb": "usb.urb",
    "Completion": "usb.urb",
    "IsoPacket": "usb.urb",
    "DeviceInfo": "usb.info",
    "Tap": "tap",
    "Tapped": "tap",
    "BackendDevice": "devices.backend",
    "UsbipError": "errors",
    "LocalProtocolError": "errors",
    "FileFormatError": "errors",
    "RemoteProtocolError": "errors",
    "StrayReply": "errors",
    "ServerUnreachable": "errors",
    "ServerLost": "errors",
    "DeviceNotFound": "errors",
    "ImportRefused": "errors",
    "DeviceError": "errors",
    "TransferFailed": "errors",
    "TransferTimeout": "errors",
    "RequestRefused": "errors",
    "DeviceGone": "errors",
    "CaptureError": "errors",
    "CannotListen": "errors",
    "ResponseTimeout": "errors",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
