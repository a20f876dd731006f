"""Patterns of devices: a port, an identity, a class, or all. They outlive the devices. Pure.

| pattern | matches |
| --- | --- |
| `1-1.4` | whatever is plugged into this port |
| `303a:4001` | devices of this idVendor and idProduct, in hexadecimal |
| `303a:4001:SERIAL` | that one of them which has this serial number |
| `class:03` | devices, or devices with an interface, of this class, in hexadecimal |
| `all` | every device |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from usbip_capture.errors import LocalProtocolError
from usbip_capture.usb.info import DeviceInfo

PORT, IDENTITY, CLASS, ALL = "port", "identity", "class", "all"
FORMS = "a port such as 1-1.4, VID:PID such as 303a:4001, VID:PID:SERIAL, class:03, or all"
# Ref: Linux drivers/usb/core/usb.c, usb_alloc_dev (names of devices)
_PORT = re.compile(r"[0-9]{1,3}-[0-9]{1,3}(\.[0-9]{1,3}){0,6}")
_IDENTITY = re.compile(r"(?:0[xX])?([0-9a-fA-F]{1,4}):(?:0[xX])?([0-9a-fA-F]{1,4})(?::(.+))?", re.DOTALL)
_CLASS = re.compile(r"class:(?:0[xX])?([0-9a-fA-F]{1,2})")

#: What a pattern is found by: (kind, values). Those of a device are the keys of all patterns that match it.
Key: TypeAlias = "tuple[str | int, ...]"
ALL_KEY: Key = (ALL,)
#: In a key, a serial number that is not known.
UNKNOWN = ""


@dataclass(slots=True, frozen=True)
class DevicePattern:
    """One pattern. kind: PORT, IDENTITY, CLASS or ALL; of the other fields only its own are set."""

    kind: str
    busid: str = ""
    idVendor: int = 0
    idProduct: int = 0
    serial: str = ""
    class_code: int = 0

    @classmethod
    def parse(cls, text: str) -> DevicePattern:
        """From one of the forms above; blanks at its ends do not count. Raises LocalProtocolError."""
        return cls(**parsed_fields(text, "a device"))  # type: ignore[arg-type]  # as the fields are

    @property
    def key(self) -> Key:
        """The same for equal patterns only."""
        if self.kind == PORT:
            return (PORT, self.busid)
        if self.kind == IDENTITY:
            serial = (self.serial,) if self.serial else ()
            return (IDENTITY, self.idVendor, self.idProduct, *serial)
        return (CLASS, self.class_code) if self.kind == CLASS else ALL_KEY

    def matches(self, info: DeviceInfo, serial: str | None = "") -> bool:
        """Whether it is one of these. serial: the device's serial number, empty if it has none, None if not known."""
        return self.key in keys_of(info, serial)

    def __str__(self) -> str:
        """As `parse` takes it."""
        if self.kind == PORT:
            return self.busid
        if self.kind == IDENTITY:
            return f"{self.idVendor:04x}:{self.idProduct:04x}" + (f":{self.serial}" if self.serial else "")
        return f"class:{self.class_code:02x}" if self.kind == CLASS else ALL


def keys_of(info: DeviceInfo, serial: str | None = "") -> list[Key]:
    """The keys of all patterns that match a device. serial: None if it has one that is not known."""
    keys: list[Key] = [ALL_KEY, (PORT, info.busid), (IDENTITY, info.idVendor, info.idProduct)]
    if serial is None:
        keys.append((IDENTITY, info.idVendor, info.idProduct, UNKNOWN))
    elif serial := serial.strip():  # as patterns are
        keys.append((IDENTITY, info.idVendor, info.idProduct, serial))
    classes = {info.bDeviceClass, *(interface.bInterfaceClass for interface in info.interfaces)}
    keys += [(CLASS, code) for code in classes]
    return keys


def parsed_fields(text: str, what: str) -> dict[str, str | int]:
    """The fields of the pattern that `text` is. what: it is not, for the sentence. Raises LocalProtocolError."""
    text = text.strip()
    if text.lower() == ALL:
        return {"kind": ALL}
    if found := _CLASS.fullmatch(text.lower()):
        return {"kind": CLASS, "class_code": int(found[1], 16)}
    if _PORT.fullmatch(text):
        return {"kind": PORT, "busid": text}
    if (found := _IDENTITY.fullmatch(text)) and (found[3] or "").isprintable():
        return {
            "kind": IDENTITY,
            "idVendor": int(found[1], 16),
            "idProduct": int(found[2], 16),
            "serial": found[3] or "",
        }
    raise LocalProtocolError(f"{text!r} is not {what}: give {FORMS}")
