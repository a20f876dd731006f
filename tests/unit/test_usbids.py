"""The list of USB ids, against a reader that parses all of it."""

from __future__ import annotations

from pathlib import Path

from usbip_capture import usbids

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
    assert usbids.language_name(0x03FF) == usbids.country_name(0xEE) == ""


def test_classes_languages_countries() -> None:
    assert usbids.class_name(0x03) == "Human Interface Device"
    assert usbids.subclass_name(0x08, 0x06) == "SCSI"
    assert usbids.protocol_name(0x08, 0x06, 0x50) == "Bulk-Only"
    assert usbids.language_name(0x0409) == "English (US)"
    assert usbids.country_name(9) == "German"
    assert usbids.list_version() == "2025.07.26"
