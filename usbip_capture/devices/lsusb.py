"""Devices out of the text that `lsusb -v` prints: their descriptors rebuilt, line by line.

What lsusb shows in full is rebuilt byte by byte: standard descriptors, those of CDC and HID, and what it does not know
and prints as bytes. A class descriptor that cannot be rebuilt to its length is left out, and wTotalLength is counted.

Ref: usbutils, lsusb(8) and the names of fields in its output, which are those of the USB specification
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from usbip_capture.devices.chapter9 import Descriptors
from usbip_capture.errors import LocalProtocolError
from usbip_capture.usb.descriptors import DeviceDescriptor, parse_configuration
from usbip_capture.usb.info import DeviceInfo, Speed

_LONGEST_FILE = 1 << 20
_FIELD = re.compile(r"(b\w*|w\w*|id?[A-Z]\w*|dw\w*|MaxPower)(?:\(\s*\d+\)|\[\s*\d+\])?\s+(\S+)\s?(.*)")
_RAW = re.compile(r"\*\* UNRECOGNIZED:((?:\s+[0-9a-fA-F]{2})+)")
_SPEED = re.compile(r"Negotiated speed:.*\(([\d.]+)([MG])bps\)", re.IGNORECASE)

# Class descriptors that lsusb prints without their length and type.
_CDC_SUBTYPES = {"CDC Header": 0, "CDC Call Management": 1, "CDC ACM": 2, "CDC Union": 6}
_DEVICE, _CONFIGURATION = "Device Descriptor", "Configuration Descriptor"
# Blocks that are descriptors of their own, not part of a configuration.
_OTHERS = ("Device Qualifier", "Binary Object Store", "Device Status", "Hub Descriptor", "Debug descriptor")
_STANDARD = ("Interface Descriptor", "Interface Association", "Endpoint Descriptor")


@dataclass(slots=True)
class _Block:
    """The lines below one heading: (name, value) in their order."""

    title: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)  # unrecognized ones that follow it

    def pack(self) -> bytes:
        """The descriptor, and what follows; b"" for one that is left out."""
        body = b"".join(_packed(name, value) for name, value in self.fields)
        if self.title in _CDC_SUBTYPES:
            body = bytes([len(body) + 3, 0x24, _CDC_SUBTYPES[self.title]]) + body
        if len(body) < 2 or body[0] != len(body):
            # Standard ones may have more lines, with what another descriptor says, such as a SuperSpeed companion.
            body = body[: body[0]] if self.title in _STANDARD and body else b""
        return body + b"".join(self.raw)


def parse_lsusb(text: str) -> tuple[Descriptors, Speed]:
    """Descriptors of the first device in a text, and its speed. Raises LocalProtocolError if there is none."""
    strings: dict[int, str] = {}
    blocks = list(_blocks(text, strings))
    device = next((block.pack() for block in blocks if block.title == _DEVICE), b"")
    configurations: list[bytes] = []
    inside = False
    for block in blocks:
        if block.title == _CONFIGURATION:
            inside = True
            configurations.append(block.pack())
        elif block.title.startswith((_DEVICE, *_OTHERS)):
            inside = False
        elif inside:
            configurations[-1] += block.pack()
    if len(device) != 18 or not configurations or any(len(each) < 9 for each in configurations):
        raise LocalProtocolError("no device and configuration descriptor in it: save what `lsusb -v -d VID:PID` prints")
    whole = [each[:2] + len(each).to_bytes(2, "little") + each[4:] for each in configurations]
    names = [strings.get(index, "") for index in range(1, max(strings, default=0) + 1)]
    return Descriptors(device, whole, names), _speed(text, device, whole[0])


def read_lsusb(path: Path) -> tuple[DeviceInfo, Descriptors]:
    """The device in a file, under the busid that is the file's name. Raises LocalProtocolError."""
    busid = path.stem
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            descriptors, speed = parse_lsusb(file.read(_LONGEST_FILE))
    except OSError as error:
        raise LocalProtocolError(f"{path} cannot be read: {error.strerror}") from error
    except LocalProtocolError as error:
        raise LocalProtocolError(f"{path}: {error}") from error
    numbers = [int(part) for part in re.findall(r"\d+", busid)]
    if not numbers or len(busid) > 31:
        raise LocalProtocolError(f"{path}: its name is no busid; call it 1-2.lsusb, for example")
    return descriptors.info(busid, numbers[0] & 0x7FFF, numbers[-1] & 0xFFFF, speed), descriptors


def _blocks(text: str, strings: dict[int, str]) -> Iterator[_Block]:
    """The blocks of the first device; `strings` collects what its indices stand for."""
    block: _Block | None = None
    indent, devices = 0, 0
    for line in text.splitlines():
        content = line.strip()
        depth = len(line) - len(line.lstrip())
        if content.endswith(":") and "UNRECOGNIZED" not in content and not _FIELD.match(content):
            title = content.rstrip(":")
            devices += title == _DEVICE
            if devices > 1:
                break
            if block is not None:
                yield block
            block, indent = _Block(title), 0
        elif block is not None and (raw := _RAW.match(content)):
            block.raw.append(bytes.fromhex(raw[1]))
        elif block is not None and (found := _FIELD.match(content)):
            name, value, rest = found.groups()
            # Deeper lines explain the one above; only a report descriptor's own are as deep as fields.
            indent = indent or depth
            if depth == indent:
                block.fields.append((name, value))
                if name.startswith("i") and value.isdigit() and 0 < int(value) < 256:
                    strings[int(value)] = "" if rest.strip() == "(error)" else rest.strip()
    if block is not None:
        yield block


def _packed(name: str, value: str) -> bytes:
    """A field as in its descriptor; its size is in its name."""
    size = 4 if name.startswith("dw") else 2 if name.startswith(("w", "bcd", "id")) else 1
    try:
        if name == "MaxPower":
            number = int(value.removesuffix("mA")) // 2
        elif name.startswith("bcd"):
            number = int(value.replace(".", ""), 16)
        else:
            number = int(value, 0)
        return number.to_bytes(size, "little")
    except (ValueError, OverflowError):
        return b""


def _speed(text: str, device: bytes, configuration: bytes) -> Speed:
    """As lsusb says; older versions do not, then as the descriptors suggest."""
    known = {"1.5M": Speed.LOW, "12M": Speed.FULL, "480M": Speed.HIGH, "5G": Speed.SUPER, "5000M": Speed.SUPER,
             "10G": Speed.SUPER_PLUS, "10000M": Speed.SUPER_PLUS}  # fmt: skip
    if found := _SPEED.search(text):
        return known.get(found[1] + found[2].upper(), Speed.HIGH)
    if DeviceDescriptor.parse(device).bcdUSB >= 0x0300:
        return Speed.SUPER
    sizes = [e.wMaxPacketSize for i in parse_configuration(configuration).interfaces for e in i.endpoints]
    return Speed.HIGH if any(size >= 512 for size in sizes) else Speed.FULL
