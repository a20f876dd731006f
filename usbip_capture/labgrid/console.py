"""labgrid's driver for a serial device: a console, as its `SerialDriver` is one."""

from __future__ import annotations

import attr
from labgrid import target_factory
from labgrid.driver.consoleexpectmixin import ConsoleExpectMixin
from labgrid.protocol import ConsoleProtocol
from pexpect import TIMEOUT

from usbip_capture.errors import UsbipError
from usbip_capture.labgrid.captures import Member
from usbip_capture.labgrid.capturing import RESOURCES, CapturingDriver
from usbip_capture.serial_port.port import SerialPort
from usbip_capture.serial_port.url import PortUrl
from usbip_capture.uart.settings import LineSettings

_WHOLE = attr.validators.instance_of(int)


@target_factory.reg_driver
@attr.s(eq=False)
class UsbipSerialDriver(ConsoleExpectMixin, CapturingDriver, ConsoleProtocol):
    """The serial port of the bound resource's device as a console.

    speed: in bits per second. interface: bInterfaceNumber, of a device with several ports; None: the first one.
    txdelay, txchunk: seconds before so many bytes each, for boards that lose what comes faster. timeout: seconds for
    the device to accept what is written.
    """

    bindings = {"device": RESOURCES}

    speed: int = attr.ib(default=115200, validator=_WHOLE)
    interface: int | None = attr.ib(default=None, validator=attr.validators.optional(_WHOLE))
    txdelay: float = attr.ib(default=0.0, converter=float)
    txchunk: int = attr.ib(default=1, validator=_WHOLE)
    timeout: float = attr.ib(default=3.0, converter=float)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._port: SerialPort | None = None

    @property
    def port(self) -> SerialPort:
        """For all else that a serial port can do, such as its modem lines. Raises UsbipError if it is not open."""
        if self._port is None:
            raise UsbipError(f"the console of {self.target.name} is not open: activate {type(self).__name__}")
        return self._port

    def _open(self, member: Member) -> None:
        url = PortUrl(
            member.server,
            member.selector,
            interface=self.interface,
            reconnect=self.reconnect,
            offer=bool(self.pcap),
        )
        self._port = SerialPort(url, LineSettings(self.speed))

    def _close(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            port.close()

    def _read(self, size: int = 1, timeout: float = 0.0, max_size: int | None = None) -> bytes:
        """At least `size` bytes, at most `max_size` if that is not 0 or None. Raises pexpect's TIMEOUT, UsbipError."""
        wanted = max(size, self.port.in_waiting)
        data = self.port.read(min(wanted, max_size) if max_size else wanted, timeout)
        if not data:
            raise TIMEOUT(f"nothing came within {timeout:g} s")
        return data

    def _write(self, data: bytes) -> int:
        """How many bytes the device has taken, or will. Raises UsbipError."""
        taken = self.port.write(data, self.timeout)
        if taken < len(data):
            raise UsbipError(f"device {self.port.info} took {taken} of {len(data)} bytes within {self.timeout:g} s")
        return taken
