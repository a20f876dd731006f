"""labgrid's driver for a device that is used by PyUSB."""

from __future__ import annotations

from typing import Any

import attr
import usb.core
from labgrid import target_factory
from labgrid.driver import Driver
from labgrid.step import step

from usbip_capture.errors import DeviceNotFound
from usbip_capture.labgrid.captures import Member
from usbip_capture.labgrid.capturing import RESOURCES, CapturingDriver
from usbip_capture.pyusb_backend import UsbipBackend, backend_of


@target_factory.reg_driver
@attr.s(eq=False)
class UsbipDriver(CapturingDriver):
    """PyUSB on the device of the bound resource."""

    bindings = {"device": RESOURCES}

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._backend: UsbipBackend | None = None
        self._found: Any = None

    @property
    def backend(self) -> UsbipBackend:
        """For PyUSB, with this device only."""
        return self._active()

    @Driver.check_active
    @step()
    def find(self) -> Any:
        """The device as PyUSB has it, always the same one. Raises UsbipError if it is not there, or in use."""
        if self._found is None:
            self._found = usb.core.find(backend=self._active())
        if self._found is None:
            server = self.device.server
            info = server.find(self.device.selector)  # its sentences are better than None
            raise DeviceNotFound(f"device {info} of {server} cannot be used now: end the program that has it")
        return self._found

    @Driver.check_active
    def _active(self) -> UsbipBackend:
        assert self._backend is not None
        return self._backend

    def _open(self, member: Member) -> None:
        self._backend = backend_of(
            member.server, [member.selector], None, reconnect=self.reconnect, offer=bool(self.pcap)
        )

    def _close(self) -> None:
        backend, self._backend, self._found = self._backend, None, None
        if backend is not None:
            backend.close()
