"""Names of vendors, products and classes: the list of the Linux USB project, which the package brings along.

Searched as it lies, without parsing it: vendors, which are sorted, by bisection; the rest, at its end, from there on.
What was found is remembered, with a bound: a stranger may list devices of every vendor.

Ref: http://www.linux-usb.org/usb.ids, its section "Syntax"
"""

from __future__ import annotations

import os
from functools import cache, lru_cache

_PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "usb.ids")
#: Names that are kept of each kind.
_REMEMBERED = 4096


@lru_cache(_REMEMBERED)
def vendor_name(vendor: int) -> str:
    """Who has this idVendor; empty if the list does not know."""
    return _entry(_vendor(vendor))


@lru_cache(_REMEMBERED)
def product_name(vendor: int, product: int) -> str:
    """What has these idVendor and idProduct; empty if the list does not know."""
    return _entry(_child(_vendor(vendor), 1, f"{product:04x}"))


@lru_cache(_REMEMBERED)
def class_name(code: int) -> str:
    """What a bDeviceClass or bInterfaceClass stands for; empty if the list does not know."""
    return _entry(_block(f"C {code:02x}"))


@lru_cache(_REMEMBERED)
def subclass_name(code: int, subclass: int) -> str:
    """What a subclass stands for; empty if the list does not know."""
    return _entry(_child(_block(f"C {code:02x}"), 1, f"{subclass:02x}"))


@lru_cache(_REMEMBERED)
def protocol_name(code: int, subclass: int, protocol: int) -> str:
    """What a protocol stands for; empty if the list does not know."""
    return _entry(_child(_child(_block(f"C {code:02x}"), 1, f"{subclass:02x}"), 2, f"{protocol:02x}"))


def country_name(code: int) -> str:
    """The country of a HID's keys, bCountryCode; empty if the list does not know."""
    # Unlike all the other sections, this one is numbered in decimal.
    return _entry(_block(f"HCC {code:02d}"))


def terminal_name(code: int) -> str:
    """What an audio terminal's wTerminalType stands for; empty if the list does not know."""
    return _entry(_block(f"AT {code:04x}"))


def report_tag_name(tag: int) -> str:
    """What an item of a HID report descriptor is, by its prefix without the size; empty if the list does not know."""
    return _entry(_block(f"R {tag:02x}"))


def usage_page_name(page: int) -> str:
    """A usage page of HID; empty if the list does not know."""
    return _entry(_block(f"HUT {page:02x}"))


def usage_name(page: int, usage: int) -> str:
    """A usage of such a page; empty if the list does not know."""
    return _entry(_child(_block(f"HUT {page:02x}"), 1, f"{usage:03x}"))


@cache
def _list() -> bytes:
    with open(_PATH, "rb") as file:
        return file.read()


@cache
def _sections() -> tuple[int, int]:
    """Where the vendors begin, and where they end: there the lists of classes and other things begin."""
    data = _list()
    return data.find(b"\n0001  ") + 1, data.find(b"\nC 00  ") + 1


def _vendor(number: int) -> bytes:
    """A vendor's entry with all that belongs to it."""
    data, wanted = _list(), b"%04x" % number
    low, high = _sections()
    while low < high:
        middle = _next_entry(data, (low + high) // 2, high)
        if middle >= high:  # no entry begins in the second half
            high = (low + high) // 2
            continue
        key = data[middle : middle + 4]
        if key == wanted:
            return _whole(data, middle)
        if key < wanted:
            low = middle + 1
        else:
            high = (low + high) // 2
    return b""


def _next_entry(data: bytes, at: int, end: int) -> int:
    """Where the first entry of the outermost level from `at` on begins; `end` if there is none before."""
    at = data.find(b"\n", at - 1, end) + 1
    while at and data[at : at + 1] in (b"\t", b"#", b"\n"):
        at = data.find(b"\n", at, end) + 1
    return at or end


def _block(key: str) -> bytes:
    """An entry of the outermost level, not a vendor's, with all that belongs to it."""
    data = _list()
    start = data.find(f"\n{key}  ".encode(), _sections()[1] - 1) + 1
    return _whole(data, start) if start else b""


def _whole(data: bytes, start: int) -> bytes:
    end = start
    while True:
        end = data.find(b"\n", end) + 1
        if not end:
            return data[start:]
        if data[end : end + 1] not in (b"\t", b"#"):  # a comment may stand within an entry
            return data[start:end]


def _child(block: bytes, level: int, key: str) -> bytes:
    """An entry within `block`, with all that belongs to it."""
    tabs = b"\t" * level
    start = block.find(b"\n" + tabs + key.encode() + b"  ") + 1
    if not start:
        return b""
    end = start
    while True:
        end = block.find(b"\n", end) + 1
        if not end or not block.startswith((tabs + b"\t", b"#"), end):
            return block[start : end or None]


def _entry(block: bytes) -> str:
    name = block.partition(b"\n")[0].partition(b"  ")[2].decode("utf-8", "replace").strip()
    return "" if name == "?" else name  # which stands for a name that nobody knows
