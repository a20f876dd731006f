"""HID report descriptors item by item, as `lsusb -v` prints them.

Ref: usbutils 014, lsusb.c (its layout, and `(null)` for what has no name); HID 1.11, 6.2.2; HID Usage Tables
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from usbip_capture.describe import usbids
from usbip_capture.usb import report_items as items
from usbip_capture.usb.report_items import ReportItem

_UNNAMED = "(null)"
_PAD, _DEEP = " " * 12, " " * 28
_KINDS = ("Main", "Global", "Local", "reserved")
_COLLECTIONS = ("Physical", "Application", "Logical", "Report", "Named Array", "Usage Switch", "Usage Modifier")
_USAGES = (items.USAGE, items.USAGE_MINIMUM, items.USAGE_MAXIMUM)
_FIELDS = (items.INPUT, items.OUTPUT, items.FEATURE)
# What bits 0 to 8 of a field mean: set, not set.
_FIELD_BITS = (
    ("Constant", "Data"), ("Variable", "Array"), ("Relative", "Absolute"), ("Wrap", "No_Wrap"),
    ("Non_Linear", "Linear"), ("No_Preferred_State", "Preferred_State"), ("Null_State", "No_Null_Position"),
    ("Volatile", "Non_Volatile"), ("Buffered Bytes", "Bitfield"),
)  # fmt: skip
_FIRST_LINE = 5
_SYSTEMS = ("None", "SI Linear", "SI Rotation", "English Linear", "English Rotation")
_UNITS = (
    ("None",) * 6,
    ("Centimeter", "Gram", "Seconds", "Kelvin", "Ampere", "Candela"),
    ("Radians", "Gram", "Seconds", "Kelvin", "Ampere", "Candela"),
    ("Inch", "Slug", "Seconds", "Fahrenheit", "Ampere", "Candela"),
    ("Degrees", "Slug", "Seconds", "Fahrenheit", "Ampere", "Candela"),
)
_VENDOR_DEFINED = 0xF


def report_lines(raw: bytes) -> Iterator[str]:
    """The lines of one report descriptor, its heading first."""
    yield f"          Report Descriptor: (length is {len(raw)})"
    value = page = 0xFFFF  # an item without data has the last one's
    for item in items.report_items(raw):
        if len(item.data) < item.size:
            yield f"{_PAD}** TRUNCATED at offset {item.offset} **"
            return
        head = f"{_PAD}Item({_KINDS[item.kind]:6}): {_tag_name(item.tag)}, data="
        if item.size:
            value = item.value
            signed = int.from_bytes(item.data, "little", signed=item.size == 4)
            yield f"{head} [ {' '.join(f'0x{byte:02x}' for byte in item.data)} ] {signed}"
        else:
            yield f"{head}none"
        if item.tag == items.USAGE_PAGE:
            page = value
        yield from (f"{_DEEP}{text}" for text in _meaning(item, value, page))


def _meaning(item: ReportItem, value: int, page: int) -> Iterator[str]:
    """What lsusb prints below an item."""
    if item.tag == items.USAGE_PAGE:
        yield _page_name(value)
    elif item.tag in _USAGES:
        # A usage of four bytes brings its page along; lsusb adds the current one all the same.
        whole = (page << 16) + value & 0xFFFFFFFF
        yield _usage_name(whole >> 16, whole & 0xFFFF)
    elif item.tag == items.UNIT_EXPONENT:
        yield f"Unit Exponent: {(value & 0xFF ^ 0x80) - 0x80}"
    elif item.tag == items.UNIT:
        yield _unit(value, item.size)
    elif item.tag == items.COLLECTION:
        yield _collection(value)
    elif item.tag in _FIELDS:
        words = [names[not value >> bit & 1] for bit, names in enumerate(_FIELD_BITS)]
        yield " ".join(words[:_FIRST_LINE])
        yield " ".join(words[_FIRST_LINE:])


def _collection(value: int) -> str:
    if value < len(_COLLECTIONS):
        return _COLLECTIONS[value]
    return "Vendor defined" if value & 0x80 else "Reserved for future use."


def _unit(value: int, size: int) -> str:
    """Ref: HID 1.11, 6.2.2.7: the system in the lowest nibble, then a signed exponent for each unit."""
    system = value & 0xF
    if system >= len(_SYSTEMS):
        return f"System: {'Vendor defined' if system == _VENDOR_DEFINED else 'Reserved'}, Unit: (unknown)"
    factors = []
    for number in range(1, size * 2):
        exponent = value >> 4 * number & 0xF
        if exponent:
            name = _UNITS[system][number - 1] if number <= len(_UNITS[system]) else "None"
            factors.append(name if exponent == 1 else f"{name}^{(exponent ^ 8) - 8}")
    return f"System: {_SYSTEMS[system]}, Unit: {'*'.join(factors) or '(None)'}"


# Names are searched in a list of hundreds of kilobytes, and a descriptor asks for the same few again and again.
@lru_cache(256)
def _tag_name(tag: int) -> str:
    return usbids.report_tag_name(tag) or _UNNAMED


@lru_cache(256)
def _page_name(page: int) -> str:
    return usbids.usage_page_name(page) or _UNNAMED


@lru_cache(1024)
def _usage_name(page: int, usage: int) -> str:
    return usbids.usage_name(page, usage) or _UNNAMED
