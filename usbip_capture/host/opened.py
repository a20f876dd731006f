"""What `open_device` returns: one program's use of a device, with the interfaces that it has claimed.

Answers as libusb does on Linux. Ref: libusb core.c; Linux drivers/usb/core/devio.c, claimintf and releaseintf
"""

from __future__ import annotations

from usbip_capture.errors import DeviceError, DeviceGone, RequestRefused
from usbip_capture.host.handle import CONTROL_TIMEOUT, DeviceHandle
from usbip_capture.usb.endpoints import Endpoint
from usbip_capture.usb.setup import clear_halt, set_interface
from usbip_capture.usb.status import EBUSY, EINVAL, ENODEV, ENOENT

#: libusb knows interfaces 0 to 31.
_MAX_INTERFACES = 32


class OpenDevice:
    """One opening of a device; several may share `unit`, whose interfaces belong to one of them each.

    owner: is not collected, and so does not release the device, while this is in use.
    """

    __slots__ = ("claimed", "owner", "unit")

    def __init__(self, unit: DeviceHandle, owner: object) -> None:
        self.unit = unit
        self.owner = owner
        self.claimed: set[int] = set()

    def claim(self, number: int) -> None:
        """Raises DeviceError: no such interface, or claimed by another opening."""
        _check_interface(number)
        if number in self.claimed:
            return
        unit = self.unit
        if not unit.device.alive and not unit.reconnects:
            raise (
                DeviceGone(f"{self} was released", -ENODEV, released=True)
                if unit.device.closed
                else DeviceGone(f"{self} is gone", -ENODEV)
            )
        unit.ensure_configured()
        if not unit.has_interface(number):
            raise RequestRefused(f"{self} has no interface {number} in its current configuration", -ENOENT)
        if unit.claims.setdefault(number, self) is not self:
            raise RequestRefused(
                f"interface {number} of {self} is claimed by another opening of it in this program", -EBUSY
            )
        self.claimed.add(number)

    def release(self, number: int) -> None:
        """Release an interface, in its alternate setting 0 again. Raises DeviceError if it is not claimed."""
        _check_interface(number)
        if number not in self.claimed:
            raise RequestRefused(f"interface {number} of {self} is not claimed", -ENOENT)
        unit = self.unit
        self.claimed.discard(number)
        unit.claims.pop(number, None)
        if unit.alternates.get(number) and unit.device.alive:
            unit.control(set_interface(number, 0), timeout=CONTROL_TIMEOUT)

    def close(self) -> None:
        """Release what is claimed. Never raises."""
        for number in list(self.claimed):
            try:
                self.release(number)
            except DeviceError:
                pass

    def endpoint(self, address: int) -> Endpoint:
        """An endpoint of the current settings, its interface claimed if it was not. Raises DeviceError."""
        endpoint = self.unit.endpoints.find(address) or self.unit.endpoint(address)
        if endpoint.bInterfaceNumber not in self.claimed:
            self.claim(endpoint.bInterfaceNumber)
        return endpoint

    def set_configuration(self, value: int) -> None:
        """Raises DeviceError: no such configuration, or some interface is claimed."""
        unit = self.unit
        if unit.claims:
            raise RequestRefused(
                f"interfaces {sorted(unit.claims)} of {self} are claimed: release them to set a configuration", -EBUSY
            )
        value = max(value, 0)  # libusb takes -1 for "none"
        known = [choice.bConfigurationValue for choice in unit.configurations()]
        if value and value not in known:
            raise RequestRefused(f"{self} has no configuration with value {value}, only {known}", -ENOENT)
        unit.set_configuration(value)

    def set_interface_altsetting(self, number: int, alternate: int) -> None:
        """Raises DeviceError: not claimed, or no such setting."""
        _check_interface(number)
        if not 0 <= alternate <= 0xFF:
            raise RequestRefused(f"{alternate} is not an alternate setting of interface {number} of {self}", -EINVAL)
        if number not in self.claimed:
            raise RequestRefused(f"interface {number} of {self} is not claimed", -ENOENT)
        if not self.unit.has_alternate(number, alternate):
            raise RequestRefused(f"interface {number} of {self} has no alternate setting {alternate}", -ENOENT)
        self.unit.control(set_interface(number, alternate), timeout=CONTROL_TIMEOUT)

    def clear_halt(self, address: int) -> None:
        """Raises DeviceError: no such endpoint."""
        if address & 0x0F:
            self.endpoint(address)
        self.unit.control(clear_halt(address), timeout=CONTROL_TIMEOUT)

    def kernel_driver_active(self, number: int) -> bool:
        """No kernel here has a driver for a device that is somewhere else."""
        _check_interface(number)
        return False

    def detach_kernel_driver(self, number: int) -> None:
        """Raises DeviceError: there is none."""
        _check_interface(number)
        self.unit.ensure_configured()
        if not self.unit.has_interface(number):
            raise RequestRefused(f"{self} has no interface {number} in its current configuration", -EINVAL)
        raise RequestRefused(f"interface {number} of {self} has no kernel driver", -ENOENT)

    def attach_kernel_driver(self, number: int) -> None:
        """Raises DeviceError: claimed, or nothing to attach."""
        if number in self.claimed:
            raise RequestRefused(f"interface {number} of {self} is claimed: release it first", -EBUSY)
        self.detach_kernel_driver(number)

    def __str__(self) -> str:
        return f"device {self.unit.device.info}"


def _check_interface(number: int) -> None:
    if not 0 <= number < _MAX_INTERFACES:
        raise RequestRefused(f"{number} is not an interface number (0 to {_MAX_INTERFACES - 1})", -EINVAL)
