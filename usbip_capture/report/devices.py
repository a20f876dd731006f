"""What a capture shows of its devices: their descriptors, and so the facts that a capture filter asks for. Pure."""

from __future__ import annotations

import re

from usbip_capture.errors import RemoteProtocolError
from usbip_capture.filters.language import Facts
from usbip_capture.recordings.urb_events import split_key
from usbip_capture.usb.descriptors import DeviceDescriptor
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.learner import EndpointLearner
from usbip_capture.usb.setup import DT_DEVICE, GET_DESCRIPTOR
from usbip_capture.usb.urb import DIR_IN, Completion, TransferType, Urb

# How PcapWriter describes its interfaces: USB/IP SERVER BUSID VID:PID PRODUCT
_OURS = re.compile(r"USB/IP \S.*? (\S+) ([0-9a-f]{4}):([0-9a-f]{4})(?: |$)")
_GET_DEVICE_DESCRIPTOR = bytes([0x80, GET_DESCRIPTOR, 0, DT_DEVICE])
_CONTROL = int(TransferType.CONTROL)
# A device that was configured before the capture began: most have only this configuration.
_FIRST_CONFIGURATION = 1


class SeenDevice:
    """One device of an interface. `descriptor` is None until it passes by.

    name: its busid if the interface's description has it, else BUS.DEVICE, as Wireshark writes it.
    """

    def __init__(self, busnum: int, devnum: int, description: str) -> None:
        ours = _OURS.match(description)
        self.busnum = busnum
        self.devnum = devnum
        self.name = ours[1] if ours else f"{busnum}.{devnum}"
        self.descriptor: DeviceDescriptor | None = None
        self._described = (int(ours[2], 16), int(ours[3], 16)) if ours else None
        self._learner = self._new_learner()

    @property
    def vid_pid(self) -> tuple[int, int] | None:
        """idVendor and idProduct, None if they are not known."""
        if self.descriptor is not None:
            return self.descriptor.idVendor, self.descriptor.idProduct
        return self._described

    @property
    def device_class(self) -> int | None:
        """bDeviceClass, None if it is not known."""
        return None if self.descriptor is None else self.descriptor.bDeviceClass

    def interface_class(self, address: int) -> int | None:
        """bInterfaceClass of an endpoint other than control's, None if it is not known."""
        endpoint = self._learner.endpoints.find(address)
        return None if endpoint is None else endpoint.bInterfaceClass

    def saw_control(self, setup: bytes, status: int, data: bytes) -> None:
        """A control request came back."""
        if not status and setup.startswith(_GET_DEVICE_DESCRIPTOR):
            self._describe(data)
        self._learner.saw(Urb.control(setup), Completion(status, len(data), data))

    def facts(self, key: int, status: int, length: int, requested: int | None, setup: bytes) -> Facts:
        """What a filter may ask of one of its URBs that has come back, or is out at the end (-EINPROGRESS)."""
        _, _, kind, address = split_key(key)
        vid, pid = self.vid_pid or (None, None)
        if kind == _CONTROL:
            interface_class = self._learner.interface_class(Urb.control(setup))
        else:
            interface_class = self.interface_class(address)
        return Facts(
            device=self.name, vid=vid, pid=pid, ep=0 if kind == _CONTROL else address, type=kind,
            inward=1 if address & DIR_IN else 0, interface_class=interface_class, status=status, length=length,
            requested=requested,
        )  # fmt: skip

    def _describe(self, data: bytes) -> None:
        try:
            found = DeviceDescriptor.parse(data)
        except RemoteProtocolError:
            return  # its head only, or cut short
        if found.bDescriptorType == DT_DEVICE and found != self.descriptor:
            self.descriptor = found
            self._learner = self._new_learner()

    def _new_learner(self) -> EndpointLearner:
        vid, pid = self.vid_pid or (0, 0)
        info = DeviceInfo(
            self.name, self.busnum, self.devnum, Speed.UNKNOWN, vid, pid, bDeviceClass=self.device_class or 0,
            bConfigurationValue=_FIRST_CONFIGURATION,
        )  # fmt: skip
        return EndpointLearner(info)
