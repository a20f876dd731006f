"""Learns what endpoints a device has from the control requests that pass by, whoever makes them."""

from __future__ import annotations

from usbip_capture.errors import RemoteProtocolError
from usbip_capture.usb.descriptors import parse_configuration
from usbip_capture.usb.endpoints import EndpointMap
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.setup import DT_CONFIGURATION, GET_DESCRIPTOR, RECIPIENT_INTERFACE
from usbip_capture.usb.urb import Completion, TransferType, Urb

_GET_DESCRIPTOR = (0x80, GET_DESCRIPTOR)
_CONTROL = TransferType.CONTROL


class EndpointLearner:
    """`endpoints` as far as they are known from what `saw` was shown."""

    def __init__(self, info: DeviceInfo) -> None:
        self.endpoints = EndpointMap(None, info.speed)
        self._device_class = info.bDeviceClass
        self._active = info.bConfigurationValue

    def saw(self, urb: Urb, completion: Completion) -> None:
        """A URB came back: take note if it holds descriptors or settings."""
        if urb.transfer_type != _CONTROL or completion.status:
            return
        setup = urb.setup
        if (setup[0], setup[1]) != _GET_DESCRIPTOR:
            self.endpoints.follow(setup)
        elif setup[3] == DT_CONFIGURATION:
            self._configuration(bytes(completion.data))

    def interface_class(self, urb: Urb) -> int | None:
        """bInterfaceClass of the interface that a URB is for; a request to the device itself: bDeviceClass."""
        if urb.transfer_type != _CONTROL:
            endpoint = self.endpoints.find(urb.endpoint)
            return None if endpoint is None else endpoint.bInterfaceClass
        if urb.setup[0] & 0x1F != RECIPIENT_INTERFACE:
            return self._device_class
        configuration = self.endpoints.configuration
        for interface in configuration.interfaces if configuration is not None else ():
            if interface.bInterfaceNumber == urb.setup[4]:
                return interface.bInterfaceClass
        return None

    def _configuration(self, raw: bytes) -> None:
        if len(raw) < 9 or len(raw) < int.from_bytes(raw[2:4], "little"):
            return  # only its head, or cut short
        try:
            configuration = parse_configuration(raw)
        except RemoteProtocolError:
            return  # the device's fault; whoever asked for it will report it
        self.endpoints.add_configuration(configuration)
        if self.endpoints.configuration is None and configuration.bConfigurationValue == self._active:
            self.endpoints.activate(self._active)
