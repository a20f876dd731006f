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

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from usbip_capture.access.devices import ALL, CLASS, DevicePattern, parsed_fields
from usbip_capture.errors import LocalProtocolError
from usbip_capture.usb.info import DeviceInfo

HUB_CLASS = 0x09


@dataclass(slots=True, frozen=True)
class ExportRule(DevicePattern):
    """One rule: devices of this pattern, but hubs."""

    @classmethod
    def parse(cls, text: str) -> ExportRule:
        """From one of the forms above; blanks at its ends do not count. Raises LocalProtocolError."""
        rule = cls(**parsed_fields(text, "a rule of what is exported"))  # type: ignore[arg-type]  # as the fields are
        if rule.kind == CLASS and rule.class_code == HUB_CLASS:
            raise LocalProtocolError("hubs are not exported: name what is plugged into one, or its class")
        return rule

    @property
    def is_broad(self) -> bool:
        """Whether it names no device: who writes it may not think of the disk that the system runs from."""
        return self.kind in (CLASS, ALL)

    def matches(self, info: DeviceInfo, serial: str | None = "") -> bool:
        """Whether it exports this device. serial: its serial number, empty if it has none, None if not known."""
        return info.bDeviceClass != HUB_CLASS and DevicePattern.matches(self, info, serial)


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
