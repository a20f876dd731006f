"""The built-in demo: a composite device that Wireshark decodes as CDC-ACM and HID, on a server of its own.

Interfaces 0 and 1: a serial port; the device prints its uptime each second and echoes what it gets.
Interface 2: a keyboard that types `usbip` over and over.
Interface 3: vendor specific. Alternate setting 0: bulk OUT 0x04 comes back at bulk IN 0x84. Alternate setting 1:
isochronous OUT 0x05 comes back at isochronous IN 0x85. Vendor request 0x10 stores data (OUT) and returns it (IN);
any other one stalls.

It also has a log, which reports the same events (see `demo_log`).
"""

from __future__ import annotations

import socket
import threading
import time
from itertools import cycle

from usbip_capture.demo.log import DemoLog
from usbip_capture.server import Server
from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.system.timetable import Timetable
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.setup import Setup
from usbip_capture.usb.urb import Completion, Urb

BUSID = "1-1"
CDC_NOTIFY, CDC_IN, CDC_OUT, KEYS_IN = 0x81, 0x82, 0x02, 0x83
BULK_OUT, BULK_IN, ISO_OUT, ISO_IN = 0x04, 0x84, 0x05, 0x85

# pid.codes' identity for tests
_DEVICE = bytes.fromhex("12 01 1002 ef 02 01 40 0912 0100 0001 01 02 03 01")

_INTERFACES = bytes.fromhex(
    # serial port: association, communications interface with its functional descriptors, data interface
    "08 0b 00 02 02 02 01 04"
    "09 04 00 00 01 02 02 01 04"
    "05 24 00 2001"  # header, CDC 1.20
    "05 24 01 00 01"  # call management
    "04 24 02 06"  # ACM: line coding, break
    "05 24 06 00 01"  # union of interfaces 0 and 1
    "07 05 81 03 1000 09"
    "09 04 01 00 02 0a 00 00 00"
    "07 05 82 02 0002 00"
    "07 05 02 02 0002 00"
    # boot keyboard
    "09 04 02 00 01 03 01 01 05"
    "09 21 1101 00 01 22 3f00"
    "07 05 83 03 0800 07"
    # vendor specific, two alternate settings
    "09 04 03 00 02 ff 00 00 06"
    "07 05 04 02 0002 00"
    "07 05 84 02 0002 00"
    "09 04 03 01 02 ff 00 00 06"
    "07 05 05 05 4000 04"
    "07 05 85 05 4000 04"
)
_CONFIGURATION = (
    b"\x09\x02" + (9 + len(_INTERFACES)).to_bytes(2, "little") + bytes.fromhex("04 01 00 c0 32") + _INTERFACES
)
# USB 2.0 extension without link power management
_BOS = bytes.fromhex("05 0f 0c00 01  07 10 02 00000000")
# Ref: HID 1.11, appendix B.1 (boot keyboard)
_KEYBOARD_REPORT = bytes.fromhex(
    "0501 0906 a101 0507 19e0 29e7 1500 2501 7501 9508 8102 9501 7508 8101"
    "9505 7501 0508 1901 2905 9102 9501 7503 9101 9506 7508 1500 2565 0507 1900 2965 8100 c0"
)
DESCRIPTORS = Descriptors(
    _DEVICE,
    [_CONFIGURATION],
    ["usbip_capture", "Demo device", "DEMO0001", "Demo serial port", "Demo keyboard", "Demo loopback"],
    _BOS,
    {2: _KEYBOARD_REPORT},
)
INFO: DeviceInfo = DESCRIPTORS.info(BUSID, 1, 2, Speed.HIGH)

# bmRequestType and bRequest. Ref: USB 2.0, 9.4.7 and 9.4.10
_SET_CONFIGURATION, _SET_INTERFACE = (0x00, 9), (0x01, 11)
# CDC requests. Ref: CDC 1.2, table 19; PSTN 1.2, table 13
_SET_LINE_CODING, _GET_LINE_CODING, _SET_CONTROL_LINE_STATE, _SEND_BREAK = 0x20, 0x21, 0x22, 0x23
_SERIAL_STATE = bytes.fromhex("a120 0000 0000 0200")
# HID requests. Ref: HID 1.11, 7.2
_GET_REPORT, _GET_IDLE, _GET_PROTOCOL, _SET_REPORT, _SET_IDLE, _SET_PROTOCOL = 1, 2, 3, 9, 10, 11
_VENDOR_STORE = 0x10
_KEY_PERIOD = 0.125
_UPTIME_PERIOD = 1.0


class DemoDevice(SimulatedDevice):
    """The composite device, from one import to its end."""

    def __init__(self, info: DeviceInfo = INFO, log: DemoLog | None = None) -> None:
        super().__init__(info, DESCRIPTORS)
        self._log = log or DemoLog()
        self._log.write("I", "usb", "imported by a host")
        self._started = time.monotonic()
        self._line_coding = bytes.fromhex("00c20100 00 00 08")  # 115200 8N1
        self._stored = b""
        usages = {letter: ord(letter) - ord("a") + 4 for letter in "usbip"}
        self._reports = cycle(bytes([0, 0, code]).ljust(8, b"\0") for letter in "usbip" for code in (usages[letter], 0))
        self._last_report = bytes(8)
        self.timetable.every(_KEY_PERIOD, self._type)
        self.timetable.every(_UPTIME_PERIOD, self._write_uptime)

    def close(self) -> None:
        super().close()
        self._log.write("I", "usb", "released by the host")

    def _control(self, urb: Urb) -> Completion:
        completion = super()._control(urb)
        setup = Setup.unpack(urb.setup)
        if completion.status:
            self._log.write("W", "usb", f"request {urb.setup.hex(' ')} is not supported: stalled")
        elif (setup.bmRequestType, setup.bRequest) == _SET_CONFIGURATION:
            self._log.write("I", "usb", f"configuration {setup.wValue}")
        elif (setup.bmRequestType, setup.bRequest) == _SET_INTERFACE:
            self._log.write("I", "usb", f"interface {setup.wIndex}, alternate setting {setup.wValue}")
        return completion

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        kind, request = setup.bmRequestType, setup.bRequest
        if request == _VENDOR_STORE and kind in (0x40, 0xC0):
            if kind == 0x40:
                self._stored = data
            return self._stored
        if setup.wIndex == 0 and kind in (0x21, 0xA1):
            return self._serial(setup, data)
        if setup.wIndex == 2 and kind in (0x21, 0xA1):
            return self._keyboard(setup)
        return None

    def received(self, address: int, data: bytes) -> None:
        back = {CDC_OUT: CDC_IN, BULK_OUT: BULK_IN, ISO_OUT: ISO_IN}[address]
        self.loop_back(address, back, data)

    def _serial(self, setup: Setup, data: bytes) -> bytes | None:
        if setup.bRequest == _GET_LINE_CODING:
            return self._line_coding
        if setup.bRequest == _SET_LINE_CODING and len(data) == 7:
            self._line_coding = data
            return b""
        if setup.bRequest == _SET_CONTROL_LINE_STATE:
            # Carrier and data set ready follow the host's DTR.
            self._log.write("I", "serial", f"DTR {'on' if setup.wValue & 1 else 'off'}")
            self.feed(CDC_NOTIFY, _SERIAL_STATE + bytes([3 if setup.wValue & 1 else 0, 0]))
            return b""
        return b"" if setup.bRequest == _SEND_BREAK else None

    def _keyboard(self, setup: Setup) -> bytes | None:
        answers = {
            _GET_REPORT: self._last_report,
            _GET_IDLE: b"\0",
            _GET_PROTOCOL: b"\1",
            _SET_REPORT: b"",
            _SET_IDLE: b"",
            _SET_PROTOCOL: b"",
        }
        return answers.get(setup.bRequest)

    def _type(self) -> None:
        # Keys that nobody reads are not kept: a keyboard has no memory.
        if self.waits_for_data(KEYS_IN):
            self._last_report = next(self._reports)
            if code := self._last_report[2]:
                self._log.write("I", "keyboard", f"key {chr(code - 4 + ord('a'))}")
            self.feed(KEYS_IN, self._last_report)

    def _write_uptime(self) -> None:
        if self.waits_for_data(CDC_IN):
            uptime = time.monotonic() - self._started
            self._log.write("I", "serial", f"uptime {uptime:.0f} s")
            self.feed(CDC_IN, f"demo: uptime {uptime:.0f} s\r\n".encode())


class DemoServer(Server):
    """A server that exports the demo device, and has its log."""

    def __init__(self) -> None:
        super().__init__()
        self.log = DemoLog()
        self._pulse: Timetable | None = None
        self.add(INFO, lambda: DemoDevice(log=self.log))

    def connect(self) -> socket.socket:
        """A connection within this process. Raises UsbipError if no thread can be had."""
        ours, theirs = socket.socketpair()
        try:
            self.serve_socket(theirs)
        except BaseException:
            ours.close()
            raise
        return ours

    def connect_log(self) -> socket.socket:
        """A connection within this process to the device's log."""
        self._start_pulse()
        return self.log.connect()

    def listen_log(self, address: str, port: int) -> tuple[str, int]:
        """Offer the device's log; the address and port that are really used. Raises CannotListen."""
        self._start_pulse()
        return self.log.listen(address, port)

    def close(self) -> None:
        super().close()
        if self._pulse is not None:
            self._pulse.close()
        self.log.close()

    def _start_pulse(self) -> None:
        """A sign of life each second, so that the log has lines when nobody uses the device, too."""
        if self._pulse is None:
            self._pulse = Timetable("usb-demo-log")
            self._pulse.every(_UPTIME_PERIOD, lambda: self.log.write("D", "main", "alive"))


_server: DemoServer | None = None
_starting = threading.Lock()


def connect_demo() -> socket.socket:
    """A connection to this process's own demo server, which is started when first needed."""
    return _demo_server().connect()


def connect_demo_log() -> socket.socket:
    """A connection to the log of this process's own demo server."""
    return _demo_server().connect_log()


def _demo_server() -> DemoServer:
    global _server  # noqa: PLW0603  one for the process: a device lent once is in use for all others
    with _starting:
        if _server is None:
            _server = DemoServer()
        return _server
