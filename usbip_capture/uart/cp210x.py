"""Silicon Labs CP210x: CP2101 to CP2104, CP2102N, the two ports of CP2105 and the four of CP2108.

Ref: Silicon Labs AN571 (CP210x Virtual COM Port Interface), AN205 (baud rates); CP2102N errata, CP2102N_E104
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from usbip_capture.errors import LocalProtocolError
from usbip_capture.uart.driver import Driver, Pipes, Request
from usbip_capture.uart.settings import PARITIES, STOP_BITS, XOFF, XON, LineSettings, ModemLines, check_rate
from usbip_capture.usb.setup import Setup

IFC_ENABLE, SET_LINE_CTL, SET_BREAK, SET_MHS, GET_MDMSTS = 0x00, 0x03, 0x05, 0x07, 0x08
GET_COMM_STATUS, PURGE, SET_FLOW, GET_FLOW, SET_CHARS, SET_BAUDRATE = 0x10, 0x12, 0x13, 0x14, 0x19, 0x1E
VENDOR_SPECIFIC = 0xFF
GET_PARTNUM, GET_FW_VER_2N = 0x370B, 0x0010  # wValue of VENDOR_SPECIFIC
_OUT, _IN, _DEVICE_IN = 0x41, 0xC1, 0xC0

_DTR, _RTS, _BOTH = 0x0001, 0x0002, 0x0300
_CTS, _DSR, _RI, _CD = 0x10, 0x20, 0x40, 0x80
_PURGE_TX, _PURGE_RX = 0x05, 0x0A
FLOW = Struct("<IIII")  # ulControlHandshake, ulFlowReplace, ulXonLimit, ulXoffLimit
COMM_STATUS_LENGTH = 19
_LIMIT = 128  # bytes left in the chip's buffer when the other side is asked to stop

# ulControlHandshake
DTR_MODE, DTR_ACTIVE, DTR_HANDSHAKE, CTS_HANDSHAKE, DSR_HANDSHAKE = 0x03, 0x01, 0x02, 0x08, 0x10
_WAITS_FOR = 0x78  # CTS, DSR, DCD and DSR sensitivity
# ulFlowReplace
AUTO_TRANSMIT, AUTO_RECEIVE, RTS_MODE, _RTS_ACTIVE, _RTS_HANDSHAKE = 0x01, 0x02, 0xC0, 0x40, 0x80
# ulErrors
_BREAK, _FRAMING, _OVERRUN, _QUEUE_OVERRUN, _PARITY = (1 << bit for bit in range(5))

_CP2101, _CP2102, _CP2103, _CP2104, _CP2105 = range(1, 6)
_CP2102N = (0x20, 0x21, 0x22)  # QFN28, QFN24, QFN20
_CHIPS = {
    _CP2101: "CP2101",
    _CP2102: "CP2102",
    _CP2103: "CP2103",
    _CP2104: "CP2104",
    _CP2105: "CP2105",
    8: "CP2108",
    **dict.fromkeys(_CP2102N, "CP2102N"),
}
_E104_FIRMWARE = (1, 0, 4)  # and older

# Speeds of a chip with a table, and the highest asked for that gets each. Ref: AN205, table 1
_TABLE = (
    (300, 300), (600, 600), (1200, 1200), (1800, 1800), (2400, 2400), (4000, 4000), (4800, 4803), (7200, 7207),
    (9600, 9612), (14400, 14428), (16000, 16062), (19200, 19250), (28800, 28912), (38400, 38601), (51200, 51558),
    (56000, 56280), (57600, 58053), (64000, 64111), (76800, 77608), (115200, 117028), (128000, 129347),
    (153600, 156868), (230400, 237832), (250000, 254234), (256000, 273066), (460800, 491520), (500000, 567138),
    (576000, 670254), (921600, 999999),
)  # fmt: skip


class Cp210x(Driver):
    """Modem lines and errors are asked for. The first two requests identify which chip of the family it is."""

    name = "CP210x"
    polls = True

    def __init__(self, pipes: Pipes) -> None:
        super().__init__(pipes)
        self._part = 0
        self._firmware: tuple[int, ...] = ()
        self._flow_kept = (0, 0, _LIMIT, _LIMIT)
        self._dtr = self._rts = False
        self._settings = LineSettings()

    @property
    def chip(self) -> str:
        """Which member of the family it is, as it is sold."""
        return _CHIPS.get(self._part, "CP210x")

    def identify(self) -> Sequence[Request]:
        return [Request(Setup(_DEVICE_IN, VENDOR_SPECIFIC, GET_PARTNUM, self.pipes.interface, 1), optional=True)]

    def open(self) -> Sequence[Request]:
        requests = [*super().open(), self._request(IFC_ENABLE, 1), self._read(GET_FLOW, FLOW.size, optional=True)]
        if self._part in _CP2102N:
            version = Setup(_DEVICE_IN, VENDOR_SPECIFIC, GET_FW_VER_2N, self.pipes.interface, 3)
            requests.append(Request(version, optional=True))
        return requests

    def apply(self, old: LineSettings | None, new: LineSettings) -> Sequence[Request]:
        rate = self._rate(new.baudrate)
        plain = (new.bytesize, new.stopbits) == (8, 1) and new.parity in "NOE"
        if self._part == _CP2101 and not plain:
            raise LocalProtocolError("the CP2101 has 8 data bits, 1 stop bit and parity N, O or E only")
        requests = []
        if old is None or old.baudrate != new.baudrate:
            requests.append(self._write(SET_BAUDRATE, rate.to_bytes(4, "little")))
        if old is None or old.frame != new.frame:
            frame = new.bytesize << 8 | PARITIES.index(new.parity) << 4 | STOP_BITS.index(new.stopbits)
            requests.append(self._request(SET_LINE_CTL, frame))
        self._settings = new
        if old is None or old.handshake != new.handshake:
            requests += self._handshake(new)
        return requests

    def set_lines(self, dtr: bool, rts: bool) -> Sequence[Request]:
        self._dtr, self._rts = dtr, rts
        if self.in_chip & {"rtscts", "dsrdtr"}:
            return [self._flow()]
        return [self._request(SET_MHS, _BOTH | dtr * _DTR | rts * _RTS)]

    def set_break(self, on: bool) -> Sequence[Request]:
        return [self._request(SET_BREAK, int(on))]

    def purge(self, rx: bool, tx: bool) -> Sequence[Request]:
        return [self._request(PURGE, rx * _PURGE_RX | tx * _PURGE_TX)] if rx or tx else []

    def poll(self) -> Sequence[Request]:
        return [self._read(GET_MDMSTS, 1), self._read(GET_COMM_STATUS, COMM_STATUS_LENGTH, optional=True)]

    def answered(self, request: Request, data: bytes) -> None:
        kind, value = request.setup.bRequest, request.setup.wValue
        if kind == GET_MDMSTS and data:
            self.lines = ModemLines(*(bool(data[0] & bit) for bit in (_CTS, _DSR, _RI, _CD)))
        elif kind == GET_COMM_STATUS and len(data) >= 4:
            self._errors(int.from_bytes(data[:4], "little"))
        elif kind == GET_FLOW and len(data) >= FLOW.size:
            self._flow_kept = FLOW.unpack_from(data)
        elif kind == VENDOR_SPECIFIC and value == GET_PARTNUM and data:
            self._part = data[0]
        elif kind == VENDOR_SPECIFIC and value == GET_FW_VER_2N and len(data) >= 3:
            self._firmware = tuple(data[:3])

    def close(self) -> Sequence[Request]:
        # Some CP2108 hang when they are switched off with something left in their buffers.
        return [*self.purge(True, True), self._request(IFC_ENABLE, 0)]

    def _rate(self, asked: int) -> int:
        """What to ask the chip for."""
        highest = {_CP2101: 921600, _CP2102: 1_000_000, _CP2103: 1_000_000}.get(self._part, 2_000_000)
        lowest, from_table = 300, self._part in (_CP2101, _CP2102, _CP2103)
        if self._part in _CP2102N:
            highest = 3_000_000
        if self._part == _CP2105 and self.pipes.index:  # its second port is the plainer one
            lowest, highest, from_table = 2400, 921600, True
        rate = min(max(asked, lowest), highest)
        if from_table and rate < 1_000_000:
            rate = next(speed for speed, last in _TABLE if rate <= last)
        check_rate(f"the {self.chip}", asked, rate)
        return rate

    def _handshake(self, new: LineSettings) -> list[Request]:
        if self._part in _CP2102N and () < self._firmware <= _E104_FIRMWARE:
            # These take one limit for another: flow control would stop all traffic.
            if new.rtscts or new.dsrdtr:
                raise LocalProtocolError("this CP2102N has an erratum (E104): its firmware has no RTS/CTS nor DTR/DSR")
            self.in_chip = frozenset()
            return []
        self.in_chip = frozenset(k for k in ("rtscts", "dsrdtr", "xonxoff") if getattr(new, k))
        characters = [self._write(SET_CHARS, bytes([0, 0, 0, 0, XON, XOFF]))] if new.xonxoff else []
        return [*characters, self._flow()]

    def _flow(self) -> Request:
        """Flow control and the lines that take part in it, which are one register."""
        control, replace, xon, xoff = self._flow_kept
        new = self._settings
        control &= ~(DTR_MODE | _WAITS_FOR)
        replace &= ~(RTS_MODE | AUTO_TRANSMIT | AUTO_RECEIVE)
        if self._dtr:
            control |= DTR_HANDSHAKE if new.dsrdtr else DTR_ACTIVE
        if self._rts:
            replace |= _RTS_HANDSHAKE if new.rtscts else _RTS_ACTIVE
        control |= new.rtscts * CTS_HANDSHAKE | new.dsrdtr * DSR_HANDSHAKE
        if new.xonxoff:
            replace |= AUTO_TRANSMIT | AUTO_RECEIVE
            xon = xoff = _LIMIT
        return self._write(SET_FLOW, FLOW.pack(control, replace, xon, xoff))

    def _errors(self, errors: int) -> None:
        self.errors.breaks += bool(errors & _BREAK)
        self.errors.framing += bool(errors & _FRAMING)
        self.errors.overrun += bool(errors & (_OVERRUN | _QUEUE_OVERRUN))
        self.errors.parity += bool(errors & _PARITY)

    def _request(self, request: int, value: int) -> Request:
        return Request(Setup(_OUT, request, value, self.pipes.interface, 0))

    def _write(self, request: int, data: bytes) -> Request:
        return Request(Setup(_OUT, request, 0, self.pipes.interface, len(data)), data)

    def _read(self, request: int, length: int, optional: bool = False) -> Request:
        return Request(Setup(_IN, request, 0, self.pipes.interface, length), optional=optional)
