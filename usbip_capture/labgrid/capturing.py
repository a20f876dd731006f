"""What the drivers for labgrid have in common: a device that is opened when they are activated, and captured."""

from __future__ import annotations

from abc import abstractmethod

import attr
from labgrid.driver import Driver

from usbip_capture.labgrid import captures
from usbip_capture.labgrid.captures import Member
from usbip_capture.labgrid.resources import NetworkUsbipDevice, UsbipDevice

#: The resources that such a driver can be bound to.
RESOURCES = {"NetworkUsbipDevice", "UsbipDevice"}


@attr.s(eq=False)
class CapturingDriver(Driver):
    """pcap: a folder, where each test gets a capture of its own, or a file that ends with .pcapng; empty: none.

    reconnect: seconds to wait for a device that was lost, as `get_backend` has it.
    """

    device: NetworkUsbipDevice | UsbipDevice  # by labgrid, from the bindings

    pcap: str = attr.ib(default="", validator=attr.validators.instance_of(str))
    reconnect: float = attr.ib(default=0.0, converter=float)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._member: Member | None = None

    def on_activate(self) -> None:
        """Open the device. Raises UsbipError."""
        member = Member(self.device.server, self.device.selector, self.target.name)
        if self.pcap:
            captures.join(self.pcap, member)
            self._member = member
        try:
            self._open(member)
        except BaseException:
            self._leave()
            raise

    def on_deactivate(self) -> None:
        """Release the device. Raises CaptureError if the capture could not be written."""
        try:
            self._close()
        finally:
            self._leave()

    def _leave(self) -> None:
        member, self._member = self._member, None
        if member is not None:
            captures.leave(self.pcap, member)

    @abstractmethod
    def _open(self, member: Member) -> None:
        """Have the device, offered to captures if there is `pcap`. Raises UsbipError."""

    @abstractmethod
    def _close(self) -> None:
        """Release it."""
