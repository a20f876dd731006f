"""The host's side of one imported device: what its descriptors say, which endpoints it has now, transfers."""

from __future__ import annotations

import logging
import threading

from usb.core import USBError

from usbip_capture.device import Device
from usbip_capture.errors import RemoteProtocolError
from usbip_capture.pyusb_backend.errors import invalid, not_found, raise_usb_error
from usbip_capture.usb.descriptors import ConfigurationDescriptor, DeviceDescriptor, parse_configuration
from usbip_capture.usb.endpoints import Endpoint, EndpointMap
from usbip_capture.usb.setup import (
    DT_CONFIGURATION,
    DT_DEVICE,
    Setup,
    get_configuration,
    get_descriptor,
)
from usbip_capture.usb.urb import DIR_IN, FLAG_DIR_IN, ISO_ASAP, Buffer, Completion, IsoPacket, TransferType, Urb

log = logging.getLogger(__name__)

#: Seconds for the control transfers that this class makes of its own accord.
CONTROL_TIMEOUT = 5.0


class DeviceHandle:
    """One imported device as its host sees it. Descriptors are read once, when asked for."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.endpoints = EndpointMap(None, device.info.speed)
        self._descriptor: DeviceDescriptor | None = None
        self._configurations: dict[int, ConfigurationDescriptor] = {}
        self._value: int | None = None
        self._lock = threading.RLock()

    def device_descriptor(self) -> DeviceDescriptor:
        """The device's own descriptor. Raises USBError."""
        with self._lock:
            if self._descriptor is None:
                raw = self._read_descriptor(DT_DEVICE, 0, 18)
                try:
                    self._descriptor = DeviceDescriptor.parse(raw)
                except RemoteProtocolError as error:
                    raise not_found(f"device {self.device.info}: {error}") from error
            return self._descriptor

    def configuration(self, index: int) -> ConfigurationDescriptor:
        """Configuration by its index, 0 to bNumConfigurations - 1. Raises IndexError, USBError."""
        with self._lock:
            if not 0 <= index < self.device_descriptor().bNumConfigurations:
                raise IndexError(f"device {self.device.info} has no configuration with index {index}")
            if index not in self._configurations:
                head = self._read_descriptor(DT_CONFIGURATION, index, 9)
                total = int.from_bytes(head[2:4], "little")
                raw = self._read_descriptor(DT_CONFIGURATION, index, max(total, 9))
                try:
                    configuration = parse_configuration(raw)
                except RemoteProtocolError as error:
                    raise not_found(f"configuration {index} of device {self.device.info}: {error}") from error
                self._configurations[index] = configuration
                self.endpoints.add_configuration(configuration)
            return self._configurations[index]

    def configuration_value(self) -> int:
        """bConfigurationValue of the active configuration, 0 while there is none. Raises USBError."""
        with self._lock:
            if self._value is None:
                answer = self.control(get_configuration(), timeout=CONTROL_TIMEOUT)
                if not answer:
                    raise not_found(f"device {self.device.info} does not tell its configuration")
                self._value = answer[0]
            return self._value

    def set_configuration(self, value: int) -> None:
        """Make a configuration the active one. Raises USBError."""
        with self._lock:
            for index in range(self.device_descriptor().bNumConfigurations):
                try:
                    known = self.configuration(index)   # its endpoints must be known before they can be followed
                except USBError as error:
                    log.warning("configuration %d of device %s cannot be read: %s", index, self.device.info, error)
                else:
                    if known.bConfigurationValue == value:
                        break
            self.control(Setup(0x00, 9, value, 0, 0), timeout=CONTROL_TIMEOUT)
            self._value = value

    def control(self, setup: Setup, data: Buffer = b"", timeout: float | None = None) -> bytes:
        """A control transfer: what its data stage brought. Raises USBError; `timeout` in seconds."""
        raw = setup.pack()
        completion = self.device.run(Urb.control(raw, data), timeout)
        if completion.status:
            raise_usb_error(completion.status, f"control request {raw.hex(' ')} to device {self.device.info}")
        self.endpoints.follow(raw)
        return bytes(completion.data)

    def endpoint(self, address: int) -> Endpoint:
        """An endpoint of the current alternate settings.

        Raises USBError for others: Linux servers do not even answer such a request.
        """
        found = self.endpoints.find(address)
        if found is None:
            raise not_found(f"device {self.device.info} has no endpoint {address:#04x} in its current settings")
        return found

    def read(self, address: int, size: int, timeout: float | None) -> Completion:
        """A bulk, interrupt or isochronous IN transfer. Raises USBError."""
        return self._run(in_urb(self.endpoint(address), size), timeout)

    def write(self, address: int, data: Buffer, timeout: float | None) -> int:
        """A bulk, interrupt or isochronous OUT transfer: bytes moved. Raises USBError."""
        if address & DIR_IN:
            raise invalid(f"endpoint {address:#04x} is an IN endpoint, nothing can be written to it")
        endpoint = self.endpoint(address)
        packets = iso_packets(endpoint, len(data)) if endpoint.transfer_type == TransferType.ISOCHRONOUS else ()
        flags = ISO_ASAP if packets else 0
        urb = Urb(
            endpoint.transfer_type, address, len(data), data, flags=flags, interval=endpoint.interval, packets=packets
        )
        return self._run(urb, timeout).actual_length

    def _run(self, urb: Urb, timeout: float | None) -> Completion:
        completion = self.device.run(urb, timeout)
        if completion.status:
            raise_usb_error(completion.status, f"endpoint {urb.endpoint:#04x} of device {self.device.info}")
        return completion

    def _read_descriptor(self, kind: int, index: int, length: int) -> bytes:
        return self.control(get_descriptor(kind, index, 0, length), timeout=CONTROL_TIMEOUT)


def in_urb(endpoint: Endpoint, size: int) -> Urb:
    """An IN request of `size` bytes, isochronous ones cut into packets."""
    kind = endpoint.transfer_type
    packets = iso_packets(endpoint, size) if kind == TransferType.ISOCHRONOUS else ()
    flags = FLAG_DIR_IN | (ISO_ASAP if packets else 0)
    return Urb(kind, endpoint.address | DIR_IN, size, flags=flags, interval=endpoint.interval, packets=packets)


def iso_packets(endpoint: Endpoint, size: int) -> list[IsoPacket]:
    """`size` bytes laid out in packets of the endpoint's full size, the last one as short as needed."""
    step = max(endpoint.packet_size, 1)
    return [IsoPacket(offset, min(step, size - offset)) for offset in range(0, size, step)]
