"""What PyUSB sees of a device: descriptors, strings, control transfers, what its IN endpoints send, time-outs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import usb.core
import usb.util

from usbip_capture.host.opened import OpenDevice
from usbip_capture.pyusb_backend.errors import DescriptorError, as_usb_errors, sensible
from usbip_capture.report.units import count
from usbip_capture.selftest.results import Result, note, right, skipped, wrong
from usbip_capture.usb.endpoints import Endpoint
from usbip_capture.usb.urb import DIR_IN, TransferType

_TIMEOUT_MS = 100
#: Milliseconds by which a time-out may be late.
_LATE_MS = 5.0
_MASS_STORAGE = 8


class DeviceChecks:
    """One pass over `dev`. `idle` are IN endpoints that sent nothing meanwhile, `numbers` of all there are."""

    def __init__(self, dev: usb.core.Device) -> None:
        self._dev = dev
        self.idle: list[Endpoint] = []
        self.numbers: set[int] = set()

    def run(self) -> Iterator[Result]:
        """All of them, one after the other. Raises USBError."""
        for check in (self._descriptors, self._strings, self._control, self._reads, self._timeouts):
            try:
                with sensible(self._opened().unit.device.info):
                    yield from check()
            except DescriptorError as error:
                yield wrong("descriptors", str(error.strerror))

    def _descriptors(self) -> Iterator[Result]:
        dev = self._dev
        version = f"{dev.bcdUSB >> 8}.{dev.bcdUSB >> 4 & 15}"
        yield right("device descriptor", f"{dev.idVendor:04x}:{dev.idProduct:04x}, USB {version}")
        for index, configuration in enumerate(dev):
            settings = list(configuration)
            addresses = [endpoint.bEndpointAddress for setting in settings for endpoint in setting]
            self.numbers |= {address & 0x0F for address in addresses}
            yield right(
                f"configuration {index}",
                f"{configuration.bNumInterfaces} interfaces, {len(settings)} settings, {len(addresses)} endpoints",
            )

    def _strings(self) -> Iterator[Result]:
        dev = self._dev
        named = [(dev.iManufacturer, "manufacturer"), (dev.iProduct, "product"), (dev.iSerialNumber, "serial number")]
        for index, name in named:
            if not index:
                continue
            try:
                yield right(name, repr(usb.util.get_string(dev, index)))
            except (usb.core.USBError, ValueError) as error:
                yield note(name, f"string {index} cannot be read: {error}")

    def _control(self) -> Iterator[Result]:
        dev = self._dev
        try:
            dev.set_configuration()
            active = dev.get_active_configuration().bConfigurationValue
            yield right("SET_CONFIGURATION", f"{active}")
            status = bytes(dev.ctrl_transfer(0x80, 0, 0, 0, 2, _TIMEOUT_MS * 10))
            yield right("GET_STATUS", status.hex(" "))
        except usb.core.USBError as error:
            yield wrong("control requests", str(error))

    def _reads(self) -> Iterator[Result]:
        """Each IN endpoint once; that of a disk would wait for a command that never comes."""
        for endpoint in self._endpoints():
            if not endpoint.address & DIR_IN:
                continue
            name = f"{endpoint.transfer_type.name.lower()} IN {endpoint.address:#04x}"
            if endpoint.bInterfaceClass == _MASS_STORAGE:
                yield skipped(name, "of mass storage, not read")
                continue
            size = endpoint.packet_size * (8 if endpoint.transfer_type == TransferType.ISOCHRONOUS else 1)
            try:
                got = self._dev.read(endpoint.address, size, _TIMEOUT_MS)
                yield right(name, count(len(got), "byte"))
            except usb.core.USBTimeoutError:
                yield right(name, "idle")
                if endpoint.transfer_type != TransferType.ISOCHRONOUS:
                    self.idle.append(endpoint)
            except (usb.core.USBError, NotImplementedError) as error:
                yield note(name, str(error))

    def _timeouts(self) -> Iterator[Result]:
        if not self.idle:
            yield skipped("time-out", "no idle IN endpoint to wait at")
            return
        endpoint = self.idle[0]
        late = []
        for _ in range(5):
            start = time.monotonic()
            try:
                self._dev.read(endpoint.address, endpoint.packet_size, _TIMEOUT_MS)
            except usb.core.USBTimeoutError:
                late.append((time.monotonic() - start) * 1000 - _TIMEOUT_MS)
        worst = max(late, default=0.0)
        yield (right if worst <= _LATE_MS else note)("time-out", f"late by at most {worst:.1f} ms")

    @as_usb_errors
    def configuration(self) -> int:
        """bConfigurationValue of the active one. Raises USBError."""
        return self._opened().unit.configuration_value()

    def _endpoints(self) -> list[Endpoint]:
        return list(self._opened().unit.endpoints)

    def _opened(self) -> OpenDevice:
        opened = self._dev._ctx.managed_open()
        assert isinstance(opened, OpenDevice)
        return opened
