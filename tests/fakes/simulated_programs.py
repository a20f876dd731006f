"""Simulated devices for real programs: a USBTMC instrument, a device in DFU mode, a serial adapter of FTDI.

Ref: USB Test and Measurement Class 1.0; USB Device Firmware Upgrade 1.1; Linux drivers/usb/serial/ftdi_sio.h
"""

from __future__ import annotations

import struct

from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.setup import Setup

_INSTRUMENT = Descriptors(
    bytes.fromhex("12 01 0002 00 00 00 40 0912 1000 0001 01 02 03 01"),
    [
        bytes.fromhex(
            "09 02 2700 01 01 00 c0 32"
            "09 04 00 00 03 fe 03 01 00"
            "07 05 01 02 0002 00  07 05 82 02 0002 00  07 05 83 03 0800 07"
        )
    ],
    ["usbip_capture", "Simulated instrument", "TMC0001"],
)
INSTRUMENT: DeviceInfo = _INSTRUMENT.info("1-1", 1, 5, Speed.HIGH)
IDENTITY = b"usbip_capture,simulated,TMC0001,1.0\n"

# MsgID, table 2; status, table 16; control requests, table 15
_DEV_DEP_MSG_OUT, _REQUEST_DEV_DEP_MSG_IN = 1, 2
_STATUS_SUCCESS = 1
_INITIATE_CLEAR, _CHECK_CLEAR_STATUS, _GET_CAPABILITIES = 5, 6, 7
_EOM = 1


class Instrument(SimulatedDevice):
    """Answers `*IDN?` and repeats every other query."""

    def __init__(self) -> None:
        super().__init__(INSTRUMENT, _INSTRUMENT)
        self.commands: list[bytes] = []
        self._answer = b""

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        if setup.bRequest == _GET_CAPABILITIES:
            return struct.pack("<BBHBB6xHBB8x", _STATUS_SUCCESS, 0, 0x0100, 0, 0, 0x0100, 4, 1)
        if setup.bRequest in (_INITIATE_CLEAR, _CHECK_CLEAR_STATUS):
            return bytes([_STATUS_SUCCESS, 0])
        return None

    def received(self, address: int, data: bytes) -> None:
        kind, tag, _, size = struct.unpack_from("<BBBxI", data)
        if kind == _DEV_DEP_MSG_OUT:
            command = data[12 : 12 + size].strip()
            self.commands.append(command)
            if command.endswith(b"?"):
                self._answer = IDENTITY if command == b"*IDN?" else command + b"\n"
        elif kind == _REQUEST_DEV_DEP_MSG_IN:
            piece, self._answer = self._answer[:size], self._answer[size:]
            attributes = 0 if self._answer else _EOM
            head = struct.pack("<BBBxIB3x", kind, tag, ~tag & 0xFF, len(piece), attributes)
            self.feed(0x82, head + piece + bytes(-len(piece) % 4))


_MODEM = Descriptors(
    bytes.fromhex("12 01 0002 02 00 00 40 0912 0300 0001 01 02 03 01"),
    [
        bytes.fromhex(
            "09 02 4300 02 01 00 c0 32"
            "09 04 00 00 01 02 02 01 00"
            "05 24 00 1001  05 24 01 00 01  04 24 02 02  05 24 06 00 01"
            "07 05 83 03 0800 10"
            "09 04 01 00 02 0a 00 00 00"
            "07 05 02 02 4000 00  07 05 81 02 4000 00"
        )
    ],
    ["usbip_capture", "Simulated modem", "CDC0001"],
)
MODEM: DeviceInfo = _MODEM.info("1-4", 1, 8, Speed.FULL)


class Modem(SimulatedDevice):
    """A serial port of class CDC-ACM, and no more than that; what is sent comes back."""

    def __init__(self) -> None:
        super().__init__(MODEM, _MODEM)

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        return b""

    def received(self, address: int, data: bytes) -> None:
        self.feed(0x81, data)


_DFU = Descriptors(
    bytes.fromhex("12 01 0002 00 00 00 40 0912 11df 0001 01 02 03 01"),
    [
        bytes.fromhex(
            "09 02 1b00 01 01 00 c0 32"
            "09 04 00 00 00 fe 01 02 00"
            "09 21 07 ff00 0004 1001"  # download, upload, manifestation tolerant; 1024 bytes a block; DFU 1.1
        )
    ],
    ["usbip_capture", "Simulated DFU device", "DFU0001"],
)
DFU: DeviceInfo = _DFU.info("1-2", 1, 6, Speed.FULL)

# Requests, table 3.2; states, 6.1.2
_DNLOAD, _UPLOAD, _GETSTATUS, _CLRSTATUS, _GETSTATE, _ABORT = 1, 2, 3, 4, 5, 6
_IDLE, _DNLOAD_SYNC, _DNLOAD_IDLE, _MANIFEST_SYNC, _UPLOAD_IDLE = 2, 3, 5, 6, 9


class DfuDevice(SimulatedDevice):
    """Keeps the firmware that is downloaded, and returns it."""

    firmware = b""

    def __init__(self) -> None:
        super().__init__(DFU, _DFU)
        self._state = _IDLE
        self._loading = b""
        self._sent = 0

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        request = setup.bRequest
        if request == _DNLOAD:
            return self._download(data)
        if request == _UPLOAD:
            piece = type(self).firmware[self._sent : self._sent + setup.wLength]
            self._sent += len(piece)
            self._state = _UPLOAD_IDLE if len(piece) == setup.wLength else _IDLE
            return piece
        if request == _GETSTATUS:
            self._state = {_DNLOAD_SYNC: _DNLOAD_IDLE, _MANIFEST_SYNC: _IDLE}.get(self._state, self._state)
            return bytes([0, 0, 0, 0, self._state, 0])
        if request == _GETSTATE:
            return bytes([self._state])
        if request in (_CLRSTATUS, _ABORT):
            self._state, self._sent = _IDLE, 0
            return b""
        return None

    def _download(self, data: bytes) -> bytes:
        if data:
            self._loading = data if self._state == _IDLE else self._loading + data
            self._state = _DNLOAD_SYNC
        else:
            type(self).firmware, self._state = self._loading, _MANIFEST_SYNC
        return b""


_FTDI = Descriptors(
    bytes.fromhex("12 01 0002 00 00 00 08 0304 1560 0010 01 02 03 01"),
    [bytes.fromhex("09 02 2000 01 01 00 a0 2d09 04 00 00 02 ff ff ff 0207 05 81 02 4000 00  07 05 02 02 4000 00")],
    ["FTDI", "Simulated FT-X", "FT000001"],
)
FTDI: DeviceInfo = _FTDI.info("1-3", 1, 7, Speed.FULL)
_GET_MODEM_STATUS, _GET_LATENCY_TIMER = 5, 10
_MODEM_STATUS = bytes([0x01, 0x60])


class FtdiAdapter(SimulatedDevice):
    """Repeats what it gets; each packet begins with two bytes of status, and comes empty when there is nothing."""

    def __init__(self) -> None:
        super().__init__(FTDI, _FTDI)
        self.requests: list[Setup] = []
        self.timetable.every(0.016, self._report)

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        self.requests.append(setup)
        return {_GET_MODEM_STATUS: _MODEM_STATUS, _GET_LATENCY_TIMER: b"\x10"}.get(setup.bRequest, b"")

    def received(self, address: int, data: bytes) -> None:
        for at in range(0, len(data), 62):
            self.feed(0x81, _MODEM_STATUS + data[at : at + 62])

    def _report(self) -> None:
        if self.waits_for_data(0x81):
            self.feed(0x81, _MODEM_STATUS)
