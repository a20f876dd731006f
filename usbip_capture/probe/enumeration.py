"""Reads a device as a host does when it meets it.

What Wireshark learns from this traffic lets it decode the rest: classes from the configuration descriptors, keys and
axes from HID report descriptors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from usbip_capture.errors import DeviceError, DeviceGone, TransferTimeout
from usbip_capture.host.handle import DeviceHandle
from usbip_capture.usb import setup as requests
from usbip_capture.usb.descriptors import ConfigurationDescriptor, InterfaceDescriptor
from usbip_capture.usb.strings import parse_string

log = logging.getLogger(__name__)

_HID_CLASS = 3
#: bcdUSB from which on a device may have a BOS descriptor.
_BOS_SINCE = 0x0201
#: A device that leaves this many optional requests unanswered is not asked for more of them.
_PATIENCE = 2
_OPTIONAL_TIMEOUT = 1.0


class Enumeration:
    """One pass over a device. Raises DeviceError if it cannot be read.

    on_product, on_serial: called with what it calls itself and its serial number, each once, if it has them.
    """

    def __init__(
        self, handle: DeviceHandle, on_product: Callable[[str], None], on_serial: Callable[[str], None]
    ) -> None:
        self._handle = handle
        self._device = handle.device_descriptor()
        self._on_product = on_product
        self._on_serial = on_serial
        self._unanswered = 0

    def describe(self) -> None:
        """BOS, every configuration and every string; what the device does not have is passed over."""
        if self._device.bcdUSB >= _BOS_SINCE:
            self._read_bos()
        configurations = self._read_configurations()
        indices = [self._device.iManufacturer, self._device.iProduct, self._device.iSerialNumber]
        for configuration in configurations:
            indices.append(configuration.iConfiguration)
            indices += [interface.iInterface for interface in configuration.interfaces]
        self._read_strings(list(dict.fromkeys(index for index in indices if index)))

    def configure(self) -> str:
        """SET_CONFIGURATION of the first configuration; why there is none to set. Raises DeviceError."""
        if not self._device.bNumConfigurations:
            return "the device has no configuration: there is nothing to listen to"
        self._handle.set_configuration(self._handle.configuration(0).bConfigurationValue)
        return ""

    def describe_hid(self) -> None:
        """The report descriptor of each HID interface of the active configuration."""
        configuration = self._handle.configuration(0)
        for interface in configuration.interfaces:
            if interface.bInterfaceClass == _HID_CLASS and not interface.bAlternateSetting:
                self._read_report_descriptor(interface)

    def _read_configurations(self) -> list[ConfigurationDescriptor]:
        """All that can be read; the first one must."""
        found = []
        for index in range(self._device.bNumConfigurations):
            try:
                found.append(self._handle.configuration(index))
            except DeviceError as error:
                if not index or isinstance(error, DeviceGone):
                    raise
                log.warning("%s: configuration %d cannot be read: %s", self._handle.device.info, index, error)
        return found

    def _read_bos(self) -> None:
        head = self._optional(requests.DT_BOS, 0, 0, 5, "BOS descriptor")
        total = int.from_bytes(head[2:4], "little")
        if total > 5:
            self._optional(requests.DT_BOS, 0, 0, total, "BOS descriptor")

    def _read_strings(self, indices: list[int]) -> None:
        if not indices:
            return
        languages = self._optional(requests.DT_STRING, 0, 0, 255, "string languages")
        if len(languages) < 4:
            return
        langid = int.from_bytes(languages[2:4], "little")
        for index in indices:
            raw = self._optional(requests.DT_STRING, index, langid, 255, f"string {index}")
            if index == self._device.iProduct:
                self._on_product(parse_string(raw))
            if index == self._device.iSerialNumber:
                self._on_serial(parse_string(raw))

    def _read_report_descriptor(self, interface: InterfaceDescriptor) -> None:
        hid = interface.hid
        length = hid.report_length if hid is not None else 0
        what = f"HID report descriptor of interface {interface.bInterfaceNumber}"
        self._optional(requests.DT_REPORT, 0, interface.bInterfaceNumber, length or 255, what, recipient=1)

    def _optional(self, kind: int, index: int, w_index: int, length: int, what: str, recipient: int = 0) -> bytes:
        """GET_DESCRIPTOR of what a device may lack; empty then. Raises DeviceGone once the device is gone."""
        if self._unanswered >= _PATIENCE:
            return b""
        try:
            setup = requests.get_descriptor(kind, index, w_index, length, recipient)
            return self._handle.control(setup, timeout=_OPTIONAL_TIMEOUT)
        except DeviceGone:
            raise
        except TransferTimeout:
            self._unanswered += 1
            log.warning("%s: no answer to the request for the %s", self._handle.device.info, what)
            return b""
        except DeviceError as error:
            log.info("%s: no %s: %s", self._handle.device.info, what, error)
            return b""
