"""Descriptors out of the blocks of `lsusb -v`: each field packed as its descriptor has it.

Standard descriptors, and those of HID and CDC, are rebuilt exactly or not at all. Others are rebuilt if their fields,
by the sizes that their names and hexadecimal digits show, have the length that they claim.

Ref: USB 2.0 specification, 9.6; USB 3.2 specification, 9.6.7; HID 1.11, 6.2.1; CDC 1.2, 5.2.3
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from usbip_capture.errors import FileFormatError
from usbip_capture.simulated.lsusb_blocks import CONFIGURATION, DEVICE, Block, Line, failed
from usbip_capture.usb.descriptors import max_power_unit
from usbip_capture.usb.setup import (
    DT_CONFIGURATION,
    DT_CS_INTERFACE,
    DT_DEVICE,
    DT_DEVICE_QUALIFIER,
    DT_ENDPOINT,
    DT_HID,
    DT_INTERFACE,
    DT_INTERFACE_ASSOCIATION,
    DT_SS_ENDPOINT_COMPANION,
)

INTERFACE, ENDPOINT, HID = "Interface Descriptor", "Endpoint Descriptor", "HID Device Descriptor"
QUALIFIER = "Device Qualifier (for other device speed)"
_DECIMAL, _HEXADECIMAL = re.compile(r"-?[0-9]{1,20}$"), re.compile(r"0x([0-9a-fA-F]{1,16})$")
_VERSION = re.compile(r"([0-9a-fA-F]{1,2})\.([0-9a-fA-F]{2})$")
_CURRENT = re.compile(r"([0-9]{1,9})mA$")
_COMPANION = ("bMaxBurst", "MaxStreams", "Mult")
_ISOCHRONOUS, _BULK = 1, 2


class _Layout(NamedTuple):
    """bDescriptorType, the fields after it, how long it may be, and zeros at its end that nobody prints."""

    kind: int
    fields: tuple[str, ...]
    lengths: tuple[int, ...]
    reserved: int = 0


_CLASS = ("bDeviceClass", "bDeviceSubClass", "bDeviceProtocol", "bMaxPacketSize0")
_STANDARD = {
    DEVICE: _Layout(DT_DEVICE, ("bcdUSB", *_CLASS, "idVendor", "idProduct", "bcdDevice", "iManufacturer", "iProduct",
                                "iSerial", "bNumConfigurations"), (18,)),
    QUALIFIER: _Layout(DT_DEVICE_QUALIFIER, ("bcdUSB", *_CLASS, "bNumConfigurations"), (10,), 1),
    CONFIGURATION: _Layout(DT_CONFIGURATION, ("wTotalLength", "bNumInterfaces", "bConfigurationValue",
                                              "iConfiguration", "bmAttributes", "MaxPower"), (9,)),
    "Interface Association": _Layout(DT_INTERFACE_ASSOCIATION, (
        "bFirstInterface", "bInterfaceCount", "bFunctionClass", "bFunctionSubClass", "bFunctionProtocol", "iFunction",
    ), (8,)),
    INTERFACE: _Layout(DT_INTERFACE, (
        "bInterfaceNumber", "bAlternateSetting", "bNumEndpoints", "bInterfaceClass", "bInterfaceSubClass",
        "bInterfaceProtocol", "iInterface",
    ), (9,)),
    ENDPOINT: _Layout(DT_ENDPOINT, ("bEndpointAddress", "bmAttributes", "wMaxPacketSize", "bInterval"), (7, 9)),
    HID: _Layout(DT_HID, ("bcdHID", "bCountryCode", "bNumDescriptors"), ()),
}  # fmt: skip
_AUDIO_ENDPOINT = ("bRefresh", "bSynchAddress")
# Functional descriptors of CDC, printed without length and type: subtype, fields with their sizes.
_NETWORK: dict[str, int] = {"bmNetworkCapabilities": 1}
_CDC: dict[str, tuple[int, Mapping[str, int]]] = {
    "CDC Header": (0x00, {"bcdCDC": 2}),
    "CDC Call Management": (0x01, {"bmCapabilities": 1, "bDataInterface": 1}),
    "CDC ACM": (0x02, {"bmCapabilities": 1}),
    "CDC Union": (0x06, {"bMasterInterface": 1, "bSlaveInterface": 1}),
    "CDC Ethernet": (0x0F, {"iMacAddress": 1, "bmEthernetStatistics": 4, "wMaxSegmentSize": 2, "wNumberMCFilters": 2,
                            "bNumberPowerFilters": 1}),
    "CDC Device Management": (0x14, {"bcdVersion": 2, "wMaxCommand": 2}),
    "CDC NCM": (0x1A, {"bcdNcmVersion": 2, **_NETWORK}),
    "CDC MBIM": (0x1B, {"bcdMBIMVersion": 2, "wMaxControlMessage": 2, "bNumberFilters": 1, "bMaxFilterSize": 1,
                        "wMaxSegmentSize": 2, **_NETWORK}),
    "CDC MBIM Extended": (0x1C, {"bcdMBIMExtendedVersion": 2, "bMaxOutstandingCommandMessages": 1, "wMTU": 2}),
}  # fmt: skip


def pack_block(block: Block, bcdUSB: int = 0) -> bytes:
    """The descriptor, with the SuperSpeed companion of an endpoint; b"" for a class descriptor that is left out.

    bcdUSB: of the device, which decides on the unit of MaxPower. Raises FileFormatError.
    """
    if block.title in _CDC:
        return _functional(block)
    if block.title in _STANDARD:
        return _standard(block, _STANDARD[block.title], bcdUSB)
    try:
        body = b"".join(_packed(line, _shown_size(line)) for line in block.fields) + block.junk
    except FileFormatError:
        return b""
    return body if len(body) > 2 and body[0] == len(body) else b""


def _standard(block: Block, layout: _Layout, bcdUSB: int) -> bytes:
    lines = list(block.fields)
    companion: dict[str, Line] = {}
    if block.title == ENDPOINT:
        companion = {line.name: line for line in lines if line.name in _COMPANION}
        lines = [line for line in lines if line.name not in companion]
    names = ["bLength", "bDescriptorType", *layout.fields]
    length = _packed(lines[0], 1)[0] if lines and lines[0].name == "bLength" else 0
    if block.title == ENDPOINT and length == max(layout.lengths):
        names += _AUDIO_ENDPOINT
    if block.title == HID:
        names += ["bDescriptorType", "wDescriptorLength"] * ((len(lines) - len(names)) // 2)
    _expect(block, lines, names)
    body = b"".join(_current(line, bcdUSB) if line.name == "MaxPower" else _packed(line, _size(line)) for line in lines)
    body += bytes(layout.reserved) + block.junk
    if length != len(body) or (layout.lengths and length not in layout.lengths):
        raise failed(lines[0].number, f"bLength {length} is not the length of this {block.title}, which is {len(body)}")
    if body[1] != layout.kind:
        raise failed(lines[1].number, f"bDescriptorType {body[1]} is not that of a {block.title}: {layout.kind}")
    if block.title == HID and body[5] != (len(lines) - 5) // 2:
        raise failed(lines[4].number, f"bNumDescriptors {body[5]} is not the number of those that follow")
    return body + (_companion(companion, body) if companion else b"")


def _expect(block: Block, lines: list[Line], names: list[str]) -> None:
    """Each field that belongs there, in its place. Raises FileFormatError naming the first that is not."""
    for line, name in zip(lines, names, strict=False):
        if line.name != name:
            raise failed(line.number, f"{line.name} stands where the {block.title} has its {name}")
    if len(lines) < len(names):
        raise failed(block.line, f"the {block.title} has no {names[len(lines)]}")
    if len(lines) > len(names):
        raise failed(lines[len(names)].number, f"{lines[len(names)].name} does not belong to a {block.title}")


def _companion(lines: Mapping[str, Line], endpoint: bytes) -> bytes:
    """The companion of an endpoint, of which lsusb does not print wBytesPerInterval."""
    burst = _packed(lines["bMaxBurst"], 1)[0] if "bMaxBurst" in lines else 0
    transfer = endpoint[3] & 3
    attributes = _packed(lines["Mult"], 1)[0] if "Mult" in lines else 0
    if "MaxStreams" in lines:
        streams = int.from_bytes(_packed(lines["MaxStreams"], 4), "little")
        attributes = streams.bit_length() - 1
        if streams != 1 << max(attributes, 0) or transfer != _BULK:
            raise failed(lines["MaxStreams"].number, f"MaxStreams {streams} is not a power of two of a bulk endpoint")
    size = int.from_bytes(endpoint[4:6], "little") & 0x7FF
    bursts = (burst + 1) * (1 + (attributes & 3 if transfer == _ISOCHRONOUS else 0))
    interval = min(size * bursts, 0xFFFF) if transfer & 1 else 0
    return bytes([6, DT_SS_ENDPOINT_COMPANION, burst, attributes]) + interval.to_bytes(2, "little")


def _functional(block: Block) -> bytes:
    subtype, sizes = _CDC[block.title]
    _expect(block, block.fields, list(sizes))
    body = b"".join(_packed(line, sizes[line.name]) for line in block.fields)
    if block.title == "CDC Union":
        last = block.fields[-1]
        body += b"".join(_packed(last._replace(value=value), 1) for value in last.rest.split())
    body += block.junk
    if len(body) + 3 > 255:
        raise failed(block.line, f"the {block.title} is longer than the 255 bytes of a descriptor")
    return bytes([len(body) + 3, DT_CS_INTERFACE, subtype]) + body


def _size(line: Line) -> int:
    """Bytes of a field, which its name shows."""
    return 4 if line.name.startswith("dw") else 2 if line.name.startswith(("w", "bcd", "id")) else 1


def _shown_size(line: Line) -> int:
    """Bytes of a field of a class: two hexadecimal digits for each of them, else as its name shows."""
    digits = _HEXADECIMAL.match(line.value)
    if digits is not None and len(digits[1]) % 2 == 0:
        return len(digits[1]) // 2
    return 3 if line.name.startswith("t") else _size(line)


def _current(line: Line, bcdUSB: int) -> bytes:
    """bMaxPower, whose unit depends on the version of USB."""
    found = _CURRENT.match(line.value)
    if found is None:
        raise failed(line.number, f"MaxPower {line.value} is not a number of mA")
    milliamperes, unit = int(found[1]), max_power_unit(bcdUSB)
    if milliamperes % unit:
        unit = 2  # an lsusb that does not know of USB 3 yet
    if milliamperes % unit:
        raise failed(line.number, f"MaxPower {line.value} is not a multiple of {unit}mA")
    if milliamperes // unit > 0xFF:
        raise failed(line.number, f"MaxPower {line.value} is more than the {0xFF * unit}mA that fit into its byte")
    return bytes([milliamperes // unit])


def _packed(line: Line, size: int) -> bytes:
    """A field in so many bytes. Raises FileFormatError if it is not a number, or does not fit."""
    value = line.value
    if line.name.startswith("bcd") and (version := _VERSION.match(value)):
        return bytes.fromhex(version[2] + version[1].zfill(2))
    digits = _HEXADECIMAL.match(value)
    if digits is None and not _DECIMAL.match(value):
        raise failed(line.number, f"{line.name} {value} is not a number" if value else f"{line.name} has no value")
    number = int(digits[1], 16) if digits else int(value)
    if not 0 <= number < 1 << 8 * size:
        raise failed(line.number, f"{line.name} {value} does not fit into {size} byte{'s' * (size > 1)}")
    return number.to_bytes(size, "little")
