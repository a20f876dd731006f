"""`serial.serial_for_url("usbip://HOST/BUSID")`: a serial port of a remote device, as pyserial's programs know ports.

Ref: pyserial 3.5, documentation/pyserial_api.rst (class Serial), url_handlers.rst
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

try:
    from serial.serialutil import LF, PortNotOpenError, SerialBase, SerialException, SerialTimeoutException
except ImportError as error:
    raise ImportError(
        "usbip:// ports need pyserial, which is missing: pip install pyserial; or, where pipx has installed this, "
        "pipx inject usbip-capture pyserial"
    ) from error

if TYPE_CHECKING:
    from usbip_capture.serial_port.port import SerialPort
    from usbip_capture.serial_port.url import PortUrl
    from usbip_capture.uart.settings import LineErrors, LineSettings

_LOGGER = "usbip_capture.serial_port"


class Serial(SerialBase):
    """A port by its URL: see `usbip_capture.serial_port.url`. Errors are SerialException, with one sentence.

    line_errors: what the chip has counted: overrun, parity, framing, breaks.
    """

    # Any speed is possible; these are those that programs offer.
    BAUDRATES = (*SerialBase.BAUDRATES, 6_000_000, 8_000_000, 12_000_000)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._session: SerialPort | None = None
        super().__init__(*args, **kwargs)

    # -- opening

    def from_url(self, url: str) -> PortUrl:
        """The parts of the URL. Raises SerialException."""
        with _sentences():
            from usbip_capture.serial_port.url import PortUrl

            return PortUrl.parse(url)

    def open(self) -> None:
        """Open the port with the current settings. Raises SerialException."""
        if self.port is None:
            raise SerialException("Port must be configured before it can be used.")
        if self.is_open:
            raise SerialException("Port is already open.")
        url = self.from_url(self.port)
        if url.logging:
            logging.basicConfig()
            logging.getLogger(_LOGGER).setLevel(url.logging.upper())
        settings = self._line_settings()
        with _sentences():
            from usbip_capture.serial_port.port import SerialPort

            self._session = SerialPort(url, settings, dtr=bool(self.dtr), rts=bool(self.rts))
        self.is_open = True
        if self.break_condition:
            self._update_break_state()

    def close(self) -> None:
        """Send what was written, and release the device."""
        session, self._session = self._session, None
        self.is_open = False
        if session is not None:
            with _sentences():
                session.close()

    # -- bytes

    @property
    def in_waiting(self) -> int:
        """Bytes that can be read without waiting."""
        with _sentences():
            return self._open_session().in_waiting

    @property
    def out_waiting(self) -> int:
        """Bytes that were written, and that the device has not taken yet."""
        return self._open_session().out_waiting

    def read(self, size: int = 1) -> bytes:
        """`size` bytes, or fewer by `timeout`, `inter_byte_timeout` or `cancel_read`. Raises SerialException."""
        session = self._open_session()
        with _sentences():
            return session.read(size, self.timeout, self.inter_byte_timeout)

    def read_until(self, expected: bytes = LF, size: int | None = None) -> bytes:
        """Up to and with `expected`, at most `size` bytes, or fewer by `timeout` or `cancel_read`."""
        session = self._open_session()
        with _sentences():
            return session.read_until(expected, size, self.timeout)

    def write(self, data: Any, /) -> int:
        """Write `data`; how many bytes of it.

        With a `write_timeout`, the device has taken them when this returns, else SerialTimeoutException is raised.
        """
        session = self._open_session()
        if isinstance(data, str):
            raise TypeError(f"a serial port takes bytes: encode {data!r} first")
        raw = data if isinstance(data, bytes) else bytes(data)
        with _sentences():
            taken = session.write(raw, self.write_timeout, through=bool(self.write_timeout))
        if taken < len(raw) and self.write_timeout and not self._cancelled_write:
            raise SerialTimeoutException("Write timeout")
        self._cancelled_write = False
        return taken

    _cancelled_write = False

    def flush(self) -> None:
        """Wait until the device has taken all that was written."""
        session = self._open_session()
        try:
            with _sentences():
                session.drain()
        except SerialException as error:
            raise _FlushError(str(error)) from error

    def reset_input_buffer(self) -> None:
        """Forget what has come and was not read."""
        with _sentences():
            self._open_session().purge_input()

    def reset_output_buffer(self) -> None:
        """Drop what was written and was not sent."""
        with _sentences():
            self._open_session().purge_output()

    def cancel_read(self) -> None:
        """Have a read that waits in another thread return with what there is."""
        if self._session is not None:
            self._session.cancel_read()

    def cancel_write(self) -> None:
        """Have a write that waits in another thread return."""
        if self._session is not None:
            self._cancelled_write = True
            self._session.cancel_write()

    def fileno(self) -> int:
        """For `select`: readable while there is something to read. It is a socket, not a terminal: ENOTTY."""
        return self._open_session().fileno()

    @property
    def fd(self) -> int:
        """The same under the name that pyserial's ports have for it on POSIX; mpremote waits on it."""
        return self.fileno()

    # -- lines

    @property
    def cts(self) -> bool:
        """Clear to send."""
        with _sentences():
            return self._open_session().modem_lines().cts

    @property
    def dsr(self) -> bool:
        """Data set ready."""
        with _sentences():
            return self._open_session().modem_lines().dsr

    @property
    def ri(self) -> bool:
        """Ring indicator."""
        with _sentences():
            return self._open_session().modem_lines().ri

    @property
    def cd(self) -> bool:
        """Carrier detect."""
        with _sentences():
            return self._open_session().modem_lines().cd

    @property
    def line_errors(self) -> LineErrors:
        return self._open_session().line_errors

    def _update_rts_state(self) -> None:
        with _sentences():
            self._open_session().set_lines(rts=bool(self.rts))

    def _update_dtr_state(self) -> None:
        with _sentences():
            self._open_session().set_lines(dtr=bool(self.dtr))

    def _update_break_state(self) -> None:
        with _sentences():
            self._open_session().set_break(bool(self.break_condition))

    # -- settings

    def _reconfigure_port(self) -> None:
        session = self._open_session()
        settings = self._line_settings()
        if settings == session.settings:
            return
        try:
            with _sentences():
                session.apply(settings)
        except SerialException as error:
            if isinstance(error.__cause__, ValueError):  # pyserial's way to report what a chip cannot do
                raise error.__cause__ from error
            raise

    def set_low_latency_mode(self, low_latency_settings: bool) -> None:
        """Have the chip send at once what it has received."""
        self._low_latency = low_latency_settings
        self._reconfigure_port()

    _low_latency = False

    def _line_settings(self) -> LineSettings:
        """Raises ValueError for what no UART does."""
        if self.rs485_mode is not None:
            raise ValueError("RS-485 mode cannot be set over USB/IP: the adapter's own configuration decides")
        from usbip_capture.uart.settings import LineSettings

        return LineSettings(
            self.baudrate,
            self.bytesize,
            self.parity,
            self.stopbits,
            bool(self.rtscts),
            bool(self.dsrdtr),
            bool(self.xonxoff),
            self._low_latency,
        )

    def _open_session(self) -> SerialPort:
        if self._session is None or not self.is_open:
            raise PortNotOpenError
        return self._session


_Errors: tuple[type[Exception], ...] = (SerialException,)
try:
    import termios
except ImportError:  # Windows
    pass
else:
    _Errors = (SerialException, termios.error)


class _FlushError(*_Errors):  # type: ignore[misc]
    """Local ports raise termios.error from `flush`; pyserial-asyncio tolerates nothing else."""


@contextmanager
def _sentences() -> Iterator[None]:
    """Our errors as pyserial's; what a port cannot be set to is a ValueError there."""
    try:
        yield
    except ImportError as error:
        raise SerialException(
            f"usbip:// ports need the package {error.name}, which is missing: "
            "install usbip-capture again, in its folder: pip install '.[serial]'"
        ) from error
    except OSError:
        raise
    except Exception as error:
        if type(error).__module__ != "usbip_capture.errors":
            raise
        raise SerialException(str(error)) from error
