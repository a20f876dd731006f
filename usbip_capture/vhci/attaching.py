"""Attach a server's device to this machine's kernel, detach it, and name what is attached."""

from __future__ import annotations

import re
import threading
import time
from contextlib import closing
from dataclasses import dataclass

from usbip_capture.errors import CannotAttach, DeviceNotFound, LocalProtocolError
from usbip_capture.net.address import format_address
from usbip_capture.servers.address import DEMO, Selector, ServerAddress
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.vhci.controller import Vhci
from usbip_capture.vhci.ports import Port, PortStatus
from usbip_capture.vhci.records import Origin, Records

#: What `detach` takes for every device.
ALL = "all"
#: Seconds for the kernel to enumerate a device, to remove it, and between two looks.
_ENUMERATION, _REMOVAL, _LOOK_AGAIN = 10.0, 10.0, 0.05
_NUMBER = re.compile(r"[0-9]{1,6}")


@dataclass(slots=True, frozen=True)
class Attachment:
    """A device that is attached. origin: None if nobody has recorded from where. recorded: it was by us, just now."""

    port: Port
    origin: Origin | None
    recorded: bool = False

    @property
    def where(self) -> str:
        """As `1-1.4 of pi`, for sentences."""
        if self.origin is None:
            return f"device {self.port.devid >> 16}/{self.port.devid & 0xFFFF} of a server that is not recorded"
        host, port, busid = self.origin
        server = format_address(host, int(port)) if port.isdecimal() else f"{host}:{port}"
        return f"{busid} of {server}"


class Attacher:
    """Attaches, detaches and lists, with the kernel's `vhci` and the records of what came from where."""

    def __init__(self, vhci: Vhci, records: Records | None = None) -> None:
        self.vhci = vhci
        self._records = records or Records()

    def attach(self, server: ServerAddress, selector: Selector) -> Attachment:
        """Import the device that is meant and connect it to a free port; returns once the kernel has enumerated it.

        That is waited for 10 s: a device that needs more, or cannot be enumerated, has no local busid yet. Raises
        UsbipError: unreachable, not found, refused, no port, no rights.
        """
        self._check(server)
        sock, info = server.import_socket(selector)
        with closing(sock):  # the kernel has its own reference
            number = self.vhci.attach(sock.fileno(), info.devid, info.speed)
        host, port = server.place
        origin = Origin(host, str(port), info.busid)
        recorded = self._records.write(number, origin)
        return Attachment(self._enumerated(number, info, server), origin, recorded)

    def detach(self, text: str) -> list[Attachment]:
        """Detach what is meant: a port's number, a busid here or there, or `all`; what was. Raises UsbipError."""
        self.vhci.check_rights()
        found = self.chosen(text)
        for attachment in found:
            self._detach(attachment)
        return found

    def attached(self) -> list[Attachment]:
        """What is attached, by port. Raises NoVhci."""
        return [Attachment(port, self._records.read(port.number)) for port in self.vhci.ports() if not port.free]

    def chosen(self, text: str) -> list[Attachment]:
        """What `detach` means by `text`. Raises DeviceNotFound, its sentence naming what there is; NoVhci."""
        attached = self.attached()
        if text == ALL:
            return attached
        if _NUMBER.fullmatch(text):
            found = [attachment for attachment in attached if attachment.port.number == int(text)]
        else:
            found = [a for a in attached if text in (a.port.local_busid, a.origin.busid if a.origin else None)]
        if len(found) == 1:
            return found
        there = ", ".join(f"port {a.port.number} has {a.where}" for a in found or attached)
        if found:
            raise DeviceNotFound(f"several attached devices are called {text}: give a port's number: {there}")
        raise DeviceNotFound(f"nothing that is attached is called {text}: {there or 'nothing is attached'}")

    def is_attached(self, attachment: Attachment) -> bool:
        """Whether its port still has this device. Raises NoVhci."""
        port = self.vhci.port(attachment.port.number)
        if port is None or port.free or port.status == PortStatus.ERROR:
            return False
        return port.status == PortStatus.NOT_ASSIGNED or port.devid == attachment.port.devid

    def was_detached_here(self, attachment: Attachment) -> bool:
        """Whether one that is not attached any more was detached by hand: that removes its record, a loss does not."""
        return attachment.recorded and self._records.read(attachment.port.number) is None

    def forget(self, attachment: Attachment) -> None:
        """Remove the record of a device that was lost."""
        if self._records.read(attachment.port.number) == attachment.origin:
            self._records.remove(attachment.port.number)

    def _check(self, server: ServerAddress) -> None:
        if server.host == DEMO:
            raise LocalProtocolError(
                "the built-in demo ends with this command, and the kernel would lose it: run usbip-capture demo, and "
                "attach from 127.0.0.1"
            )
        if server.is_recording:
            raise LocalProtocolError(
                "a replay ends with this command, and the kernel would lose it: run usbip-capture replay FILE, and "
                "attach from 127.0.0.1"
            )
        self.vhci.check_rights()
        if not any(port.free for port in self.vhci.ports()):
            raise CannotAttach("no port of vhci-hcd is free: detach a device (usbip-capture attached)")

    def _enumerated(self, number: int, info: DeviceInfo, server: ServerAddress) -> Port:
        """The port with its local busid, or as it is after _ENUMERATION. Raises CannotAttach if it is lost."""
        deadline = time.monotonic() + _ENUMERATION
        while True:
            port = self.vhci.port(number)
            if port is None or port.free:
                self._records.remove(number)
                raise CannotAttach(
                    f"device {info} of {server} was lost while the kernel enumerated it: see the kernel's log (dmesg)"
                )
            if self.vhci.is_enumerated(port):
                return port
            if time.monotonic() > deadline:
                return Port(number, port.hub, port.status, info.speed, info.devid)
            threading.Event().wait(_LOOK_AGAIN)

    def _detach(self, attachment: Attachment) -> None:
        number = attachment.port.number
        self._records.remove(number)  # first, as usbip does: who watches the port knows by it that this is wanted
        self.vhci.detach(number)
        deadline = time.monotonic() + _REMOVAL
        while self.is_attached(attachment):
            if time.monotonic() > deadline:
                raise CannotAttach(f"the kernel has not removed {attachment.where} from port {number} yet: see dmesg")
            threading.Event().wait(_LOOK_AGAIN)
