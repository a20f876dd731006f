"""A server by its name: dial it, list what it exports, find the device that is meant, import it.

The host name `demo` is the built-in simulated server, wherever a host is taken.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from usbip_capture import net
from usbip_capture.address import DEFAULT_PORT, format_address, parse_address
from usbip_capture.configuration import named
from usbip_capture.devices.devlist import list_devices
from usbip_capture.errors import DeviceNotFound, ImportRefused, LocalProtocolError, UsbipError
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.wire.structs import OpStatus, op_status_text

if TYPE_CHECKING:
    from usbip_capture.devices.remote import RemoteDevice

DEMO = "demo"
#: Selections of more than one device, and of the only one.
ALL_DEVICES, THE_ONLY_ONE = "all", "auto"


@dataclass(slots=True, frozen=True)
class Selector:
    """Which device is meant: a busid, or VID:PID, or the only one (both empty)."""

    busid: str = ""
    vid_pid: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str) -> Selector:
        """`1-1.2`, `303a:4004`; nothing or `auto`. Raises LocalProtocolError."""
        text = text.strip()
        if text == THE_ONLY_ONE:
            return cls()
        vid, colon, pid = text.partition(":")
        if colon:
            try:
                return cls(vid_pid=(_hex16(vid), _hex16(pid)))
            except ValueError:
                raise LocalProtocolError(
                    f"{text!r} is not a device: write a busid such as 1-1.2, or VID:PID in hexadecimal, 303a:4004"
                ) from None
        return cls(busid=text)

    def matches(self, info: DeviceInfo) -> bool:
        """Whether `info` is such a device."""
        if self.vid_pid is not None:
            return info.vid_pid == self.vid_pid
        return not self.busid or info.busid == self.busid

    def __str__(self) -> str:
        return "{:04x}:{:04x}".format(*self.vid_pid) if self.vid_pid else self.busid


#: Every device that is exported.
ALL: list[Selector] = []


def parse_selection(text: str) -> list[Selector]:
    """What `--device` names: `all` is ALL; else selectors, separated by commas. Raises LocalProtocolError."""
    if text.strip() == ALL_DEVICES:
        return ALL
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 1 and not {ALL_DEVICES, THE_ONLY_ONE, ""}.isdisjoint(parts):
        raise LocalProtocolError(
            f"{text!r} is not a list of devices: give all, auto, or busids and VID:PIDs with commas"
        )
    return [Selector.parse(part) for part in parts]


@dataclass(slots=True, frozen=True)
class Server:
    """A USB/IP server. `timeout`, in seconds, bounds each connection and each OP reply."""

    host: str
    port: int = DEFAULT_PORT
    timeout: float = 5.0

    @classmethod
    def parse(cls, host: str, port: int = DEFAULT_PORT, timeout: float = 5.0) -> Server:
        """`host` as people write it: a name of theirs, or an address, perhaps with a port of its own.

        The port that they have configured for a name counts where no other is given. Raises LocalProtocolError.
        """
        if not isinstance(host, str) or not host.strip():
            raise LocalProtocolError("no server given: give its name or address, such as 192.0.2.10")
        if not isinstance(port, int) or not 0 < port < 65536:
            raise LocalProtocolError(f"{port!r} is not a TCP port (1 to 65535)")
        if not isinstance(timeout, (int, float)) or not 0 < timeout < 1e6:
            raise LocalProtocolError(
                f"{timeout!r} is not a time to wait: give seconds, more than 0 and less than a million"
            )
        if (configured := named(host)) is not None:
            name, own = configured
            return cls(name, own if own and port == DEFAULT_PORT else port, timeout)
        name, port = parse_address(host, port)
        if not port:
            raise LocalProtocolError("0 is not a TCP port (1 to 65535)")
        if (configured := named(name)) is not None:
            name = configured[0]
        return cls(DEMO if name.lower() == DEMO else name, port, timeout)

    def __str__(self) -> str:
        return format_address(self.host, self.port)

    def connect(self) -> socket.socket:
        """A new connection. Raises ServerUnreachable."""
        if self.host == DEMO:
            # Imported here: only who wants the demo pays for it.
            from usbip_capture.demo import connect_demo

            return connect_demo()
        return net.connect(self.host, self.port, self.timeout)

    def devices(self) -> list[DeviceInfo]:
        """What is exported now; many servers leave out devices in use. Raises UsbipError."""
        return list_devices(self.connect(), str(self), self.timeout)

    def find(self, selector: Selector) -> DeviceInfo:
        """The one exported device that is meant. Raises DeviceNotFound, its sentence listing what there is."""
        devices = self.devices()
        found = [info for info in devices if selector.matches(info)]
        if len(found) == 1:
            return found[0]
        if found:
            wanted = f" {selector}" if str(selector) else ""
            raise DeviceNotFound(f"{self} exports several devices{wanted}: name one by its busid: {_listing(found)}")
        if devices:
            raise DeviceNotFound(
                f"{self} exports no device {selector} (or it is in use): it exports {_listing(devices)}"
            )
        raise DeviceNotFound(
            f"{self} exports no device now: end the client that uses it, or bind one there (usbip bind -b BUSID)"
        )

    def import_device(self, selector: Selector) -> RemoteDevice:
        """Take the device that is meant. Raises UsbipError: unreachable, not found, refused."""
        # Imported here: a list does without.
        from usbip_capture.devices.remote import import_device

        # By busid without a look at the list first: servers leave devices in use out of it, and "in use" is the answer.
        busid = selector.busid or self.find(selector).busid
        try:
            return import_device(self.connect(), busid, str(self), self.timeout)
        except ImportRefused as error:
            reason = f"device {busid} of {self} cannot be imported: {op_status_text(error.status)}"
            raise ImportRefused(f"{reason}; {self._remedy(error.status)}", error.status) from error

    def _remedy(self, status: int) -> str:
        if status == OpStatus.DEV_BUSY:
            return "end that client, or detach the device on the machine that has it (usbip detach)"
        if status == OpStatus.NODEV:
            try:
                devices = self.devices()
            except UsbipError:
                return "look at its list of devices (usbip list -r)"
            return f"it exports {_listing(devices)}" if devices else "it exports no device now"
        return "look at its log, or bind the device again there (usbip unbind, usbip bind)"


def _listing(devices: list[DeviceInfo]) -> str:
    shown = ", ".join(str(info) for info in devices[:8])
    return shown + (f" and {len(devices) - 8} more" if len(devices) > 8 else "")


def _hex16(text: str) -> int:
    text = text.removeprefix("0x").removeprefix("0X")
    if not 1 <= len(text) <= 4 or not all(c in "0123456789abcdefABCDEF" for c in text):
        raise ValueError(text)
    return int(text, 16)
