"""Devices out of the text that `lsusb -v` prints: their descriptors rebuilt, line by line.

What lsusb shows in full is rebuilt byte by byte: standard descriptors, those of CDC and HID, report descriptors, and
what it does not know and prints as bytes. A descriptor of another class that cannot be rebuilt to its length is left
out, by name, and wTotalLength is counted. Whatever else is not understood is an error with its line.

Ref: usbutils, lsusb(8) and the names of fields in its output, which are those of the USB specification
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from usbip_capture.errors import FileFormatError
from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.lsusb_blocks import CONFIGURATION, DEVICE, Block, Text, failed, read_blocks
from usbip_capture.simulated.lsusb_fields import ENDPOINT, HID, INTERFACE, QUALIFIER, pack_block
from usbip_capture.simulated.lsusb_reports import report_bytes, stand_in
from usbip_capture.system.shown import one_line
from usbip_capture.usb.descriptors import DeviceDescriptor, parse_configuration
from usbip_capture.usb.info import DeviceInfo, Speed

_LONGEST_FILE = 1 << 20
_LONGEST_CONFIGURATION = 0xFFFF  # which wTotalLength can hold
_LONGEST_STRING = 252  # bytes of UTF-16, ref: USB 2.0, 9.6.7
_LONGEST_BUSID = 31
# Blocks that are descriptors of their own, not part of a configuration.
_STORE = "Binary Object Store"
_OTHERS = (QUALIFIER, _STORE, "Device Status", "Hub Descriptor", "Debug descriptor")
# Ref: usbutils, lsusb.c, dump_device; USB/IP has none that is faster than SuperSpeed+
_SPEEDS = {
    "low speed": Speed.LOW, "full speed": Speed.FULL, "high speed": Speed.HIGH, "superspeed": Speed.SUPER,
    "superspeed+": Speed.SUPER_PLUS, "superspeed++": Speed.SUPER_PLUS,
}  # fmt: skip


@dataclass(frozen=True)
class LsusbDescriptors(Descriptors):
    """left_out: class descriptors that the text does not show in full, a sentence about each."""

    left_out: Sequence[str] = ()


def parse_lsusb(text: str) -> tuple[LsusbDescriptors, Speed]:
    """Descriptors of the first device in a text, and its speed.

    Raises FileFormatError if there is none, and for a line that cannot be packed, by its number.
    """
    found = read_blocks(text)
    blocks = found.blocks
    if not blocks:
        raise FileFormatError("no device descriptor in it: save what `lsusb -v -d VID:PID` prints")
    if blocks[0].title != DEVICE:
        raise failed(blocks[0].line, f"a {blocks[0].title} comes before any {DEVICE}")
    device = DeviceDescriptor.parse(pack_block(blocks[0]))
    left_out: list[str] = []
    configurations = [_packed(run, device.bcdUSB, left_out) for run in _runs(blocks)]
    if not configurations:
        raise FileFormatError(
            f"line {blocks[0].line}: no {CONFIGURATION} follows: save what `lsusb -v -d VID:PID` prints, as root"
        )
    if device.bNumConfigurations != len(configurations):
        number, followed = device.bNumConfigurations, len(configurations)
        raise failed(
            blocks[0].fields[-1].number, f"bNumConfigurations is {number}, but {followed} {CONFIGURATION} follow"
        )
    left_out += [f"line {b.line}: the {b.title} is left out" for b in blocks if b.title.startswith(_STORE)]
    descriptors = LsusbDescriptors(
        device.pack(),
        configurations,
        _strings(blocks),
        reports=_reports(_runs(blocks)[0], configurations[0]),
        qualifier=_qualifier(blocks, left_out),
        left_out=left_out,
    )
    return descriptors, _speed(found, device, configurations[0])


def read_lsusb(path: Path) -> tuple[DeviceInfo, LsusbDescriptors]:
    """The device in a file, under the busid that is the file's name. Raises FileFormatError, which names the file."""
    shown = one_line(str(path))
    busid = path.stem
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            text = file.read(_LONGEST_FILE + 1)
    except OSError as error:
        raise FileFormatError(f"{shown} cannot be read: {error.strerror}") from error
    numbers = [int(part) for part in re.findall(r"[0-9]{1,9}", busid)]
    if not numbers or not busid.isascii() or not busid.isprintable() or len(busid) > _LONGEST_BUSID:
        raise FileFormatError(f"{shown}: its name is not a busid; call it 1-2.lsusb, for example")
    if len(text) > _LONGEST_FILE:
        raise FileFormatError(f"{shown} is longer than {_LONGEST_FILE >> 20} MiB: keep one device in it")
    try:
        descriptors, speed = parse_lsusb(text)
        return descriptors.info(busid, numbers[0] & 0x7FFF, numbers[-1] & 0xFFFF, speed), descriptors
    except FileFormatError as error:
        raise FileFormatError(f"{shown}: {error}") from error


def _runs(blocks: Sequence[Block]) -> list[list[Block]]:
    """The blocks of each configuration."""
    runs: list[list[Block]] = []
    inside = False
    for block in blocks:
        if block.title == CONFIGURATION:
            inside = True
            runs.append([])
        elif block.title == DEVICE or block.title.startswith(_OTHERS):
            inside = False
        if inside:
            runs[-1].append(block)
    return runs


def _packed(run: Sequence[Block], bcdUSB: int, left_out: list[str]) -> bytes:
    """One configuration with all that follows it, its length counted."""
    pieces: list[bytes] = []
    interfaces = 0
    for block in run:
        interfaces += block.title == INTERFACE
        if block.title == ENDPOINT and not interfaces:
            raise failed(block.line, f"an {ENDPOINT} comes before any {INTERFACE}")
        piece = pack_block(block, bcdUSB)
        if not piece and block.fields:
            left_out.append(f"line {block.line}: the {one_line(block.title)} is left out: its fields are not its bytes")
        pieces.append(piece)
        for line, raw in block.raw:
            # Only at the very end: what follows would be taken for a part of it.
            if raw[0] != len(raw) and (block is not run[-1] or raw is not block.raw[-1][1]):
                raise failed(line, f"an unrecognized descriptor of {len(raw)} bytes claims to have {raw[0]}")
            pieces.append(raw)
    whole = b"".join(pieces)
    if len(whole) > _LONGEST_CONFIGURATION:
        raise failed(run[0].line, f"a configuration of {len(whole)} bytes is longer than {_LONGEST_CONFIGURATION}")
    return whole[:2] + len(whole).to_bytes(2, "little") + whole[4:]


def _qualifier(blocks: Sequence[Block], left_out: list[str]) -> bytes:
    """The device qualifier; b"" if there is none, or less than one."""
    for block in blocks:
        if block.title == QUALIFIER:
            try:
                return pack_block(block)
            except FileFormatError as error:
                left_out.append(f"{error}: the {QUALIFIER.partition(' (')[0]} is left out")
    return b""


def _reports(run: Sequence[Block], configuration: bytes) -> dict[int, bytes]:
    """Report descriptors by interface, as printed, else such that a driver accepts them."""
    printed: dict[int, tuple[int, bytes]] = {}
    number = -1
    for block in run:
        if block.title == INTERFACE:
            number = pack_block(block)[2]
        elif block.title == HID and block.report is not None:
            printed.setdefault(number, (block.report.line, report_bytes(block.report)))
    found: dict[int, bytes] = {}
    for interface in parse_configuration(configuration).interfaces:
        length = interface.hid.report_length if interface.hid is not None else 0
        if length and interface.bInterfaceNumber not in found:
            line, raw = printed.get(interface.bInterfaceNumber, (0, b""))
            if len(raw) > length:
                raise failed(line, f"the report descriptor has {len(raw)} bytes, but wDescriptorLength is {length}")
            found[interface.bInterfaceNumber] = raw or stand_in(interface, length)
    return found


def _strings(blocks: Sequence[Block]) -> list[str]:
    """The strings that indices stand for, from string 1 on."""
    strings: dict[int, str] = {}
    for block in blocks:
        for line in block.fields:
            if line.name.startswith("i") and re.fullmatch("[0-9]{1,3}", line.value) and 0 < int(line.value) < 256:
                text = "" if line.rest.strip() == "(error)" else line.rest.strip()
                if len(text.encode("utf-16-le", "replace")) > _LONGEST_STRING:
                    raise failed(line.number, f"{line.name} is longer than a string of {_LONGEST_STRING // 2} units")
                strings[int(line.value)] = text
    return [strings.get(index, "") for index in range(1, max(strings, default=0) + 1)]


def _speed(found: Text, device: DeviceDescriptor, configuration: bytes) -> Speed:
    """As lsusb prints it; older versions do not, then as the descriptors suggest."""
    number, text = found.speed
    name = text.partition("(")[0].strip().lower()
    if name in _SPEEDS:
        return _SPEEDS[name]
    if name not in ("", "unknown"):
        raise failed(number, f"{text} is not a speed of USB")
    if device.bcdUSB >= 0x0300:
        return Speed.SUPER
    sizes = [e.wMaxPacketSize for i in parse_configuration(configuration).interfaces for e in i.endpoints]
    return Speed.HIGH if any(size >= 512 for size in sizes) else Speed.FULL
