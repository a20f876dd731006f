"""Writes `reference.md` from the docstrings: `python docs/make_reference.py`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import usbip_capture
from usbip_capture import device, errors, tap
from usbip_capture.collector.counts import Counts
from usbip_capture.devices.backend import BackendDevice
from usbip_capture.pyusb_backend.asynchronous import TransferFuture
from usbip_capture.pyusb_backend.backend import UsbipBackend
from usbip_capture.serial_port.client import SerialConnection
from usbip_capture.serial_port.port import SerialPort
from usbip_capture.serial_port.url import PortUrl
from usbip_capture.server import Access, Client, Decision, Server
from usbip_capture.uart.settings import LineErrors, LineSettings, ModemLines
from usbip_capture.usb import urb

TARGET = Path(__file__).with_name("reference.md")
PUBLIC: list[object] = [
    *(getattr(usbip_capture, name) for name in usbip_capture.__all__ if name[0] != "_"),
    Counts,
    UsbipBackend,
    TransferFuture,
    SerialConnection,
    SerialPort,
    PortUrl,
    LineSettings,
    ModemLines,
    LineErrors,
    device.Device,
    device.Transfer,
    urb.Urb,
    urb.Completion,
    urb.IsoPacket,
    tap.Tap,
    tap.Tapped,
    BackendDevice,
    Server,
    Access,
    Decision,
    Client,
    *(value for value in vars(errors).values() if inspect.isclass(value) and value.__module__ == errors.__name__),
]


def reference() -> str:
    """The page."""
    parts = ["# Reference\n\nMade from the docstrings by `docs/make_reference.py`.\n"]
    parts += [_described(thing) for thing in PUBLIC]
    return "\n".join(parts)


def _described(thing: object) -> str:
    name = f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"
    kind = "class " if inspect.isclass(thing) else ""
    lines = [f"## {kind}{name}\n", f"```\n{_signature(thing)}\n```\n", _text(thing)]
    if inspect.isclass(thing):
        lines += [_method(key, value) for key, value in vars(thing).items() if not key.startswith("_")]
    return "\n".join(line for line in lines if line)


def _method(name: str, member: object) -> str:
    if isinstance(member, (classmethod, staticmethod)):
        member = member.__func__
    text = _text(member)
    if not text or not (isinstance(member, property) or inspect.isfunction(member)):
        return ""
    signature = "" if isinstance(member, property) else f"```\n{_signature(member, name)}\n```\n\n"
    return f"### {name}\n\n{signature}{text}"


def _signature(thing: object, name: str = "") -> str:
    name = name or getattr(thing, "__name__", "")
    if not callable(thing):
        return name
    try:
        signature = str(inspect.signature(thing))
    except ValueError:
        return name
    signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", signature).replace("(self, ", "(").replace("(self)", "()")
    return f"{name}{signature}"


def _text(thing: object) -> str:
    return f"{inspect.cleandoc(getattr(thing, '__doc__', None) or '')}\n".lstrip("\n")


if __name__ == "__main__":
    TARGET.write_text(reference())
