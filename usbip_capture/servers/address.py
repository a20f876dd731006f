"""A server by its name: dial it, list what it exports, find the device that is meant, import it.

Two host names are built in, wherever a host is taken: `demo` is a simulated server, `local` this machine itself, whose
devices are used by libusb, without a server.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from usbip_capture.devices.devlist import list_devices
from usbip_capture.errors import (
    DeviceNotFound,
    ImportRefused,
    LocalProtocolError,
    RemoteProtocolError,
    ServerLost,
    ServerUnreachable,
    StrayReply,
    UsbipError,
)
from usbip_capture.net import connecting as net
from usbip_capture.net.address import DEFAULT_PORT, format_address, split_place
from usbip_capture.net.transport import SocketTransport, Transport
from usbip_capture.servers import configuration
from usbip_capture.servers.recording_host import REPLAY, connect_to_recording, recording_host
from usbip_capture.system.shown import one_line
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.wire.operations import ImportExchange
from usbip_capture.wire.structs import OpStatus, op_status_text

if TYPE_CHECKING:
    from usbip_capture.device import Device
    from usbip_capture.devices.libusb.local_device import LocalDevice

T = TypeVar("T")

DEMO, LOCAL = configuration.DEMO, configuration.LOCAL
#: Attempts, and seconds between them, when a server answers with what belongs to an earlier connection.
_STRAY_ATTEMPTS, _STRAY_PAUSE = 8, 0.05
#: Selections of more than one device, and of the only one.
ALL_DEVICES, THE_ONLY_ONE = "all", "auto"
#: What a device's serial number is written after.
SERIAL_NUMBER = "serial="
#: Of what is waited for, in seconds.
_MAX_TIMEOUT = 1e6
#: Seconds for which a device may be missing after it was released.
_MISSING = 1.0
_RETRY_INTERVAL = 0.05
#: Devices that a sentence names.
_MAX_LISTED = 8


@dataclass(slots=True, frozen=True)
class Selector:
    """Which device is meant: a busid, or VID:PID, or the only one (both empty); serial: it has this serial number."""

    busid: str = ""
    vid_pid: tuple[int, int] | None = None
    serial: str = ""

    @classmethod
    def parse(cls, text: str) -> Selector:
        """`1-1.2`, `303a:4004`, `303a:4004:123456`, `serial=123456`; nothing or `auto`. Raises LocalProtocolError."""
        text = text.strip()
        if text == THE_ONLY_ONE:
            return cls()
        if text.startswith(SERIAL_NUMBER):
            serial = text.removeprefix(SERIAL_NUMBER)
            if not serial:
                raise LocalProtocolError("serial= needs the device's serial number after it")
            return cls(serial=serial)
        vid, colon, rest = text.partition(":")
        if colon:
            pid, colon, serial = rest.partition(":")
            try:
                if colon and not serial:
                    raise ValueError(text)
                return cls(vid_pid=(_hex16(vid), _hex16(pid)), serial=serial)
            except ValueError:
                raise LocalProtocolError(
                    f"{text!r} is not a device: write a busid such as 1-1.2, VID:PID in hexadecimal such as 303a:4004, "
                    "VID:PID:SERIAL, or serial=NUMBER"
                ) from None
        return cls(busid=text)

    def matches(self, info: DeviceInfo) -> bool:
        """Whether `info` may be such a device: lists of devices do not have serial numbers."""
        if self.vid_pid is not None:
            return info.vid_pid == self.vid_pid
        return not self.busid or info.busid == self.busid

    def __str__(self) -> str:
        shown = "{:04x}:{:04x}".format(*self.vid_pid) if self.vid_pid else self.busid
        return f"{shown} {SERIAL_NUMBER}{self.serial}".strip() if self.serial else shown


#: Every device that is exported.
ALL: list[Selector] = []


def parse_selection(text: str) -> list[Selector]:
    """What `--device` names: `all` is ALL; else selectors, separated by commas. Raises LocalProtocolError."""
    if text.strip() == ALL_DEVICES:
        return ALL
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 1 and not {ALL_DEVICES, THE_ONLY_ONE, ""}.isdisjoint(parts):
        raise LocalProtocolError(
            f"{text!r} is not a list of devices: give all, auto, or busids and VID:PIDs separated by commas"
        )
    return [Selector.parse(part) for part in parts]


@dataclass(slots=True, frozen=True)
class ServerAddress:
    """A USB/IP server. `timeout`, in seconds, bounds each connection and each OP reply.

    scheme: `tls`, `ssh`, or nothing, which is plain TCP. user, ssh_port: of ssh; nothing and 0 as ssh is configured.
    port: with ssh it is that of the USB/IP server on loopback of that machine.
    """

    host: str
    port: int = DEFAULT_PORT
    timeout: float = 5.0
    scheme: str = ""
    user: str = ""
    ssh_port: int = 0

    @classmethod
    def parse(cls, host: str, port: int = DEFAULT_PORT, timeout: float = 5.0) -> ServerAddress:
        """`host` as people write it: a name of theirs, or an address, perhaps with a port of its own or a scheme.

        The port that they have configured for a name counts where no other is given. Raises LocalProtocolError.
        """
        if not isinstance(host, str) or not host.strip():
            raise LocalProtocolError("no server given: give its name or address, such as 192.0.2.10")
        if not isinstance(port, int) or not 0 < port < 65536:
            raise LocalProtocolError(f"{port!r} is not a TCP port (1 to 65535)")
        if not isinstance(timeout, (int, float)) or not 0 < timeout <= _MAX_TIMEOUT:
            raise LocalProtocolError(
                f"{timeout!r} is not a time to wait: give more than 0 and at most {_MAX_TIMEOUT:.0f} seconds"
            )
        if recording := recording_host(host.strip()):
            return cls(recording, timeout=timeout)
        name, port = configuration.place_of(host, port)
        if not port:
            raise LocalProtocolError("0 is not a TCP port (1 to 65535)")
        if name.lower() == LOCAL:
            return cls(LOCAL, timeout=timeout)
        server = cls.at(DEMO if name.lower() == DEMO else name, port, timeout)
        if server.scheme and server.host.lower() in (DEMO, LOCAL):
            raise LocalProtocolError(f"{server.host} is built in: name it without {server.scheme}://")
        return server

    @classmethod
    def at(cls, host: str, port: int, timeout: float = 5.0) -> ServerAddress:
        """The one of that `place`."""
        scheme, user, name, ssh_port = split_place(host)
        return cls(name, port, timeout, scheme, user, ssh_port)

    @property
    def place(self) -> tuple[str, int]:
        """What it is known by: its host, with the scheme in front if it has one, and its port."""
        if not self.scheme:
            return self.host, self.port
        host = f"[{self.host}]" if ":" in self.host else self.host
        user, ssh_port = f"{self.user}@" if self.user else "", f":{self.ssh_port}" if self.ssh_port else ""
        return f"{self.scheme}://{user}{host}{ssh_port}", self.port

    def __str__(self) -> str:
        return format_address(*self.place)

    @property
    def is_built_in(self) -> bool:
        """Whether it is no server of the network: nothing of it is remembered."""
        return not self.scheme and (self.host in (DEMO, LOCAL) or self.is_recording)

    @property
    def is_recording(self) -> bool:
        """Whether it is a capture, whose devices are replayed."""
        return self.host.startswith(REPLAY)

    @property
    def offers(self) -> str:
        """The beginning of a sentence about its devices: `pi exports`."""
        return "this machine has" if self.host == LOCAL else f"{self} exports"

    @property
    def empty(self) -> str:
        """The sentence that there is no device."""
        if self.host == LOCAL:
            return "this machine has no USB device: plug one in"
        return f"{self} exports no device now: end the client that uses it, or bind one there (usbip bind -b BUSID)"

    def open_transport(self) -> Transport:
        """A new connection, as what is imported through it uses it. Raises ServerUnreachable."""
        if self.scheme:
            from usbip_capture.servers import carried

            return carried.open_transport(self)
        return SocketTransport(self.connect(), str(self))

    def connect(self) -> socket.socket:
        """The socket of a new connection by TCP, without what the scheme needs. Raises ServerUnreachable."""
        if self.host == DEMO:
            # Imported here: only who wants the demo pays for it.
            from usbip_capture.demo.device import connect_demo

            return connect_demo()
        if self.is_recording:
            return connect_to_recording(self.host)
        if self.host == LOCAL:
            raise ServerUnreachable(
                "local is this machine itself, without a USB/IP server: start one with `usbip-capture serve`, and name "
                "it as 127.0.0.1"
            )
        return net.connect(self.host, self.port, self.timeout)

    def devices(self) -> list[DeviceInfo]:
        """What is exported now; many servers leave out devices in use. Raises UsbipError."""
        if self.host == LOCAL:
            from usbip_capture.servers import local

            return [device.info for device in local.devices()]
        return list_devices(self.open_transport(), self.timeout)

    def find(self, selector: Selector) -> DeviceInfo:
        """The one exported device that is meant. Raises DeviceNotFound, its sentence listing what there is.

        For a serial number each that may be meant is imported, and released; this returns when it is listed again,
        which takes half a second on Linux.
        """
        if self.host == LOCAL:
            from usbip_capture.servers import local

            return local.find(selector).info
        if selector.serial:
            device = self._import_by_serial(selector)
            device.close()
            self._await(device.info.busid)
            return device.info
        devices = self.devices()
        found = [info for info in devices if selector.matches(info)]
        if len(found) == 1:
            return found[0]
        if found:
            wanted = f" {selector}" if str(selector) else ""
            raise DeviceNotFound(f"{self} exports several devices{wanted}: name one by its busid: {listing(found)}")
        if devices:
            raise DeviceNotFound(
                f"{self} exports no device {selector} (or it is in use): it exports {listing(devices)}"
            )
        raise DeviceNotFound(self.empty)

    def import_device(self, selector: Selector) -> Device:
        """Take the device that is meant. Raises UsbipError: unreachable, not found, refused."""
        if self.host == LOCAL:
            from usbip_capture.servers import local

            return local.open_device(selector)
        if selector.serial:
            return self._import_by_serial(selector)
        # Imported here: a list does without.
        from usbip_capture.devices.remote import import_device

        return self._imported(selector, lambda busid: import_device(self.open_transport(), busid, self.timeout))

    def import_socket(self, selector: Selector) -> tuple[socket.socket, DeviceInfo]:
        """The device that is meant, and its connection for who runs its URBs, such as a kernel. Raises UsbipError."""
        if selector.serial:
            selector = Selector(busid=self.find(selector).busid)
        return self._imported(selector, self._socket_of)

    def _socket_of(self, busid: str) -> tuple[socket.socket, DeviceInfo]:
        transport = self._open_socket()
        try:
            request = ImportExchange(busid)
            net.exchange(transport, request, self.timeout)
            if request.info is None:
                raise RemoteProtocolError(f"{self}: the import of {busid} was answered without a device")
            return transport.release(), request.info
        except OSError as error:
            transport.close()
            raise ServerLost(f"{self} broke off the connection ({error.strerror or error})") from error
        except BaseException:
            transport.close()
            raise

    def _open_socket(self) -> SocketTransport:
        """A connection whose socket has the bytes of USB/IP, as a kernel needs it."""
        if self.scheme:
            from usbip_capture.servers import carried

            return carried.open_socket(self)
        return SocketTransport(self.connect(), str(self))

    def _imported(self, selector: Selector, take: Callable[[str], T]) -> T:
        """What `take` makes of the busid that is meant; a refusal is explained. Raises UsbipError."""
        # By busid without a look at the list first: servers leave devices in use out of it, and "in use" is the answer.
        busid = selector.busid or self.find(selector).busid
        try:
            return self._taken(busid, take)
        except ImportRefused as error:
            reason = f"device {busid} of {self} cannot be imported: {op_status_text(error.status)}"
            raise ImportRefused(f"{reason}; {self._remedy(error.status)}", error.status) from error

    def known_descriptor(self, busid: str) -> bytes:
        """A device descriptor, where it is known without importing the device; else empty. Raises UsbipError."""
        device = self._unopened(busid)
        return b"" if device is None else device.device_descriptor

    def known_serial_number(self, busid: str) -> str | None:
        """A serial number, as `known_descriptor`; else None. Raises UsbipError."""
        device = self._unopened(busid)
        if device is None:
            return None
        from usbip_capture.servers import local

        return local.serial_number(device)

    def _unopened(self, busid: str) -> LocalDevice | None:
        if self.host != LOCAL:
            return None
        from usbip_capture.devices.libusb.bus import LocalBus

        return LocalBus.shared().find(busid)

    def _import_by_serial(self, selector: Selector) -> Device:
        """The first that has the serial number; the others are released again. Raises UsbipError."""
        from usbip_capture.devices.serial_number import read_serial_number

        seen = []
        for info in self.devices():
            if not selector.matches(info):
                continue
            try:
                device = self.import_device(Selector(busid=info.busid))
            except ImportRefused as error:
                seen.append(f"{info} was refused ({op_status_text(error.status)})")
                continue
            serial = read_serial_number(device)
            if serial == selector.serial:
                return device
            device.close()
            seen.append(f"{info} has {one_line(serial) if serial else 'none'}")
        there = "; ".join(seen[:_MAX_LISTED]) or "it exports no device that could be meant"
        raise DeviceNotFound(
            f"no device of {self} has the serial number {one_line(selector.serial)} (or it is in use): {there}"
        )

    def _await(self, busid: str) -> None:
        deadline = time.monotonic() + _MISSING
        while all(info.busid != busid for info in self.devices()) and time.monotonic() < deadline:
            time.sleep(_RETRY_INTERVAL)

    def _taken(self, busid: str, take: Callable[[str], T]) -> T:
        """Tried again when a server begins with what it still had to answer on an earlier connection.

        Ref: Linux drivers/usb/usbip/vudc_tx.c, whose queue of replies outlives its connection
        """
        attempts, stray = _STRAY_ATTEMPTS, False
        while True:
            attempts -= 1
            try:
                return take(busid)
            except (StrayReply, ImportRefused) as error:
                stray = stray or isinstance(error, StrayReply)
                if not stray or not attempts:
                    raise
            time.sleep(_STRAY_PAUSE)

    def _remedy(self, status: int) -> str:
        if status == OpStatus.DEV_BUSY:
            return "end that client, or detach the device on the machine that has it (usbip detach)"
        if status == OpStatus.NODEV:
            try:
                devices = self.devices()
            except UsbipError:
                return "look at its list of devices (usbip list -r)"
            return f"it exports {listing(devices)}" if devices else "it exports no device now"
        return "look at its log, or bind the device again there (usbip unbind, usbip bind)"


def listing(devices: list[DeviceInfo]) -> str:
    """Devices in a sentence, not too many of them."""
    shown = ", ".join(str(info) for info in devices[:_MAX_LISTED])
    return shown + (f" and {len(devices) - _MAX_LISTED} more" if len(devices) > _MAX_LISTED else "")


def _hex16(text: str) -> int:
    text = text.removeprefix("0x").removeprefix("0X")
    if not 1 <= len(text) <= 4 or not all(c in "0123456789abcdefABCDEF" for c in text):
        raise ValueError(text)
    return int(text, 16)
