"""`SerialConnection`: requests to one serial device, and its answers."""

from __future__ import annotations

import time
from collections.abc import Callable

from usbip_capture.errors import ResponseTimeout, UsbipError
from usbip_capture.serial_port.port import SerialPort
from usbip_capture.serial_port.url import PortUrl
from usbip_capture.uart.settings import LineSettings
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.urb import Buffer

#: Seconds for an answer, and for taking a request, when nothing else is given.
RESPONSE_TIMEOUT = 0.25
SEND_TIMEOUT = 5.0
_RETRY_INTERVAL = 0.1


class SerialConnection:
    """An attached device. delimiter: what ends an answer of unknown size. port: for all else, see SerialPort.

    Methods raise UsbipError; once the device is gone, `restore` brings it back.
    """

    def __init__(self, url: PortUrl, settings: LineSettings, on_close: Callable[[SerialConnection], None]) -> None:
        self.delimiter = b"\r\n"
        self._url = url
        self._on_close = on_close
        self.port = SerialPort(url, settings)
        self._info, self._serial = self.port.info, self.port.serial_number

    def __repr__(self) -> str:
        return f"<SerialConnection {self._info} at {self._url.server}>"

    @property
    def info(self) -> DeviceInfo:
        """The device, as it was attached last."""
        return self._info

    @property
    def busid(self) -> str:
        """Where the device is at its server."""
        return self._info.busid

    @property
    def serial_number(self) -> str:
        """The device's, empty if it has none."""
        return self._serial

    def sendall(self, data: Buffer) -> None:
        """Send a request; it is on its way when this returns. Raises ResponseTimeout if the device takes none."""
        taken = self.port.write(data, SEND_TIMEOUT)
        if taken < len(data):
            raise ResponseTimeout(f"device {self._info} took {taken} of {len(data)} bytes within {SEND_TIMEOUT:g} s")

    def response_data(self, size: int = 0, timeout: float = RESPONSE_TIMEOUT) -> bytes:
        """The next `size` bytes; 0: up to and with the delimiter. `timeout` in seconds.

        Raises ResponseTimeout with what has come.
        """
        if size:
            data = self.port.read(size, timeout)
            complete = len(data) == size
        else:
            data = self.port.read_until(self.delimiter, None, timeout)
            complete = bool(self.delimiter) and data.endswith(self.delimiter)
        if not complete:
            wanted = f"{size} bytes" if size else repr(self.delimiter)
            raise ResponseTimeout(
                f"device {self._info} sent {len(data)} bytes within {timeout:g} s, and not {wanted}", data
            )
        return data

    def discard(self) -> None:
        """Forget what has come and was not read."""
        self.port.purge_input()

    def restore(self, within: float = 10.0) -> None:
        """Attach the device anew, also one that is not lost; try for `within` seconds. Raises UsbipError."""
        deadline = time.monotonic() + within
        settings = self.port.settings
        self.port.close()
        while True:
            try:
                self.port = SerialPort(self._url, settings)
                break
            except UsbipError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_INTERVAL)
        self._info, self._serial = self.port.info, self.port.serial_number

    def close(self) -> None:
        """Release the device. May be called again."""
        self.port.close()
        self._on_close(self)

    def __enter__(self) -> SerialConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
