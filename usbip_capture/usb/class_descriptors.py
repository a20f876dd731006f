"""Descriptors that classes and SuperSpeed add to a configuration: HID, CDC, endpoint companion.

Ref: HID 1.11, 6.2.1; CDC 1.2, 5.2.3; USB 3.2 specification, 9.6.7
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from usbip_capture.usb.setup import DT_CS_INTERFACE, DT_REPORT

# bDescriptorSubtype of CDC functional descriptors, table 13
CDC_HEADER = 0
CDC_CALL_MANAGEMENT = 1
CDC_ACM = 2
CDC_UNION = 6


@dataclass(slots=True, frozen=True)
class HidDescriptor:
    """`descriptors` holds (bDescriptorType, wDescriptorLength) of what belongs to the interface."""

    bcdHID: int
    bCountryCode: int
    descriptors: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, raw: bytes) -> HidDescriptor | None:
        """None if it is too short to be one; a count above what is there is cut."""
        if len(raw) < 6:
            return None
        entries = [(raw[at], raw[at + 1] | raw[at + 2] << 8) for at in range(6, len(raw) - 2, 3)]
        return cls(raw[2] | raw[3] << 8, raw[4], tuple(entries[: raw[5]]))

    @property
    def report_length(self) -> int:
        """Bytes of the report descriptor, 0 if none is named."""
        return next((length for kind, length in self.descriptors if kind == DT_REPORT), 0)


@dataclass(slots=True, frozen=True)
class SuperSpeedCompanion:
    """What a SuperSpeed endpoint adds to its endpoint descriptor."""

    bMaxBurst: int
    bmAttributes: int
    wBytesPerInterval: int

    @classmethod
    def parse(cls, raw: bytes) -> SuperSpeedCompanion | None:
        """None if it is too short to be one."""
        return cls(raw[2], raw[3], raw[4] | raw[5] << 8) if len(raw) >= 6 else None


@dataclass(slots=True, frozen=True)
class CdcFunctional:
    """A functional descriptor; `data` is what follows bDescriptorSubtype.

    Union: data[0] is the controlling interface, the others follow. ACM: data[0] is bmCapabilities.
    """

    bDescriptorSubtype: int
    data: bytes


def cdc_functional(extra: bytes) -> Iterator[CdcFunctional]:
    """The functional descriptors among the `extra_descriptors` of an interface."""
    at = 0
    while at + 3 <= len(extra) and extra[at] >= 2:
        piece = extra[at : at + extra[at]]
        if len(piece) >= 3 and piece[1] == DT_CS_INTERFACE:
            yield CdcFunctional(piece[2], piece[3:])
        at += extra[at]
