"""Which serial ports a device has, and which driver each of them needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from usbip_capture.uart.cdc_acm import CdcAcm
from usbip_capture.uart.ch34x import Ch34x
from usbip_capture.uart.cp210x import Cp210x
from usbip_capture.uart.driver import Driver, Pipes
from usbip_capture.uart.ftdi import Ftdi
from usbip_capture.usb.class_descriptors import CDC_ACM, CDC_UNION
from usbip_capture.usb.descriptors import (
    ConfigurationDescriptor,
    DeviceDescriptor,
    EndpointDescriptor,
    InterfaceDescriptor,
)
from usbip_capture.usb.endpoints import Endpoint
from usbip_capture.usb.info import Speed
from usbip_capture.usb.names import class_name
from usbip_capture.usb.urb import DIR_IN, TransferType

_COMMUNICATIONS, _DATA, _VENDOR = 0x02, 0x0A, 0xFF
_ACM = 0x02
_BULK = 2  # bmAttributes

# Both let their customers choose a PID: what of theirs has a vendor specific interface with two bulk endpoints is one.
_BY_VENDOR: dict[int, type[Driver]] = {0x0403: Ftdi, 0x10C4: Cp210x}
# Makers of products with such a chip under a VID of their own. Ref: Linux drivers/usb/serial, the id tables
_BY_PRODUCT: dict[tuple[int, int], type[Driver]] = {
    **dict.fromkeys([(0x1A86, 0x5523), (0x1A86, 0x7522), (0x1A86, 0x7523), (0x1A86, 0xE523)], Ch34x),
    **dict.fromkeys([(0x4348, 0x5523), (0x2184, 0x0057), (0x9986, 0x7523)], Ch34x),
    **dict.fromkeys([(0x10C5, 0xEA61), (0x1BA4, 0x0002), (0x2626, 0xEA60), (0x413C, 0x9500), (0x1D6F, 0x0010)], Cp210x),
    **dict.fromkeys([(0x0FDE, 0xCA05), (0x0FCF, 0x1003), (0x0FCF, 0x1004), (0x0FCF, 0x1006), (0x045B, 0x0053)], Cp210x),
    **dict.fromkeys([(0x15BA, 0x0003), (0x15BA, 0x002A), (0x15BA, 0x002B), (0x1457, 0x5118)], Ftdi),
    **dict.fromkeys([(0x165C, 0x0002), (0x1209, 0x1002), (0x1209, 0x1006), (0x1C0C, 0x0102), (0x20B7, 0x0713)], Ftdi),
}


@dataclass(slots=True, frozen=True)
class Port:
    """One serial port. `interface` is the bInterfaceNumber by which a person names it."""

    pipes: Pipes
    kind: type[Driver]

    @property
    def interface(self) -> int:
        """bInterfaceNumber of the interface that takes its requests."""
        return self.pipes.interface

    def driver(self) -> Driver:
        """A driver for one opening of the port."""
        return self.kind(self.pipes)

    def __str__(self) -> str:
        return f"interface {self.interface} ({self.kind.name})"


def find_ports(device: DeviceDescriptor, configuration: ConfigurationDescriptor, speed: Speed) -> list[Port]:
    """The serial ports of a configuration, in the order of their interfaces; none: `no_ports` reports what there is."""
    kind = vendor_driver(device)
    found = list(_vendor(device, configuration, speed, kind)) if kind else []
    return found or list(_acm(device, configuration, speed))


def no_ports(configuration: ConfigurationDescriptor) -> str:
    """What a device has instead of serial ports, as the rest of a sentence."""
    seen = {
        i.bInterfaceNumber: f"{i.bInterfaceNumber} is {class_name(i.bInterfaceClass)}" for i in configuration.interfaces
    }
    return "no serial port that is known here; interface " + ", ".join(seen.values()) if seen else "no interfaces"


def vendor_driver(device: DeviceDescriptor) -> type[Driver] | None:
    """The driver of a chip that is known by its VID:PID."""
    return _BY_VENDOR.get(device.idVendor) or _BY_PRODUCT.get((device.idVendor, device.idProduct))


def _acm(device: DeviceDescriptor, configuration: ConfigurationDescriptor, speed: Speed) -> Iterator[Port]:
    controls = [
        i
        for i in _in_order(configuration)
        if (i.bInterfaceClass, i.bInterfaceSubClass) == (_COMMUNICATIONS, _ACM)
        # Network adapters (RNDIS) call themselves so too. Ref: Linux drivers/usb/class/cdc-acm.c, acm_ids
        and i.bInterfaceProtocol != _VENDOR
        and not i.bAlternateSetting
    ]
    for index, control in enumerate(controls):
        data = _data_interface(configuration, control)
        pipes = data and _pipes(device, data, control, speed, index, len(controls))
        if pipes:
            yield Port(pipes, CdcAcm)


def _data_interface(configuration: ConfigurationDescriptor, control: InterfaceDescriptor) -> InterfaceDescriptor | None:
    """The alternate setting with the bulk endpoints that belong to a communications interface.

    By its union descriptor, else the next data interface, else itself: firmware forgets things.
    """
    named = [f.data[1] for f in control.functional if f.bDescriptorSubtype == CDC_UNION and len(f.data) >= 2]
    numbers = [*named, control.bInterfaceNumber + 1, control.bInterfaceNumber]
    for number in numbers:
        for interface in configuration.interfaces:
            sure = number in (*named, control.bInterfaceNumber) or interface.bInterfaceClass == _DATA
            if interface.bInterfaceNumber == number and sure and _bulk(interface, DIR_IN) and _bulk(interface, 0):
                return interface
    return None


def _vendor(
    device: DeviceDescriptor, configuration: ConfigurationDescriptor, speed: Speed, kind: type[Driver]
) -> Iterator[Port]:
    """Each interface with a bulk endpoint each way is a port."""
    usable = [
        i
        for i in _in_order(configuration)
        if i.bInterfaceClass == _VENDOR and not i.bAlternateSetting and _bulk(i, DIR_IN) and _bulk(i, 0)
    ]
    for index, interface in enumerate(usable):
        pipes = _pipes(device, interface, interface, speed, index, len(usable))
        if pipes:
            yield Port(pipes, kind)


def _pipes(
    device: DeviceDescriptor,
    data: InterfaceDescriptor,
    control: InterfaceDescriptor,
    speed: Speed,
    index: int,
    ports: int,
) -> Pipes | None:
    bulk_in, bulk_out = _bulk(data, DIR_IN), _bulk(data, 0)
    if bulk_in is None or bulk_out is None:
        return None
    notify = [Endpoint.of(e, control, speed) for e in control.endpoints]
    interrupt = [e for e in notify if e.transfer_type == TransferType.INTERRUPT and e.address & DIR_IN]
    capabilities = [f.data[0] for f in control.functional if f.bDescriptorSubtype == CDC_ACM and f.data]
    return Pipes(
        control.bInterfaceNumber,
        index,
        Endpoint.of(bulk_in, data, speed),
        Endpoint.of(bulk_out, data, speed),
        interrupt[0] if interrupt else None,
        tuple(dict.fromkeys((control.bInterfaceNumber, data.bInterfaceNumber))),
        data.bInterfaceNumber,
        data.bAlternateSetting,
        device.idVendor,
        device.idProduct,
        device.bcdDevice,
        ports,
        capabilities[0] if capabilities else 0,
    )


def _in_order(configuration: ConfigurationDescriptor) -> list[InterfaceDescriptor]:
    return sorted(configuration.interfaces, key=lambda interface: interface.bInterfaceNumber)


def _bulk(interface: InterfaceDescriptor, direction: int) -> EndpointDescriptor | None:
    """The first bulk endpoint in a direction."""
    for endpoint in interface.endpoints:
        if endpoint.bmAttributes & 3 == _BULK and endpoint.bEndpointAddress & DIR_IN == direction:
            return endpoint
    return None
