"""Reads a device as a host does when it meets it, through `usb.core`.

What Wireshark learns from this traffic lets it decode the rest: classes from the configuration descriptors, keys and
axes from HID report descriptors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import usb.core
import usb.util

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
_OPTIONAL_TIMEOUT_MS = 1000


class Enumeration:
    """One pass over a device. `dev` is PyUSB's view of it, `handle` ours.

    on_product, on_serial: get what it calls itself and its serial number, each once, if it has them.
    """

    def __init__(
        self,
        dev: usb.core.Device,
        handle: DeviceHandle,
        on_product: Callable[[str], None],
        on_serial: Callable[[str], None],
    ) -> None:
        self._dev = dev
        self._handle = handle
        self._on_product = on_product
        self._on_serial = on_serial
        self._unanswered = 0

    def describe(self) -> None:
        """BOS, every configuration and every string; what the device does not have is passed over."""
        if self._dev.bcdUSB >= _BOS_SINCE:
            self._read_bos()
        configurations = self._read_configurations()
        indices = [self._dev.iManufacturer, self._dev.iProduct, self._dev.iSerialNumber]
        for configuration in configurations:
            indices.append(configuration.iConfiguration)
            indices += [interface.iInterface for interface in configuration.interfaces]
        self._read_strings(list(dict.fromkeys(index for index in indices if index)))

    def configure(self) -> str:
        """SET_CONFIGURATION of the first configuration; why there is none to set. Raises USBError."""
        if not self._dev.bNumConfigurations:
            return "the device has no configuration: there is nothing to listen to"
        self._dev.set_configuration()
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
        for index in range(self._dev.bNumConfigurations):
            try:
                found.append(self._handle.configuration(index))
            except usb.core.USBError as error:
                if not index or error.backend_error_code == _NO_DEVICE:
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
            if index == self._dev.iProduct:
                self._on_product(parse_string(raw))
            if index == self._dev.iSerialNumber:
                self._on_serial(parse_string(raw))

    def _read_report_descriptor(self, interface: InterfaceDescriptor) -> None:
        hid = interface.hid
        length = hid.report_length if hid is not None else 0
        what = f"HID report descriptor of interface {interface.bInterfaceNumber}"
        self._optional(requests.DT_REPORT, 0, interface.bInterfaceNumber, length or 255, what, recipient=1)

    def _optional(self, kind: int, index: int, w_index: int, length: int, what: str, recipient: int = 0) -> bytes:
        """GET_DESCRIPTOR of what a device may lack; empty then. Raises USBError once the device is gone."""
        if self._unanswered >= _PATIENCE:
            return b""
        try:
            data = self._dev.ctrl_transfer(
                0x80 | recipient, requests.GET_DESCRIPTOR, kind << 8 | index, w_index, length, _OPTIONAL_TIMEOUT_MS
            )
        except usb.core.USBTimeoutError:
            self._unanswered += 1
            log.warning("%s: no answer to the request for the %s", self._handle.device.info, what)
            return b""
        except usb.core.USBError as error:
            if error.backend_error_code == _NO_DEVICE:
                raise
            log.info("%s: no %s: %s", self._handle.device.info, what, error)
            return b""
        return bytes(data)


_NO_DEVICE = -4
