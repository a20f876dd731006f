"""PyUSB's backend interface over devices of a USB/IP server.

Ref: PyUSB 1.3 usb/backend/__init__.py, IBackend
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from types import SimpleNamespace

from usb.backend import IBackend

from usbip_capture.errors import UsbipError
from usbip_capture.pyusb_backend.errors import unreachable
from usbip_capture.pyusb_backend.exported import Exported, Source
from usbip_capture.pyusb_backend.handle import DeviceHandle
from usbip_capture.usb.descriptors import InterfaceDescriptor
from usbip_capture.usb.setup import Setup, clear_halt, set_interface
from usbip_capture.usb.urb import DIR_IN, Buffer

# PyUSB's speed constants are libusb's: low 1, full 2, high 3, super 4, super plus 5.
_PYUSB_SPEED = {1: 1, 2: 2, 3: 3, 5: 4, 6: 5}


class UsbipBackend(IBackend):
    """All devices of one server, or one that was imported already. Errors are PyUSB's."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def close(self) -> None:
        """Give back what was imported through this backend. May be called again."""
        self._source.close()

    def __enter__(self) -> UsbipBackend:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def enumerate_devices(self) -> Iterator[Exported]:
        try:
            yield from self._source.devices()
        except UsbipError as error:
            raise unreachable(error) from error

    def get_parent(self, dev: Exported) -> None:
        return None

    # -- descriptors: all indices are logical, and past the end is an IndexError

    def get_device_descriptor(self, dev: Exported) -> SimpleNamespace:
        fields = dev.descriptor_fields()
        info = dev.info
        return SimpleNamespace(
            **fields,
            bus=info.busnum,
            address=info.devnum,
            port_number=_ports(info.busid)[-1] if _ports(info.busid) else None,
            port_numbers=_ports(info.busid) or None,
            speed=_PYUSB_SPEED.get(info.speed),
        )

    def get_configuration_descriptor(self, dev: Exported, config: int) -> object:
        return dev.handle().configuration(config)

    def get_interface_descriptor(self, dev: Exported, intf: int, alt: int, config: int) -> InterfaceDescriptor:
        alternates = _alternates(dev.handle(), config)
        return list(alternates.values())[intf][alt]

    def get_endpoint_descriptor(self, dev: Exported, ep: int, intf: int, alt: int, config: int) -> object:
        return self.get_interface_descriptor(dev, intf, alt, config).endpoints[ep]

    # -- life

    def open_device(self, dev: Exported) -> DeviceHandle:
        return dev.handle()

    def close_device(self, dev_handle: DeviceHandle) -> None:
        """The device stays imported until PyUSB lets go of it, or the backend is closed."""

    def set_configuration(self, dev_handle: DeviceHandle, config_value: int) -> None:
        dev_handle.set_configuration(config_value)

    def get_configuration(self, dev_handle: DeviceHandle) -> int:
        return dev_handle.configuration_value()

    def set_interface_altsetting(self, dev_handle: DeviceHandle, intf: int, altsetting: int) -> None:
        dev_handle.control(set_interface(intf, altsetting), timeout=5.0)

    def claim_interface(self, dev_handle: DeviceHandle, intf: int) -> None:
        """An imported device is ours as a whole: there is nobody to claim its interfaces from."""

    def release_interface(self, dev_handle: DeviceHandle, intf: int) -> None:
        """See `claim_interface`."""

    def clear_halt(self, dev_handle: DeviceHandle, ep: int) -> None:
        dev_handle.control(clear_halt(ep), timeout=5.0)

    def is_kernel_driver_active(self, dev_handle: DeviceHandle, intf: int) -> bool:
        return False

    # -- transfers

    def ctrl_transfer(
        self,
        dev_handle: DeviceHandle,
        bmRequestType: int,
        bRequest: int,
        wValue: int,
        wIndex: int,
        data: array[int],
        timeout: int,
    ) -> int:
        view = memoryview(data).cast("B")
        setup = Setup(bmRequestType, bRequest, wValue, wIndex, len(view))
        if bmRequestType & DIR_IN:
            return _fill(view, dev_handle.control(setup, timeout=_seconds(timeout)))
        dev_handle.control(setup, bytes(view), _seconds(timeout))
        return len(view)

    def bulk_write(self, dev_handle: DeviceHandle, ep: int, intf: int, data: array[int], timeout: int) -> int:
        return dev_handle.write(ep, memoryview(data).cast("B"), _seconds(timeout))

    def bulk_read(self, dev_handle: DeviceHandle, ep: int, intf: int, buff: array[int], timeout: int) -> int:
        view = memoryview(buff).cast("B")
        return _fill(view, dev_handle.read(ep, len(view), _seconds(timeout)).data)

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


def _ports(busid: str) -> tuple[int, ...]:
    """Port numbers from the root down: those of busid 3-1.4 are (1, 4)."""
    _, _, path = busid.partition("-")
    parts = path.split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()


def _fill(view: memoryview, data: Buffer) -> int:
    view[: len(data)] = data
    return len(data)


def _seconds(timeout_ms: int) -> float | None:
    return timeout_ms / 1000 if timeout_ms else None
