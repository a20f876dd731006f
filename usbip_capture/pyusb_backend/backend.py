"""PyUSB's backend interface over devices of a USB/IP server.

Ref: PyUSB 1.3 usb/backend/__init__.py, IBackend
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sized
from dataclasses import asdict
from types import SimpleNamespace

from usb.backend import IBackend

from usbip_capture.errors import UsbipError
from usbip_capture.host.exported import Exported
from usbip_capture.host.handle import DeviceHandle
from usbip_capture.host.opened import OpenDevice
from usbip_capture.host.source import ServerSource
from usbip_capture.host.transfers import read, write
from usbip_capture.pyusb_backend.errors import as_usb_errors, invalid, usb_error
from usbip_capture.usb.descriptors import ConfigurationDescriptor, EndpointDescriptor, InterfaceDescriptor
from usbip_capture.usb.urb import DIR_IN

# PyUSB's speed constants are libusb's: low 1, full 2, high 3, super 4, super plus 5.
_PYUSB_SPEED = {1: 1, 2: 2, 3: 3, 5: 4, 6: 5}
_SETUP = struct.Struct("<BBHHH").pack


class UsbipBackend(IBackend):
    """All devices of one server. Errors are PyUSB's.

    Methods are those of `usb.backend.IBackend`: time-outs in milliseconds, 0 for none, and -1 as good as
    none, as with libusb; buffers are filled in place.
    May be used from many threads at once.
    """

    def __init__(self, source: ServerSource) -> None:
        self._source = source

    def close(self) -> None:
        """Release what was imported through this backend. May be called again."""
        self._source.close()

    def _finalize_object(self) -> None:
        # Called by PyUSB when the backend is collected, or Python ends.
        self.close()

    def __enter__(self) -> UsbipBackend:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def enumerate_devices(self) -> Iterator[Exported]:
        try:
            yield from self._source.devices()
        except UsbipError as error:
            raise usb_error(error) from error

    def get_parent(self, dev: Exported) -> None:
        """None: the hubs between are not exported."""

    # -- descriptors: all indices are logical; past the end is an IndexError, for configurations a USBError as libusb's

    @as_usb_errors
    def get_device_descriptor(self, dev: Exported) -> SimpleNamespace:
        info = dev.info
        ports = _ports(info.busid)
        return SimpleNamespace(
            **asdict(dev.descriptor()),
            bus=info.busnum,
            address=info.devnum,
            port_number=ports[-1] if ports else None,
            port_numbers=ports or None,
            speed=_PYUSB_SPEED.get(info.speed),
        )

    @as_usb_errors
    def get_configuration_descriptor(self, dev: Exported, config: int) -> ConfigurationDescriptor:
        return dev.handle().configuration(config)

    @as_usb_errors
    def get_interface_descriptor(self, dev: Exported, intf: int, alt: int, config: int) -> InterfaceDescriptor:
        alternates = list(_alternates(dev.handle(), config).values())
        return alternates[_index(intf, alternates, "interface")][_index(alt, alternates[intf], "alternate setting")]

    def get_endpoint_descriptor(self, dev: Exported, ep: int, intf: int, alt: int, config: int) -> EndpointDescriptor:
        endpoints = self.get_interface_descriptor(dev, intf, alt, config).endpoints
        return endpoints[_index(ep, endpoints, "endpoint")]

    # -- life

    @as_usb_errors
    def open_device(self, dev: Exported) -> OpenDevice:
        return dev.open()

    def close_device(self, dev_handle: OpenDevice) -> None:
        """The device stays imported until PyUSB releases it, or the backend is closed."""
        dev_handle.close()

    @as_usb_errors
    def set_configuration(self, dev_handle: OpenDevice, config_value: int) -> None:
        dev_handle.set_configuration(config_value)

    @as_usb_errors
    def get_configuration(self, dev_handle: OpenDevice) -> int:
        return dev_handle.unit.configuration_value()

    @as_usb_errors
    def set_interface_altsetting(self, dev_handle: OpenDevice, intf: int, altsetting: int) -> None:
        dev_handle.set_interface_altsetting(intf, altsetting)

    @as_usb_errors
    def claim_interface(self, dev_handle: OpenDevice, intf: int) -> None:
        dev_handle.claim(intf)

    @as_usb_errors
    def release_interface(self, dev_handle: OpenDevice, intf: int) -> None:
        dev_handle.release(intf)

    @as_usb_errors
    def clear_halt(self, dev_handle: OpenDevice, ep: int) -> None:
        dev_handle.clear_halt(ep)

    @as_usb_errors
    def reset_device(self, dev_handle: OpenDevice) -> None:
        dev_handle.unit.reset()

    @as_usb_errors
    def is_kernel_driver_active(self, dev_handle: OpenDevice, intf: int) -> bool:
        return dev_handle.kernel_driver_active(intf)

    @as_usb_errors
    def detach_kernel_driver(self, dev_handle: OpenDevice, intf: int) -> None:
        dev_handle.detach_kernel_driver(intf)

    @as_usb_errors
    def attach_kernel_driver(self, dev_handle: OpenDevice, intf: int) -> None:
        dev_handle.attach_kernel_driver(intf)

    # -- transfers: with no call more than needed

    def ctrl_transfer(
        self,
        dev_handle: OpenDevice,
        bmRequestType: int,
        bRequest: int,
        wValue: int,
        wIndex: int,
        data: array[int],
        timeout: int,
    ) -> int:
        view = memoryview(data)
        if view.itemsize != 1:
            view = view.cast("B")
        size = len(view)
        try:
            setup = _SETUP(bmRequestType, bRequest, wValue, wIndex, size)
        except struct.error:
            setup = _wrapped(bmRequestType, bRequest, wValue, wIndex, size)
        seconds = timeout / 1000 if timeout > 0 else None
        try:
            if bmRequestType & DIR_IN:
                answer = dev_handle.unit.run_control(setup, b"", seconds).data
                size = len(answer)
                view[:size] = answer
            else:
                dev_handle.unit.run_control(setup, view, seconds)
        except UsbipError as error:
            raise usb_error(error) from error
        return size

    def bulk_write(self, dev_handle: OpenDevice, ep: int, intf: int, data: array[int], timeout: int) -> int:
        try:
            return write(dev_handle.unit, dev_handle.endpoint(ep), data, timeout / 1000 if timeout > 0 else None)
        except UsbipError as error:
            raise usb_error(error) from error

    def bulk_read(self, dev_handle: OpenDevice, ep: int, intf: int, buff: array[int], timeout: int) -> int:
        try:
            return read(dev_handle.unit, dev_handle.endpoint(ep), buff, timeout / 1000 if timeout > 0 else None)
        except UsbipError as error:
            raise usb_error(error) from error

    intr_write = bulk_write
    intr_read = bulk_read
    iso_write = bulk_write
    iso_read = bulk_read


def _alternates(handle: DeviceHandle, config: int) -> dict[int, list[InterfaceDescriptor]]:
    """Alternate settings by bInterfaceNumber, in the order of the descriptors."""
    found: dict[int, list[InterfaceDescriptor]] = {}
    for interface in handle.configuration(config).interfaces:
        found.setdefault(interface.bInterfaceNumber, []).append(interface)
    return found


def _index(index: int, of: Sized, what: str) -> int:
    if not 0 <= index < len(of):
        raise IndexError(f"there is no {what} with index {index}")
    return index


def _ports(busid: str) -> tuple[int, ...]:
    """Port numbers from the root down: those of busid 3-1.4 are (1, 4)."""
    _, _, path = busid.partition("-")
    parts = path.split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()


def _wrapped(bmRequestType: int, bRequest: int, wValue: int, wIndex: int, wLength: int) -> bytes:
    """Numbers too large for their field, cut as the C types of libusb's backend cut them. Raises USBError."""
    if wLength > 0xFFFF:
        raise invalid(f"a control transfer moves at most 65535 bytes, not {wLength}")
    return _SETUP(bmRequestType & 0xFF, bRequest & 0xFF, wValue & 0xFFFF, wIndex & 0xFFFF, wLength)
