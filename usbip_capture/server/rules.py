"""Which devices are exported: rules about a port, an identity, a class, or all. They outlive the devices. Pure.

| rule | exports |
| --- | --- |
| `1-1.4` | whatever is plugged into this port |
| `303a:4001` | devices of this idVendor and idProduct, in hexadecimal |
| `303a:4001:SERIAL` | that one of them which has this serial number |
| `class:03` | devices, or devices with an interface, of this class, in hexadecimal |
| `all` | every device |

No rule exports a hub, or what this machine has attached from another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from usbip_capture.errors import LocalProtocolError
from usbip_capture.usb.info import DeviceInfo

HUB_CLASS = 0x09
PORT, IDENTITY, CLASS, ALL = "port", "identity", "class", "all"
FORMS = "a port such as 1-1.4, VID:PID such as 303a:4001, VID:PID:SERIAL, class:03, or all"
# Ref: Linux drivers/usb/core/usb.c, usb_alloc_dev (names of devices)
_PORT = re.compile(r"[0-9]{1,3}-[0-9]{1,3}(\.[0-9]{1,3}){0,6}")
_IDENTITY = re.compile(r"(?:0[xX])?([0-9a-fA-F]{1,4}):(?:0[xX])?([0-9a-fA-F]{1,4})(?::(.+))?", re.DOTALL)
_CLASS = re.compile(r"class:(?:0[xX])?([0-9a-fA-F]{1,2})")


@dataclass(slots=True, frozen=True)
class ExportRule:
    """One rule. kind: PORT, IDENTITY, CLASS or ALL; of the other fields only its own are set."""

    kind: str
    busid: str = ""
    idVendor: int = 0
    idProduct: int = 0
    serial: str = ""
    class_code: int = 0

    @classmethod
    def parse(cls, text: str) -> ExportRule:
        """From one of the forms above; blanks at its ends do not count. Raises LocalProtocolError."""
        text = text.strip()
        if text.lower() == ALL:
            return cls(ALL)
        if found := _CLASS.fullmatch(text.lower()):
            if int(found[1], 16) == HUB_CLASS:
                raise LocalProtocolError("hubs are not exported: name what is plugged into one, or its class")
            return cls(CLASS, class_code=int(found[1], 16))
        if _PORT.fullmatch(text):
            return cls(PORT, busid=text)
        if (found := _IDENTITY.fullmatch(text)) and (found[3] or "").isprintable():
            return cls(IDENTITY, idVendor=int(found[1], 16), idProduct=int(found[2], 16), serial=found[3] or "")
        raise LocalProtocolError(f"{text!r} is not a rule of what is exported: give {FORMS}")

    @property
    def is_broad(self) -> bool:
        """Whether it names no device: who writes it may not think of the disk that the system runs from."""
        return self.kind in (CLASS, ALL)

    def matches(self, info: DeviceInfo, serial: str = "") -> bool:
        """Whether it exports this device. serial: its serial number, empty if it has none."""
        if info.bDeviceClass == HUB_CLASS:
            return False
        if self.kind == PORT:
            return info.busid == self.busid
        if self.kind == IDENTITY:
            return info.vid_pid == (self.idVendor, self.idProduct) and self.serial in ("", serial)
        if self.kind == CLASS:
            classes = {info.bDeviceClass, *(interface.bInterfaceClass for interface in info.interfaces)}
            return self.class_code in classes
        return True

    def __str__(self) -> str:
        """As `parse` takes it."""
        if self.kind == PORT:
            return self.busid
        if self.kind == IDENTITY:
            return f"{self.idVendor:04x}:{self.idProduct:04x}" + (f":{self.serial}" if self.serial else "")
        return f"class:{self.class_code:02x}" if self.kind == CLASS else ALL


class Rules:
    """Several rules, each once, in their order. force: broad ones also export disks that this machine uses."""

    def __init__(self, rules: Iterable[ExportRule | str] = (), *, force: bool = False) -> None:
        """Raises LocalProtocolError for a text that is not a rule."""
        parsed = (ExportRule.parse(rule) if isinstance(rule, str) else rule for rule in rules)
        self._rules = tuple(dict.fromkeys(parsed))
        self.force = force

    def exporting(
        self, info: DeviceInfo, serial: str = "", *, is_foreign: bool = False, is_in_use: bool = False
    ) -> ExportRule | None:
        """The rule by which a device is exported; None if it is not.

        is_foreign: attached from another machine. is_in_use: a disk that is mounted or booted from.
        """
        if is_foreign:
            return None
        matching = [rule for rule in self._rules if rule.matches(info, serial)]
        if is_in_use and not self.force:
            matching = [rule for rule in matching if not rule.is_broad]
        return matching[0] if matching else None

    def with_rule(self, rule: ExportRule) -> Rules:
        """These and one more."""
        return Rules((*self._rules, rule), force=self.force)

    def without_rule(self, rule: ExportRule) -> Rules:
        """These but one."""
        return Rules((other for other in self._rules if other != rule), force=self.force)

    def __iter__(self) -> Iterator[ExportRule]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rules) and (self._rules, self.force) == (other._rules, other.force)

    def __hash__(self) -> int:
        return hash((self._rules, self.force))

    def __repr__(self) -> str:
        return f"Rules({[str(rule) for rule in self._rules]}{', force=True' if self.force else ''})"
