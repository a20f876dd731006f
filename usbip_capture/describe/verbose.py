"""A device's descriptors as `lsusb -v` prints them.

Ref: usbutils 014, lsusb.c (its layout: a value ends 25 columns after the beginning of its name)
"""

from __future__ import annotations

from collections.abc import Iterator

from usbip_capture.describe import usbids
from usbip_capture.describe.capabilities import capability_lines
from usbip_capture.describe.classes import extra_lines, hid_lines
from usbip_capture.describe.layout import field, named, number, string
from usbip_capture.describe.naming import listed_name, version
from usbip_capture.describe.reading import Description
from usbip_capture.usb.descriptors import (
    ConfigurationDescriptor,
    EndpointDescriptor,
    InterfaceAssociation,
    InterfaceDescriptor,
    max_power_unit,
    split_descriptors,
)
from usbip_capture.usb.setup import DT_DEVICE_QUALIFIER, DT_SS_ENDPOINT_COMPANION
from usbip_capture.usb.urb import DIR_IN

_TRANSFERS = ("Control", "Isochronous", "Bulk", "Interrupt")
_SYNCS = ("None", "Asynchronous", "Adaptive", "Synchronous")
_USAGES = ("Data", "Feedback", "Implicit feedback Data", "(reserved)")
_MUST_BE_SET, _SELF_POWERED, _REMOTE_WAKEUP, _BATTERY_POWERED = 0x80, 0x40, 0x20, 0x10
_ISOCHRONOUS, _BULK = 1, 2
_COMPANION, _SHORTEST_COMPANION = bytes([DT_SS_ENDPOINT_COMPANION]), 4
_TIMES = ("1x", "2x", "3x", "(??)")
_QUALIFIER_LENGTH = 10


def verbose(found: Description) -> list[str]:
    """All lines, the first one naming the device; no line ends with a blank."""
    info = found.info
    name = listed_name(info.idVendor, info.idProduct)
    lines = [f"Bus {info.busnum:03d} Device {info.devnum:03d}: ID {info.idVendor:04x}:{info.idProduct:04x} {name}"]
    lines += _device(found)
    for configuration in found.configurations:
        lines += _configuration(found, configuration)
    lines += _qualifier(found.qualifier)
    lines += capability_lines(found)
    if found.status is not None:
        lines.append(f"Device Status:     {found.status:#06x}")
        lines.append("  Self Powered" if found.status & 1 else "  (Bus Powered)")
        lines += ["  Remote Wakeup Enabled"] if found.status & 2 else []
    return [line.rstrip() for line in lines]


def _device(found: Description) -> list[str]:
    d, strings = found.device, found.strings
    triple = d.bDeviceClass, d.bDeviceSubClass, d.bDeviceProtocol
    return [
        "Device Descriptor:",
        number(2, "bLength", d.bLength),
        number(2, "bDescriptorType", d.bDescriptorType),
        field(2, "bcdUSB", version(d.bcdUSB)),
        *_class_lines(2, "bDeviceClass", "bDeviceSubClass", "bDeviceProtocol", triple),
        number(2, "bMaxPacketSize0", d.bMaxPacketSize0),
        named(2, "idVendor", f"{d.idVendor:#06x}", usbids.vendor_name(d.idVendor)),
        named(2, "idProduct", f"{d.idProduct:#06x}", usbids.product_name(d.idVendor, d.idProduct)),
        field(2, "bcdDevice", version(d.bcdDevice)),
        string(2, "iManufacturer", d.iManufacturer, strings),
        string(2, "iProduct", d.iProduct, strings),
        string(2, "iSerial", d.iSerialNumber, strings),
        number(2, "bNumConfigurations", d.bNumConfigurations),
    ]


def _class_lines(indent: int, kind: str, sub: str, protocol: str, triple: tuple[int, int, int]) -> list[str]:
    return [
        named(indent, kind, str(triple[0]), usbids.class_name(triple[0])),
        named(indent, sub, str(triple[1]), usbids.subclass_name(*triple[:2])),
        named(indent, protocol, str(triple[2]), usbids.protocol_name(*triple)),
    ]


def _configuration(found: Description, c: ConfigurationDescriptor) -> Iterator[str]:
    yield "  Configuration Descriptor:"
    yield number(4, "bLength", c.bLength)
    yield number(4, "bDescriptorType", c.bDescriptorType)
    yield field(4, "wTotalLength", f"{c.wTotalLength:#06x}")
    yield number(4, "bNumInterfaces", c.bNumInterfaces)
    yield number(4, "bConfigurationValue", c.bConfigurationValue)
    yield string(4, "iConfiguration", c.iConfiguration, found.strings)
    yield field(4, "bmAttributes", f"{c.bmAttributes:#04x}")
    if not c.bmAttributes & _MUST_BE_SET:
        yield "      (Missing must-be-set bit!)"
    yield "      Self Powered" if c.bmAttributes & _SELF_POWERED else "      (Bus Powered)"
    if c.bmAttributes & _REMOTE_WAKEUP:
        yield "      Remote Wakeup"
    if c.bmAttributes & _BATTERY_POWERED:
        yield "      Battery Powered"
    yield field(4, "MaxPower", str(c.bMaxPower * max_power_unit(found.device.bcdUSB))) + "mA"
    associations = {a.bFirstInterface: a for a in c.associations}
    # Those of an association are printed there.
    plain = b"".join(piece for piece in _pieces(c.extra_descriptors) if piece[1] != 11)
    yield from extra_lines(4, None, plain, found.strings)
    for interface in c.interfaces:
        association = associations.pop(interface.bInterfaceNumber, None)
        if association is not None:
            yield from _association(found, association)
        yield from _interface(found, interface)


def _pieces(extra: bytes) -> Iterator[bytes]:
    return (piece for piece in split_descriptors(extra) if len(piece) > 1)


def _association(found: Description, a: InterfaceAssociation) -> Iterator[str]:
    yield "    Interface Association:"
    for name in ("bLength", "bDescriptorType", "bFirstInterface", "bInterfaceCount"):
        yield number(6, name, getattr(a, name))
    triple = a.bFunctionClass, a.bFunctionSubClass, a.bFunctionProtocol
    yield from _class_lines(6, "bFunctionClass", "bFunctionSubClass", "bFunctionProtocol", triple)
    yield string(6, "iFunction", a.iFunction, found.strings)


def _interface(found: Description, i: InterfaceDescriptor) -> Iterator[str]:
    yield "    Interface Descriptor:"
    for name in ("bLength", "bDescriptorType", "bInterfaceNumber", "bAlternateSetting", "bNumEndpoints"):
        yield number(6, name, getattr(i, name))
    triple = i.bInterfaceClass, i.bInterfaceSubClass, i.bInterfaceProtocol
    yield from _class_lines(6, "bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol", triple)
    yield string(6, "iInterface", i.iInterface, found.strings)
    yield from extra_lines(6, i, i.extra_descriptors, found.strings)
    if i.hid is not None:
        yield from hid_lines(i.hid, found.reports.get(i.bInterfaceNumber, b""))
    for endpoint in i.endpoints:
        yield from _endpoint(found, i, endpoint)


def _endpoint(found: Description, i: InterfaceDescriptor, e: EndpointDescriptor) -> Iterator[str]:
    yield "      Endpoint Descriptor:"
    yield number(8, "bLength", e.bLength)
    yield number(8, "bDescriptorType", e.bDescriptorType)
    way = "IN" if e.bEndpointAddress & DIR_IN else "OUT"
    address = field(8, "bEndpointAddress", f"{e.bEndpointAddress:#04x}")
    yield f"{address}  EP {e.bEndpointAddress & 0x0F} {way}"
    yield number(8, "bmAttributes", e.bmAttributes)
    yield f"          Transfer Type            {_TRANSFERS[e.bmAttributes & 3]}"
    yield f"          Synch Type               {_SYNCS[e.bmAttributes >> 2 & 3]}"
    yield f"          Usage Type               {_USAGES[e.bmAttributes >> 4 & 3]}"
    times = _TIMES[e.wMaxPacketSize >> 11 & 3]
    size = field(8, "wMaxPacketSize", f"{e.wMaxPacketSize:#06x}")
    yield f"{size}  {times} {e.wMaxPacketSize & 0x7FF} bytes"
    yield number(8, "bInterval", e.bInterval)
    if e.bLength >= 9:
        yield number(8, "bRefresh", e.bRefresh)
        yield number(8, "bSynchAddress", e.bSynchAddress)
    for piece in split_descriptors(e.extra_descriptors):
        if piece[1:2] == _COMPANION and len(piece) >= _SHORTEST_COMPANION:
            yield from _companion(e.bmAttributes & 3, piece)
        else:
            yield from extra_lines(8, i, piece, found.strings)


def _companion(transfer: int, piece: bytes) -> Iterator[str]:
    """Of a SuperSpeed endpoint: its burst, and the streams of a bulk one or the bursts of an isochronous one."""
    yield number(8, "bMaxBurst", piece[2])
    if transfer == _BULK and piece[3] & 0x1F:
        yield number(8, "MaxStreams", 1 << (piece[3] & 0x1F))
    if transfer == _ISOCHRONOUS and piece[3] & 3:
        yield number(8, "Mult", piece[3] & 3)


def _qualifier(raw: bytes) -> list[str]:
    if len(raw) != _QUALIFIER_LENGTH or (raw[0], raw[1]) != (_QUALIFIER_LENGTH, DT_DEVICE_QUALIFIER):
        return []
    return [
        "Device Qualifier (for other device speed):",
        number(2, "bLength", raw[0]),
        number(2, "bDescriptorType", raw[1]),
        field(2, "bcdUSB", version(raw[2] | raw[3] << 8)),
        *_class_lines(2, "bDeviceClass", "bDeviceSubClass", "bDeviceProtocol", (raw[4], raw[5], raw[6])),
        number(2, "bMaxPacketSize0", raw[7]),
        number(2, "bNumConfigurations", raw[8]),
    ]
