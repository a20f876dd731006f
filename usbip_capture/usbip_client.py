"""The names of the package serial-usbipclient, for programs written for it: change the import, keep the rest.

    from usbip_capture.usbip_client import USBIPClient, HardwareID, USBIP_Connection

Identical devices, modem lines, other chips than CDC-ACM: see `SerialClient`, which this is made of.

Ref: serial-usbipclient 1.1.2, README
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from usbip_capture.errors import ImportRefused, ResponseTimeout, ServerLost, ServerUnreachable, UsbipError
from usbip_capture.serial_port.client.client import SerialClient
from usbip_capture.serial_port.client.connection import RESPONSE_TIMEOUT, SerialConnection
from usbip_capture.servers.address import ServerAddress
from usbip_capture.usb.descriptors import ConfigurationDescriptor, DeviceDescriptor
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.wire.structs import OpStatus

PAYLOAD_TIMEOUT = RESPONSE_TIMEOUT
_ENOENT, _ENODEV, _EBUSY = 2, 19, 16
_RESTORE_WITHIN = 10.0


@dataclass
class HardwareID:
    """Which devices are meant, all of them that have these ids."""

    vid: int = 0
    pid: int = 0

    def __str__(self) -> str:
        return f"vid: 0x{self.vid:04x}, pid: 0x{self.pid:04x}"


class USBIPError(Exception):
    """Anything that went wrong; `detail` is the sentence."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class USBIPValueError(ValueError):
    """A device that is not there, or not serial."""


class USBIPServerTimeoutError(USBIPError):
    """The server does not answer."""


class USBIPConnectionError(USBIPError):
    """No connection to the server."""


class USBIPResponseTimeoutError(USBIPError):
    """Nothing came in time. timeout: in seconds; size: bytes, 0 for an answer up to the delimiter."""

    def __init__(self, detail: str = "", timeout: float = 0.0, size: int = 0, request: bytes | None = None) -> None:
        wanted = f"{size} bytes" if size else "answer"
        super().__init__(detail or f"no {wanted} within {timeout:g} s")
        self.timeout, self.size, self.request = timeout, size, request


class USBConnectionLostError(USBIPError):
    """The device is gone: `restore_connection(error.connection)` brings it back."""

    def __init__(self, detail: str, connection: USBIP_Connection | None = None) -> None:
        super().__init__(detail)
        self.connection = connection


class USBAttachError(USBIPError):
    """The server refuses to export the device; `errno` in Linux numbers."""

    def __init__(self, detail: str, an_errno: int) -> None:
        super().__init__(detail)
        self.errno = abs(an_errno)


@dataclass(frozen=True)
class PublishedDevice:
    """One device of the server's list."""

    busid: bytes
    busnum: int
    devnum: int
    idVendor: int
    idProduct: int
    info: DeviceInfo


@dataclass(frozen=True)
class Published:
    """The server's list."""

    paths: list[PublishedDevice]


class USBIP_Connection:  # noqa: N801  the name of the other package
    """One attached device. line_timeout: seconds for an answer to `USBIPClient.readline`."""

    def __init__(self, device: HardwareID, connection: SerialConnection, line_timeout: float = PAYLOAD_TIMEOUT) -> None:
        self.device = device
        self.connection = connection
        self.line_timeout = line_timeout

    @property
    def busnum(self) -> int:
        """The device's bus at the server."""
        return self.connection.info.busnum

    @property
    def devnum(self) -> int:
        """The device's number on that bus."""
        return self.connection.info.devnum

    @property
    def devid(self) -> int:
        """Both in one number."""
        return self.connection.info.devid

    @property
    def device_desc(self) -> DeviceDescriptor:
        """Its device descriptor. Raises USBConnectionLostError."""
        return self._descriptors()[0]

    @property
    def configuration(self) -> ConfigurationDescriptor:
        """Its active configuration, with its interfaces. Raises USBConnectionLostError."""
        return self._descriptors()[1]

    def _descriptors(self) -> tuple[DeviceDescriptor, ConfigurationDescriptor]:
        try:
            return self.connection.port.descriptors
        except ServerLost as error:
            raise USBConnectionLostError(str(error), self) from error

    @property
    def delimiter(self) -> bytes:
        """What ends an answer of unknown size."""
        return self.connection.delimiter

    @delimiter.setter
    def delimiter(self, delimiter: bytes) -> None:
        self.connection.delimiter = delimiter

    def sendall(self, data: bytes) -> None:
        """Send a request. Raises USBConnectionLostError."""
        try:
            self.connection.sendall(data)
        except ServerLost as error:
            raise USBConnectionLostError(str(error), self) from error
        except UsbipError as error:
            raise USBIPError(str(error)) from error

    def response_data(self, timeout: float = PAYLOAD_TIMEOUT, size: int = 0) -> bytes:
        """The next `size` bytes, or all there is once it ends with the delimiter, or when the time is over.

        Raises USBIPResponseTimeoutError if nothing has come, USBConnectionLostError.
        """
        deadline = time.monotonic() + timeout
        data = b""
        try:
            while True:
                data += self.connection.response_data(size, max(deadline - time.monotonic(), 0.0))
                if size or not self.connection.port.in_waiting:
                    return data
        except ResponseTimeout as error:
            data += error.partial
            if data:
                return data
            raise USBIPResponseTimeoutError(str(error), timeout, size) from error
        except ServerLost as error:
            raise USBConnectionLostError(str(error), self) from error


class USBIPClient:
    """The serial devices of one server. remote: host and port; command_timeout: seconds for answers to `readline`."""

    def __init__(self, remote: tuple[str, int], command_timeout: float = PAYLOAD_TIMEOUT) -> None:
        self._host, self._port = remote
        self.command_timeout = command_timeout
        self._client: SerialClient | None = None
        self._connections: list[USBIP_Connection] = []

    def connect_server(self) -> None:
        """See that the server is there. Raises USBIPConnectionError, USBIPServerTimeoutError."""
        self.list_published()

    def disconnect_server(self) -> None:
        """Nothing to do: each device has a connection of its own, see `shutdown`."""

    def list_published(self) -> Published:
        """What the server exports now. Raises USBIPConnectionError, USBIPServerTimeoutError."""
        try:
            devices = self._opened().devices()
        except ServerUnreachable as error:
            kind = USBIPServerTimeoutError if isinstance(error.__cause__, TimeoutError) else USBIPConnectionError
            raise kind(str(error)) from error
        except UsbipError as error:
            raise USBIPConnectionError(str(error)) from error
        return Published(
            [PublishedDevice(i.busid.encode(), i.busnum, i.devnum, i.idVendor, i.idProduct, i) for i in devices]
        )

    def attach(self, devices: list[HardwareID], published: Published | None = None) -> None:
        """Attach all devices with these ids. Raises USBIPValueError if there are none, USBAttachError."""
        listed = (published or self.list_published()).paths
        found = 0
        for device in devices:
            for path in listed:
                if (path.idVendor, path.idProduct) == (device.vid, device.pid):
                    self._connections.append(USBIP_Connection(device, self._attached(path), self.command_timeout))
                    found += 1
        if not found:
            wanted = "; ".join(map(str, devices))
            raise USBIPValueError(f"{self._opened().server} exports no such device: {wanted}")

    def get_connection(self, device: HardwareID) -> list[USBIP_Connection]:
        """All that are attached with these ids, in the order of the server's list."""
        return [connection for connection in self._connections if connection.device == device]

    def send(self, usb: USBIP_Connection, data: bytes | str) -> int:
        """Send a request; its size in bytes."""
        raw = data.encode() if isinstance(data, str) else data
        usb.sendall(raw)
        return len(raw)

    @staticmethod
    def queue_urbs(usb: USBIP_Connection) -> None:
        """Nothing to do: reads are always in flight."""

    @staticmethod
    def readline(usb: USBIP_Connection) -> str:
        """An answer up to the delimiter, as text without it; empty if none comes."""
        try:
            answer = usb.response_data(usb.line_timeout)
        except USBIPResponseTimeoutError:
            return ""
        return answer.removesuffix(usb.delimiter).decode()

    def restore_connection(self, lost_usb: USBIP_Connection) -> USBIP_Connection | None:
        """The same device attached anew, None if it does not come back within 10 s."""
        try:
            lost_usb.connection.restore(_RESTORE_WITHIN)
        except UsbipError:
            return None
        return lost_usb

    def shutdown_connection(self, usb: USBIP_Connection) -> None:
        """Release one device."""
        usb.connection.close()
        if usb in self._connections:
            self._connections.remove(usb)

    def shutdown(self) -> None:
        """Release all devices."""
        for connection in list(self._connections):
            self.shutdown_connection(connection)

    def _opened(self) -> SerialClient:
        if self._client is None:
            self._client = SerialClient(str(ServerAddress.parse(self._host, self._port)))
        return self._client

    def _attached(self, path: PublishedDevice) -> SerialConnection:
        try:
            return self._opened().attach(path.busid.decode())
        except ImportRefused as error:
            raise USBAttachError(str(error), _errno(error.status)) from error
        except ServerUnreachable as error:
            raise USBIPConnectionError(str(error)) from error
        except UsbipError as error:
            raise USBIPValueError(str(error)) from error


def _errno(status: int) -> int:
    """Linux's number for the status of an OP reply; some servers send such a number themselves."""
    if status <= max(OpStatus):
        return {OpStatus.DEV_BUSY: _EBUSY, OpStatus.NODEV: _ENODEV}.get(OpStatus(status), _ENOENT)
    return status if status < 1 << 31 else (1 << 32) - status
