"""The binary device object store: what a device can beyond USB 2.0.

Ref: USB 3.2 specification, 9.6.2; USB 2.0 ECN Link Power Management; WebUSB; Microsoft OS 2.0 Descriptors
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from usbip_capture.errors import RemoteProtocolError
from usbip_capture.usb.descriptors import split_descriptors
from usbip_capture.usb.setup import DT_BOS, DT_DEVICE_CAPABILITY
from usbip_capture.usb.urb import Buffer

# bDevCapabilityType
USB_2_0_EXTENSION = 2
SUPERSPEED_USB = 3
CONTAINER_ID = 4
PLATFORM = 5

WEBUSB = UUID("3408b638-09a9-47a0-8bfd-a0768815b665")
MS_OS_2_0 = UUID("d8dd60df-4589-4cc7-9cd2-659d9e648a9f")


@dataclass(slots=True, frozen=True)
class DeviceCapability:
    """One capability; `data` is what follows bDevCapabilityType."""

    bDevCapabilityType: int
    data: bytes

    @property
    def uuid(self) -> UUID | None:
        """Of a container id, or of a platform capability such as WEBUSB or MS_OS_2_0."""
        if self.bDevCapabilityType in (CONTAINER_ID, PLATFORM) and len(self.data) >= 17:
            return UUID(bytes_le=self.data[1:17])
        return None


def parse_bos(raw: Buffer) -> list[DeviceCapability]:
    """The capabilities in a BOS descriptor; what is malformed is left out.

    Raises RemoteProtocolError only if it does not even begin as one.
    """
    data = bytes(raw)
    if len(data) < 5 or data[1] != DT_BOS:
        raise RemoteProtocolError(f"what came instead of a BOS descriptor has {len(data)} bytes")
    total = min(len(data), int.from_bytes(data[2:4], "little"))
    return [
        DeviceCapability(piece[2], piece[3:])
        for piece in split_descriptors(data[5:total])
        if len(piece) >= 3 and piece[0] == len(piece) and piece[1] == DT_DEVICE_CAPABILITY
    ]
