"""What devices and classes are called: by themselves if they were asked, else by the list of USB ids."""

from __future__ import annotations

from usbip_capture.describe import usbids
from usbip_capture.usb.info import DeviceInfo, Speed

_PER_INTERFACE = (0x00, 0xEF)
_SPEEDS = {
    Speed.LOW: "1.5M",
    Speed.FULL: "12M",
    Speed.HIGH: "480M",
    Speed.WIRELESS: "480M",
    Speed.SUPER: "5000M",
    Speed.SUPER_PLUS: "10000M",
}


def listed_name(vendor: int, product: int) -> str:
    """Vendor and product as the list of USB ids has them; empty if it knows neither."""
    return f"{usbids.vendor_name(vendor)} {usbids.product_name(vendor, product)}".strip()


def class_names(info: DeviceInfo) -> list[str]:
    """What classes a device has, each once: its own, or those of its interfaces."""
    codes = [info.bDeviceClass]
    if info.bDeviceClass in _PER_INTERFACE and info.interfaces:
        codes = [interface.bInterfaceClass for interface in info.interfaces]
    # Doubles are dropped first: a stranger may list hundreds of interfaces.
    return list(dict.fromkeys(class_name(code) for code in dict.fromkeys(codes) if code or not info.interfaces))


def class_name(code: int) -> str:
    """A class, by its number if the list of USB ids does not know it."""
    return usbids.class_name(code) or f"class {code:#04x}"


def speed_name(speed: Speed) -> str:
    """A speed as lsusb writes it: 480M."""
    return _SPEEDS.get(speed, "unknown speed")


def version(bcd: int) -> str:
    """A binary coded version: 0x0210 is 2.10."""
    return f"{bcd >> 8:x}.{bcd & 0xFF:02x}"
