"""Descriptors of classes as `lsusb -v` prints them: CDC, HID and, in modules of their own, others.

What is not known is bytes, as in lsusb.

Ref: CDC 1.2, 5.2.3; PSTN 1.2, 5.3; ECM 1.2, 5.4; HID 1.11, 6.2.1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from usbip_capture.describe import audio, functional, usbids
from usbip_capture.describe.fields import table_lines
from usbip_capture.describe.layout import field, named, number
from usbip_capture.describe.naming import version
from usbip_capture.describe.report_descriptor import report_lines
from usbip_capture.usb.class_descriptors import CDC_ACM, CDC_CALL_MANAGEMENT, CDC_HEADER, CDC_UNION, HidDescriptor
from usbip_capture.usb.descriptors import InterfaceDescriptor, split_descriptors
from usbip_capture.usb.setup import DT_CS_INTERFACE, DT_HID, DT_INTERFACE_ASSOCIATION, DT_REPORT

_COMMUNICATIONS = 0x02
_ETHERNET = 0x0F  # bDescriptorSubtype
_FIRMWARE_UPGRADE = functional.APPLICATION, functional.FIRMWARE_UPGRADE
_HID_TYPES = {0x21: "HID", 0x22: "Report", 0x23: "Physical"}
_CALL_MANAGEMENT = ((1, "call management"), (2, "use DataInterface"))
_ACM = (
    (8, "connection notifications"),
    (4, "sends break"),
    (2, "line coding and serial state"),
    (1, "get/set/clear comm features"),
)
_UNKNOWN = "Unknown"  # as lsusb has it for a country


def extra_lines(
    indent: int, interface: InterfaceDescriptor | None, extra: bytes, strings: Mapping[int, str]
) -> Iterator[str]:
    """Descriptors between the standard ones. Those of HID and of associations are printed elsewhere.

    interface: what they belong to, None for a configuration.
    """
    for piece in split_descriptors(extra):
        kind = piece[1] if len(piece) > 1 else -1
        if kind == DT_INTERFACE_ASSOCIATION or (kind == DT_HID and interface is not None and interface.hid is not None):
            continue
        lines = list(_known(indent, interface, piece, strings)) if interface is not None and len(piece) > 2 else []
        yield from lines or [f"{' ' * indent}** UNRECOGNIZED:  {piece.hex(' ')}"]


class _Asked(Mapping[int, str]):
    """No strings, but the indices of those that were asked for."""

    def __init__(self) -> None:
        self.indices: dict[int, None] = {}

    def __getitem__(self, index: int) -> str:
        self.indices[index] = None
        raise KeyError(index)

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


def string_indices(interface: InterfaceDescriptor) -> list[int]:
    """The strings that an interface's class descriptors name, such as the address of a network adapter."""
    asked = _Asked()
    for extra in (interface.extra_descriptors, *(endpoint.extra_descriptors for endpoint in interface.endpoints)):
        for _ in extra_lines(0, interface, extra, asked):
            pass
    return list(asked.indices)


def _known(indent: int, interface: InterfaceDescriptor, piece: bytes, strings: Mapping[int, str]) -> Iterator[str]:
    """Nothing for what is not known here, or is too short."""
    code, kind = interface.bInterfaceClass, piece[1]
    if code == _COMMUNICATIONS and kind == DT_CS_INTERFACE:
        yield from _cdc(indent, piece, strings)
    elif code == audio.AUDIO and kind in (DT_CS_INTERFACE, audio.DT_CS_ENDPOINT):
        yield from audio.audio_lines(indent, interface, piece, strings)
    elif code == functional.CHIP_CARD and kind == DT_HID:
        yield from functional.card_lines(indent, piece, strings)
    elif (code, interface.bInterfaceSubClass) == _FIRMWARE_UPGRADE and kind == DT_HID:
        yield from functional.firmware_lines(indent, piece)


def _cdc(indent: int, piece: bytes, strings: Mapping[int, str]) -> Iterator[str]:
    """Nothing for what is not known here, or is too short."""
    pad, inner, kind, data = " " * indent, indent + 2, piece[2], piece[3:]
    if kind == CDC_HEADER and len(data) >= 2:
        yield f"{pad}CDC Header:"
        yield field(inner, "bcdCDC", version(data[0] | data[1] << 8))
    elif kind == CDC_CALL_MANAGEMENT and len(data) >= 2:
        yield f"{pad}CDC Call Management:"
        yield from _capabilities(inner, data[0], _CALL_MANAGEMENT)
        yield number(inner, "bDataInterface", data[1])
    elif kind == CDC_ACM and data:
        yield f"{pad}CDC ACM:"
        yield from _capabilities(inner, data[0], _ACM)
    elif kind == CDC_UNION and len(data) >= 2:
        yield f"{pad}CDC Union:"
        yield number(inner, "bMasterInterface", data[0])
        yield " ".join([number(inner, "bSlaveInterface", data[1]), *map(str, data[2:])])
    elif kind == _ETHERNET:
        yield from functional.ethernet_lines(indent, data, strings)
    elif kind in functional.TABLES:
        title, fields, width = functional.TABLES[kind]
        yield f"{pad}{title}:"
        yield from table_lines(inner, fields, data, strings, width)


def _capabilities(indent: int, value: int, bits: tuple[tuple[int, str], ...]) -> Iterator[str]:
    yield field(indent, "bmCapabilities", f"{value:#04x}")
    for bit, text in bits:
        if value & bit:
            yield f"{' ' * indent}  {text}"


def hid_lines(hid: HidDescriptor, report: bytes) -> Iterator[str]:
    """The HID descriptor of an interface, and its report descriptor if it could be read."""
    yield "        HID Device Descriptor:"
    yield number(10, "bLength", 6 + 3 * len(hid.descriptors))
    yield number(10, "bDescriptorType", DT_HID)
    yield field(10, "bcdHID", version(hid.bcdHID))
    yield named(10, "bCountryCode", str(hid.bCountryCode), usbids.country_name(hid.bCountryCode) or _UNKNOWN)
    yield number(10, "bNumDescriptors", len(hid.descriptors))
    for kind, length in hid.descriptors:
        yield named(10, "bDescriptorType", str(kind), _HID_TYPES.get(kind, "(null)"))
        yield number(10, "wDescriptorLength", length)
    if not report:
        yield "         Report Descriptors:"
        yield "           ** UNAVAILABLE **"
        return
    for kind, length in hid.descriptors:
        if kind == DT_REPORT:
            if len(report) < length:
                yield "          Warning: incomplete report descriptor"
            yield from report_lines(report)
