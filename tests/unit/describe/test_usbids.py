"""The list of USB ids, against a reader that parses all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from usbip_capture.describe import usbids
from usbip_capture.describe.naming import class_names
from usbip_capture.usb.info import DeviceInfo, InterfaceInfo, Speed

TEXT = (Path(usbids.__file__).parent / "usb.ids").read_text(encoding="utf-8")


def vendors() -> dict[int, tuple[str, dict[int, str]]]:
    found: dict[int, tuple[str, dict[int, str]]] = {}
    current: dict[int, str] = {}
    for line in TEXT.partition("\n# List of known device classes")[0].splitlines():
        key, _, name = line.strip().partition("  ")
        if not line or line.startswith(("#", "\t\t")):
            continue
        if line.startswith("\t"):
            current.setdefault(int(key, 16), name.strip())
        else:
            current = {}
            found.setdefault(int(key, 16), (name.strip(), current))
    return found


def test_every_vendor_and_many_products() -> None:
    known = vendors()
    assert len(known) > 3000
    for number, (vendor, (name, products)) in enumerate(known.items()):
        assert usbids.vendor_name(vendor) == name
        for product, text in list(products.items())[: 200 if number % 50 == 0 else 1]:
            assert usbids.product_name(vendor, product) == text


def test_what_is_not_listed() -> None:
    assert usbids.vendor_name(0xFFFF) == usbids.product_name(0xFFFF, 1) == usbids.product_name(0x1D6B, 0xFFFF) == ""
    assert usbids.class_name(0x77) == usbids.subclass_name(0x77, 1) == usbids.protocol_name(3, 0x77, 1) == ""
    assert usbids.country_name(0xEE) == ""


def test_the_section_in_decimal() -> None:
    """Each of its entries, by the number that is printed there; none has a hexadecimal digit."""
    entries = [line[4:].split("  ", 1) for line in TEXT.splitlines() if line.startswith("HCC ")]
    assert len(entries) == 36
    for number, name in entries:
        assert usbids.country_name(int(number)) == name
    # As HID 1.11, 6.2.1 have them.
    assert [usbids.country_name(code) for code in (9, 10, 15, 16, 21, 32, 33, 35)] == [
        "German", "Greek", "Japan (Katakana)", "Korean", "Poland", "UK", "US", "Turkish-F"
    ]  # fmt: skip
    assert usbids.country_name(36) == usbids.country_name(0x10 * 0x10) == ""


def test_classes_and_usages() -> None:
    assert usbids.class_name(0x03) == "Human Interface Device"
    assert usbids.subclass_name(0x08, 0x06) == "SCSI"
    assert usbids.protocol_name(0x08, 0x06, 0x50) == "Bulk-Only"
    assert usbids.subclass_name(0xEF, 2) == ""  # which the list calls "?"
    assert usbids.report_tag_name(0xA0) == "Collection"
    assert usbids.usage_page_name(0x0C) == "Consumer"
    assert usbids.usage_name(0x01, 0x06) == "Keyboard"


def test_vendors_that_are_not_listed_are_not_found() -> None:
    known = vendors()
    for vendor in range(0, 0x10000, 7):
        assert usbids.vendor_name(vendor) == (known[vendor][0] if vendor in known else ""), hex(vendor)


def test_a_name_is_looked_up_without_reading_the_whole_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are looked at are counted: for a vendor those near the way of a bisection, for a class the end."""

    class Counting(bytes):
        looked_at = 0

        def find(self, *args: Any) -> int:
            start = args[1] if len(args) > 1 else 0
            found = bytes.find(self, *args)
            Counting.looked_at += (found if found >= 0 else args[2] if len(args) > 2 else len(self)) - max(start, 0)
            return found

    data = Counting(usbids._list())
    monkeypatch.setattr(usbids, "_list", lambda: data)
    for number in (0x0001, 0x1209, 0x303A, 0x9999, 0xFFEE, 0xFFFF):
        Counting.looked_at = 0
        usbids._vendor(number)
        assert Counting.looked_at < len(data) / 4
    for code in (0x03, 0x77, 0xFF):
        Counting.looked_at = 0
        usbids._block(f"C {code:02x}")
        assert Counting.looked_at < len(data) / 8


def test_names_are_remembered_and_each_class_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    block = usbids._block

    def counting(key: str) -> bytes:
        asked.append(key)
        return block(key)

    monkeypatch.setattr(usbids, "_block", counting)
    usbids.class_name.cache_clear()
    interfaces = tuple(InterfaceInfo(3 if n % 2 else 8, 0, 0) for n in range(255))
    info = DeviceInfo("1-1", 1, 2, Speed.HIGH, 0x1209, 1, bNumInterfaces=255, interfaces=interfaces)
    for _ in range(100):
        assert class_names(info) == ["Mass Storage", "Human Interface Device"]
    assert len(asked) == 2
