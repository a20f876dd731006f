"""`SerialPort`: one open serial port of a remote device, for programs of any kind.

The device's own thread receives, whatever the program does; the program's threads send. Bytes wait in between, see
`inbox` and `outbox`. All errors are of the UsbipError family.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack

from usbip_capture.device import Device
from usbip_capture.errors import ServerLost, UsbipError
from usbip_capture.serial_port import controls
from usbip_capture.serial_port.adapter import Adapter, PortUser
from usbip_capture.serial_port.adapters import take_port
from usbip_capture.serial_port.capture import SharedCapture, captured
from usbip_capture.serial_port.flow import Flow
from usbip_capture.serial_port.inbox import Inbox
from usbip_capture.serial_port.lines import ControlLines
from usbip_capture.serial_port.outbox import Outbox
from usbip_capture.serial_port.port_log import PortLog
from usbip_capture.serial_port.streams import InStream
from usbip_capture.serial_port.url import PortUrl
from usbip_capture.system.at_exit import close_at_exit
from usbip_capture.uart.driver import Driver
from usbip_capture.uart.ports import Port
from usbip_capture.uart.settings import LineErrors, LineSettings, ModemLines
from usbip_capture.usb.descriptors import ConfigurationDescriptor, DeviceDescriptor
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.urb import Buffer

log = logging.getLogger(__name__)

#: Bytes of one IN transfer, and how many are in flight.
_IN_SIZE, _IN_DEPTH = 4096, 8
#: Seconds without progress after which `close` drops what the device does not take.
_DRAIN_AT_CLOSE = 2.0


class SerialPort(PortUser):
    """The port that `url` means, open with `settings` and these states of DTR and RTS.

    on_lines: called, on the device's thread, when modem lines may have changed.
    Raises UsbipError when it cannot be opened.
    """

    def __init__(
        self,
        url: PortUrl,
        settings: LineSettings | None = None,
        *,
        dtr: bool = True,
        rts: bool = True,
        on_lines: Callable[[], None] | None = None,
    ) -> None:
        self.url = url
        self._settings = settings or LineSettings()
        self._on_lines = on_lines
        self._flow = Flow()
        self._inbox = Inbox(self._on_room)
        self._outbox = Outbox(self._flow.stopped, self._on_stall)
        self._lines = ControlLines(self._send_lines)
        self._lines.start(dtr, rts)
        self._break = self._driven = False
        self._streams: list[InStream] = []
        self._adapter: Adapter | None = None
        self._device: Device | None = None
        self._driver: Driver | None = None
        self._interface = 0
        self._error: UsbipError | None = None
        self._closed = False
        self._closing = threading.Lock()
        self._lock = threading.RLock()  # settings and lines, in their order
        if url.offer:
            from usbip_capture.offering.program import program_offer

            program_offer(url.hindsight)
        self._capture = SharedCapture.open(url.pcap) if url.pcap else None
        self._log: PortLog | None = None
        try:
            take_port(url, lambda device: captured(device, url, self._capture), self._take)
            if url.syslog:
                self._log = PortLog(url.server, url.syslog, self._capture.writer if self._capture else None)
        except BaseException:
            self.close()
            raise
        close_at_exit(self)

    # -- what the port is

    @property
    def info(self) -> DeviceInfo:
        """The device, as it was imported last. Raises UsbipError while there is none."""
        return self._present()[0].info

    @property
    def interface(self) -> int:
        """bInterfaceNumber of the port."""
        return self._interface

    @property
    def serial_number(self) -> str:
        """The device's, empty if it has none."""
        return self._adapter.serial if self._adapter is not None else ""

    @property
    def descriptors(self) -> tuple[DeviceDescriptor, ConfigurationDescriptor]:
        """The device's, and those of its active configuration. Raises UsbipError while there is none."""
        self._present()
        adapter = self._adapter
        assert adapter is not None
        return adapter.descriptor, adapter.configuration

    @property
    def chip(self) -> str:
        """What kind of adapter it is, such as CDC-ACM."""
        return self._driver.name if self._driver is not None else ""

    @property
    def error(self) -> UsbipError | None:
        """Why the device is gone for good."""
        return self._error

    # -- bytes

    @property
    def in_waiting(self) -> int:
        """Bytes that can be read without waiting. Raises UsbipError when none are left and the device is gone."""
        waiting = len(self._inbox)
        if not waiting and self._error is not None:
            raise self._error
        return waiting

    @property
    def out_waiting(self) -> int:
        """Bytes that were written, and that the device has not taken yet."""
        return len(self._outbox)

    def read(self, size: int, timeout: float | None = None, inter_byte: float | None = None) -> bytes:
        """See `Inbox.read`."""
        return self._inbox.read(size, timeout, inter_byte)

    def read_until(self, expected: bytes, size: int | None = None, timeout: float | None = None) -> bytes:
        """See `Inbox.read_until`."""
        return self._inbox.read_until(expected, size, timeout)

    def write(self, data: Buffer, timeout: float | None = None, *, through: bool = False) -> int:
        """See `Outbox.write`."""
        self._lines.flush()
        return self._outbox.write(data, timeout, through=through)

    def drain(self, timeout: float | None = None) -> bool:
        """See `Outbox.drain`."""
        self._lines.flush()
        return self._outbox.drain(timeout)

    def purge_input(self) -> None:
        """Forget what has come and was not read, in the chip too."""
        self._run_purge(rx=True, tx=False)
        self._inbox.clear()

    def purge_output(self) -> None:
        """Drop what was written and the device has not taken, in the chip too."""
        self._outbox.purge()
        self._flow.release()
        self._run_purge(rx=False, tx=True)

    def cancel_read(self) -> None:
        """See `Inbox.cancel`."""
        self._inbox.cancel()

    def cancel_write(self) -> None:
        """See `Outbox.cancel`."""
        self._outbox.cancel()

    def fileno(self) -> int:
        """See `Inbox.fileno`."""
        return self._inbox.fileno()

    # -- the line

    @property
    def settings(self) -> LineSettings:
        """What was applied last."""
        return self._settings

    def apply(self, settings: LineSettings) -> None:
        """Set the line; nothing is sent for what stays. Raises LocalProtocolError for what the chip cannot do."""
        with self._lock:
            if settings == self._settings:
                return
            self._lines.flush()
            if self._device is not None and self._driver is not None:
                requests = self._driver.apply(self._settings, settings)
                controls.run(self._device, self._driver, requests)
                self._flow.adopt(self._driver, settings)
            elif self._error is not None:
                raise self._error
            self._settings = settings
        self._outbox.pump()

    def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Drive these lines; both at once when both are given, or when the other one follows within 2 ms."""
        if self._error is not None:
            raise self._error
        for name, value in (("dtr", dtr), ("rts", rts)):
            if value is not None:
                self._lines.set(name, value)
        if dtr is not None and rts is not None:
            self._lines.flush()

    def set_break(self, on: bool) -> None:
        """Begin or end a break, after all that was written."""
        device, driver = self._present()
        if on:
            self._outbox.drain(_DRAIN_AT_CLOSE)
        self._lines.flush()
        with self._lock:
            self._break = on
            controls.run(device, driver, driver.set_break(on))

    def modem_lines(self) -> ModemLines:
        """CTS, DSR, RI and CD as the device last reported. Raises UsbipError when it is gone.

        It is asked when it does not notify, and after DTR or RTS were driven: they may be wired to the others.
        """
        if self._error is not None:
            raise self._error
        device, driver = self._device, self._driver
        if device is None or driver is None:
            return ModemLines()
        self._lines.flush()
        if driver.polls or self._driven:
            with self._lock:
                self._driven = False
                controls.run(device, driver, driver.poll())
        return driver.lines

    @property
    def line_errors(self) -> LineErrors:
        """What the chip has reported since the port was opened, or since it is back."""
        return self._driver.errors if self._driver is not None else LineErrors()

    # -- the end

    def close(self) -> None:
        """Send what was written, as long as the device takes it, and release the port. May be called again.

        Raises CaptureError if the capture could not be written.
        """
        if not self._closing.acquire(blocking=False):
            return
        self._closed = True
        with ExitStack() as rest:  # whatever a step raises, Ctrl-C too
            for owned in (self._capture, self._log):
                if owned is not None:
                    rest.callback(owned.close)
            if self._adapter is not None:
                rest.callback(self._adapter.release, self)
            rest.callback(self._inbox.close)
            rest.callback(self._outbox.close)
            self._switch_off()

    def _switch_off(self) -> None:
        device, driver = self._device, self._driver
        if device is not None and driver is not None and self._error is None:
            try:
                if not self._flow.stopped():
                    self._outbox.drain(_DRAIN_AT_CLOSE)
            except UsbipError as error:
                log.debug("closing: %s", error)
        self._lines.close()
        if device is not None and driver is not None and device.alive:
            for stream in self._streams:
                stream.stop()
            self._outbox.close()
            controls.run(device, driver, driver.close(), quiet=True)

    # -- called by the adapter

    def attached(self, device: Device, port: Port) -> None:
        if self._closed:
            return
        driver = port.driver()
        controls.run(device, driver, driver.identify())
        dtr, rts = self._lines.dtr, self._lines.rts
        requests = [*driver.open(), *driver.apply(None, self._settings), *driver.set_lines(dtr, rts), *driver.poll()]
        controls.run(device, driver, requests)
        with self._lock:
            self._interface = port.interface
            self._flow.adopt(driver, self._settings)
            self._flow.release()
            self._device, self._driver = device, driver
            self._lines.start(dtr, rts)
        self._start_reading(device, driver, port)
        self._outbox.attach(device, port.pipes.bulk_out.address)

    def detached(self, reason: str) -> None:
        with self._lock:
            self._device = self._driver = None
        self._streams = []
        self._outbox.attach(None)

    def lost(self, reason: str) -> None:
        name = f"device {self._adapter.device.info}" if self._adapter is not None else ""
        self._error = error = ServerLost(reason if name in reason else f"{name} is lost: {reason}")
        self._inbox.fail(error)
        self._outbox.fail(error)

    # -- how it works

    def _take(self, adapter: Adapter, port: Port) -> None:
        adapter.users[port.interface] = self
        self._adapter, self._interface = adapter, port.interface
        try:
            self.attached(adapter.device, port)
        except BaseException:
            self._adapter = None
            raise

    def _start_reading(self, device: Device, driver: Driver, port: Port) -> None:
        def ended(reason: str) -> None:
            if self._adapter is not None:
                self._adapter.device_lost(device, reason)

        def received(data: bytes) -> bool:
            before, stopped = driver.lines, self._flow.stopped()
            data = self._flow.received(driver.received(data))
            if driver.lines != before:
                self._lines_changed()
            elif stopped and not self._flow.stopped():
                self._outbox.pump()
            room = self._inbox.put(data)
            if not room:
                self._signal_other_side(full=True)
            return room

        def notified(data: bytes) -> bool:
            driver.notified(data)
            self._lines_changed()
            return True

        pipes = port.pipes
        streams = [InStream(device, pipes.bulk_in, _IN_SIZE, _IN_DEPTH, received, ended)]
        if pipes.notify is not None:
            # Losing the notification endpoint must not stop bulk reads.
            streams.append(InStream(device, pipes.notify, pipes.notify.packet_size, 2, notified, log.info))
        self._streams = streams
        for stream in streams:
            stream.start()

    def _lines_changed(self) -> None:
        self._outbox.pump()
        if self._on_lines is not None:
            self._on_lines()

    def _on_room(self) -> None:
        self._signal_other_side(full=False)
        for stream in self._streams:
            stream.resume()

    def _signal_other_side(self, full: bool) -> None:
        if byte := self._flow.hold(full):
            self._outbox.urgent(byte)

    def _on_stall(self, endpoint: int) -> None:
        device = self._device
        if device is not None:
            controls.send_clear_halt(device, endpoint)

    def _send_lines(self, dtr: bool, rts: bool) -> None:
        device, driver = self._device, self._driver
        if device is not None and driver is not None:
            self._driven = True
            controls.send(device, driver.set_lines(dtr, rts))

    def _run_purge(self, rx: bool, tx: bool) -> None:
        device, driver = self._device, self._driver
        if device is None or driver is None:
            return
        requests = driver.purge(rx, tx)
        if requests:
            with self._lock:
                controls.run(device, driver, requests)

    def _present(self) -> tuple[Device, Driver]:
        if self._error is not None:
            raise self._error
        device, driver = self._device, self._driver
        if device is None or driver is None:
            raise ServerLost(f"{self.url.device} of {self.url.server} is disconnected; waiting for it to come back")
        return device, driver
