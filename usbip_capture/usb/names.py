"""Class names of devices that nobody has asked for their own."""

from __future__ import annotations

from usbip_capture.usb.info import DeviceInfo

# Ref: USB-IF, Defined Class Codes
_CLASSES = {
    0x01: "audio",
    0x02: "CDC serial",
    0x03: "HID",
    0x05: "physical",
    0x06: "image",
    0x07: "printer",
    0x08: "mass storage",
    0x09: "hub",
    0x0A: "CDC data",
    0x0B: "smart card",
    0x0D: "content security",
    0x0E: "video",
    0x0F: "healthcare",
    0x10: "audio/video",
    0x11: "billboard",
    0xDC: "diagnostic",
    0xE0: "wireless",
    0xEF: "miscellaneous",
    0xFE: "application",
    0xFF: "vendor-specific",
}
_BY_INTERFACE = (0x00, 0xEF)


def device_name(info: DeviceInfo) -> str:
    """What kind of device it is, by its class or those of its interfaces; empty if nothing is known."""
    codes = [info.bDeviceClass]
    if info.bDeviceClass in _BY_INTERFACE:
        codes = [interface.bInterfaceClass for interface in info.interfaces]
    names = [class_name(code) for code in codes]
    return " + ".join(dict.fromkeys(name for name in names if name != "CDC data"))


def class_name(code: int) -> str:
    """What a bDeviceClass or bInterfaceClass stands for."""
    return _CLASSES.get(code, f"class {code:#04x}")
