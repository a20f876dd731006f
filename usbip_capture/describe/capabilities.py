"""The binary device object store as `lsusb -v` prints it.

Ref: usbutils 014, lsusb.c; USB 3.2 specification, 9.6.2; WebUSB, 4.1.1
"""

from __future__ import annotations

from collections.abc import Iterator

from usbip_capture.describe.layout import field, named, number
from usbip_capture.describe.naming import version
from usbip_capture.describe.reading import Description
from usbip_capture.usb.bos import CONTAINER_ID, PLATFORM, SUPERSPEED_USB, USB_2_0_EXTENSION, WEBUSB, DeviceCapability

_SUPERSPEED_LENGTH = 7
_WEBUSB_LENGTH = 21
_SPEEDS = ("Low Speed (1Mbps)", "Full Speed (12Mbps)", "High Speed (480Mbps)", "SuperSpeed (5Gbps)")


def capability_lines(found: Description) -> Iterator[str]:
    """The store and its capabilities; nothing if there is none."""
    raw = found.bos
    if not raw:
        return
    yield "Binary Object Store Descriptor:"
    yield number(2, "bLength", raw[0])
    yield number(2, "bDescriptorType", raw[1])
    yield field(2, "wTotalLength", f"{int.from_bytes(raw[2:4], 'little'):#06x}")
    yield number(2, "bNumDeviceCaps", raw[4])
    for capability in found.capabilities:
        yield from _capability(capability)


def _capability(capability: DeviceCapability) -> Iterator[str]:
    kind, data = capability.bDevCapabilityType, capability.data
    if kind == USB_2_0_EXTENSION and len(data) >= 4:
        yield from _head("USB 2.0 Extension", capability)
        yield from _link_power(int.from_bytes(data[:4], "little"))
    elif kind == SUPERSPEED_USB and len(data) >= _SUPERSPEED_LENGTH:
        yield from _head("SuperSpeed USB", capability)
        yield from _superspeed(data)
    elif kind == CONTAINER_ID and capability.uuid is not None:
        yield from _head("Container ID", capability)
        yield number(4, "bReserved", data[0])
        yield f"    ContainerID             {{{capability.uuid}}}"
    elif kind == PLATFORM and capability.uuid is not None:
        yield from _head("Platform", capability)
        yield number(4, "bReserved", data[0])
        yield f"    PlatformCapabilityUUID    {{{capability.uuid}}}"
        yield from _platform(capability)
    else:
        yield f"  ** UNRECOGNIZED:  {bytes([len(data) + 3, 16, kind]).hex(' ')} {data.hex(' ')}"


def _head(title: str, capability: DeviceCapability) -> Iterator[str]:
    yield f"  {title} Device Capability:"
    yield number(4, "bLength", len(capability.data) + 3)
    yield number(4, "bDescriptorType", 16)
    yield number(4, "bDevCapabilityType", capability.bDevCapabilityType)


def _platform(capability: DeviceCapability) -> Iterator[str]:
    data = capability.data
    if capability.uuid == WEBUSB and len(data) == _WEBUSB_LENGTH:
        yield "      WebUSB:"
        yield field(8, "bcdVersion", version(data[17] | data[18] << 8), 18)
        yield field(8, "bVendorCode", str(data[19]), 18)
        yield field(8, "iLandingPage", str(data[20]), 18)
        return
    for at, value in enumerate(data[17:]):
        yield f"    CapabilityData[{at}]    {value:#04x}"


def _link_power(attributes: int) -> Iterator[str]:
    """Ref: USB 2.0 ECN Link Power Management, table 3."""
    yield field(4, "bmAttributes", f"{attributes:#010x}")
    if not attributes & 2:
        yield "      (Missing must-be-set LPM bit!)"
        return
    yield f"      {'BESL' if attributes & 4 else 'HIRD'} Link Power Management (LPM) Supported"
    if attributes & 4:
        if attributes & 8:
            yield f"    BESL value    {attributes & 0xF00:5} us "
        if attributes & 0x10:
            yield f"    Deep BESL value    {attributes & 0xF000:5} us "


def _superspeed(data: bytes) -> Iterator[str]:
    """Ref: USB 3.2, 9.6.2.2."""
    yield field(4, "bmAttributes", f"{data[0]:#04x}")
    if data[0] & 2:
        yield "      Latency Tolerance Messages (LTM) Supported"
    speeds = data[1] | data[2] << 8
    yield field(4, "wSpeedsSupported", f"{speeds:#06x}")
    for bit, speed in enumerate(_SPEEDS):
        if speeds >> bit & 1:
            yield f"      Device can operate at {speed}"
    yield number(4, "bFunctionalitySupport", data[3])
    lowest = _SPEEDS[data[3]] if data[3] < len(_SPEEDS) else "at an unknown speed!"
    yield f"      Lowest fully-functional device speed is {lowest}"
    yield named(4, "bU1DevExitLat", str(data[4]), "micro seconds")
    yield named(4, "bU2DevExitLat", str(data[5] | data[6] << 8), "micro seconds")
