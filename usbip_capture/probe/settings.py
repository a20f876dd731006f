"""What a probe is to do, and what it reports while it does it."""

from __future__ import annotations

from dataclasses import dataclass

from usbip_capture.device import Device
from usbip_capture.usb.info import DeviceInfo


@dataclass(slots=True, frozen=True)
class ProbeSettings:
    """descriptors: read all of them at the start. listen_in: read the IN endpoints. reconnect: wait for the device."""

    descriptors: bool = True
    listen_in: bool = True
    reconnect: bool = True


class ProbeEvents:
    """Notified of what happens, on any thread; each method may be overridden."""

    def state(self, session: object, text: str) -> None:
        """What a session is doing now."""

    def imported(self, info: DeviceInfo) -> None:
        """A device was imported."""

    def product(self, info: DeviceInfo, name: str) -> None:
        """A device was asked what it calls itself."""

    def serial(self, info: DeviceInfo, number: str) -> None:
        """A device was asked for its serial number."""

    def observe(self, device: Device) -> Device:
        """The device that a session is to use instead of `device`, such as one around it."""
        return device
