"""HID report descriptors out of the text of `lsusb -v`, and in place of those that it could not read.

Ref: HID 1.11, 6.2.2, and appendix B (boot descriptors of keyboards and mice)
"""

from __future__ import annotations

import re
from functools import cache

from usbip_capture.simulated.lsusb_blocks import Report, failed
from usbip_capture.usb.descriptors import InterfaceDescriptor
from usbip_capture.usb.report_items import ReportItem
from usbip_capture.usb.urb import DIR_IN

_ITEM = re.compile(r"Item\(\w+\s*\): (.+), data=\s*(?:none|\[((?:\s*0x[0-9a-fA-F]{2})+)\s*\].*)$")
_SIZES = (0, 1, 2, 4)
# Names of items as lsusb has them. Ref: http://www.linux-usb.org/usb.ids, its section R
_TAGS = {
    "Usage Page": 0x04, "Usage": 0x08, "Logical Minimum": 0x14, "Usage Minimum": 0x18, "Logical Maximum": 0x24,
    "Usage Maximum": 0x28, "Physical Minimum": 0x34, "Designator Index": 0x38, "Physical Maximum": 0x44,
    "Designator Minimum": 0x48, "Unit Exponent": 0x54, "Designator Maximum": 0x58, "Unit": 0x64, "Report Size": 0x74,
    "String Index": 0x78, "Input": 0x80, "Report ID": 0x84, "String Minimum": 0x88, "Output": 0x90,
    "Report Count": 0x94, "String Maximum": 0x98, "Collection": 0xA0, "Push": 0xA4, "Delimiter": 0xA8,
    "Feature": 0xB0, "Pop": 0xB4, "End Collection": 0xC0,
}  # fmt: skip

_BOOT, _KEYBOARD, _MOUSE = 1, 1, 2
_BOOT_KEYBOARD = bytes.fromhex(
    "05 01 09 06 a1 01  05 07 19 e0 29 e7 15 00 25 01 75 01 95 08 81 02  95 01 75 08 81 01"
    "95 05 75 01 05 08 19 01 29 05 91 02  95 01 75 03 91 01  95 06 75 08 15 00 25 65 05 07 19 00 29 65 81 00  c0"
)
_BOOT_MOUSE = bytes.fromhex(
    "05 01 09 02 a1 01 09 01 a1 00  05 09 19 01 29 03 15 00 25 01 95 03 75 01 81 02  95 01 75 05 81 01"
    "05 01 09 30 09 31 15 81 25 7f 75 08 95 02 81 06  c0 c0"
)
_NOTHING = bytes([0x09, 0x00])  # Usage (undefined), which no main item follows
_HALF_OF_NOTHING = bytes([0x08])


def report_bytes(report: Report) -> bytes:
    """The descriptor whose items, or bytes, are printed; b"" if lsusb could not read it. Raises FileFormatError."""
    raw = b"".join(_item(line, text) for line, text in report.items)
    if len(raw) != max(report.length, 0):
        raise failed(report.line, f"the report descriptor has {len(raw)} bytes here, not {report.length}")
    return raw


def _item(line: int, text: str) -> bytes:
    if not text.startswith("Item("):
        return bytes.fromhex(text)
    found = _ITEM.match(text)
    tag = _TAGS.get(found[1]) if found else None
    if found is None or tag is None:
        raise failed(line, "this is not an item of a report descriptor as lsusb prints it")
    data = bytes(int(each, 16) for each in (found[2] or "").split())
    if len(data) not in _SIZES:
        raise failed(line, f"an item has 0, 1, 2 or 4 bytes of data, not {len(data)}")
    return ReportItem(tag, len(data), data, 0).pack()


def stand_in(interface: InterfaceDescriptor, length: int) -> bytes:
    """A report descriptor of `length` bytes for one that nobody could read: a driver takes it.

    Keyboards and mice have that of their boot protocol, others vendor-defined reports as long as a packet.
    """
    boot = interface.bInterfaceProtocol if interface.bInterfaceSubClass == _BOOT else 0
    known = {_KEYBOARD: _BOOT_KEYBOARD, _MOUSE: _BOOT_MOUSE}.get(boot, b"")
    if not known or len(known) > length:
        sizes = [e.wMaxPacketSize & 0x7FF for e in interface.endpoints if e.bEndpointAddress & DIR_IN]
        known = _vendor_report(min(max(sizes[:1] or [1]), 0xFF) or 1)
    if len(known) > length:
        known = b""
    spare = length - len(known)
    return known + _NOTHING * (spare // 2) + _HALF_OF_NOTHING * (spare % 2)


@cache
def _vendor_report(count: int) -> bytes:
    """One collection with an input report of so many bytes."""
    return bytes.fromhex(f"06 00ff 09 01 a1 01 09 02 15 00 26 ff00 75 08 95 {count:02x} 81 02 c0")
