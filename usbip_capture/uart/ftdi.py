"""FTDI: FT232, FT2232, FT4232, FT230X and their relatives.

Each packet from the chip, not each transfer, begins with two status bytes. The chip sends a packet when it is full,
when its latency timer is over, or when a modem line changes.

Ref: FTDI AN232B-05 (baud rates), AN232B-04 (latency timer), D2XX Programmer's Guide; Linux drivers/usb/serial/
ftdi_sio.h, where the requests and status bytes are described
"""

from __future__ import annotations

from collections.abc import Sequence

from usbip_capture.errors import LocalProtocolError
from usbip_capture.uart.driver import Driver, Pipes, Request
from usbip_capture.uart.settings import PARITIES, STOP_BITS, XOFF, XON, LineSettings, ModemLines, check_rate
from usbip_capture.usb.setup import Setup

RESET, MODEM_CTRL, SET_FLOW_CTRL, SET_BAUD_RATE, SET_DATA, GET_MODEM_STATUS = range(6)
SET_LATENCY_TIMER = 9
_OUT, _IN = 0x40, 0xC0
# Measured on chips by libftdi's authors: RX and TX in the old names of these are the chip's, not the host's.
# Ref: libftdi 1.5, ChangeLog and ftdi.h (SIO_TCIFLUSH, SIO_TCOFLUSH)
PURGE_RX, PURGE_TX = 2, 1

# Modem control: the upper byte selects which lines the lower one sets.
_DTR, _RTS, _BOTH = 1, 2, 0x0300
_FLOW = {"rtscts": 0x0100, "dsrdtr": 0x0200, "xonxoff": 0x0400}
_BREAK = 1 << 14
LATENCY_MS, LOW_LATENCY_MS = 16, 1

# First status byte; second status byte
_CTS, _DSR, _RI, _CD = 0x10, 0x20, 0x40, 0x80
_OVERRUN, _PARITY, _FRAMING, _BREAK_SEEN = 0x02, 0x04, 0x08, 0x10
_ERRORS = _OVERRUN | _PARITY | _FRAMING | _BREAK_SEEN
STATUS_LENGTH = 2

# bcdDevice
_AM, _BM, _2232C, _R, _X = 0x0200, 0x0400, 0x0500, 0x0600, 0x1000
ONE_CHANNEL = (_AM, _BM, _R)  # their requests carry no channel
_FULL_SPEED = (*ONE_CHANNEL, _2232C, _X)  # 3 MHz clock; all others have 12 MHz too
_CLOCK, _HIGH_SPEED_CLOCK = 3_000_000, 12_000_000
_LOWEST_HIGH_SPEED = 1200
_HIGH_SPEED = 1 << 17

# Code of each number of eighths in the divisor; the oldest chip knows four of them.
EIGHTHS = (0, 3, 2, 4, 1, 5, 6, 7)
_AM_EIGHTHS = (0, 1, 2, 4)
_LONGEST = 0x3FFF * 8 + 7


class Ftdi(Driver):
    """Seven or eight data bits. The chip does one kind of flow control at a time: the first that is asked for."""

    name = "FTDI"
    # As ftdi_sio sends them. Ref: Wireshark epan/dissectors/packet-ftdi-ft.c, which knows the last request only
    one_at_a_time = True

    def __init__(self, pipes: Pipes) -> None:
        super().__init__(pipes)
        self._channel = 0 if pipes.bcdDevice in ONE_CHANNEL else pipes.interface + 1
        self._packet = pipes.bulk_in.packet_size or 64  # some chips report 0
        self._status = 0
        self._data = 0

    def open(self) -> Sequence[Request]:
        return [*super().open(), self._request(RESET, 0)]

    def apply(self, old: LineSettings | None, new: LineSettings) -> Sequence[Request]:
        divisor = baud_divisor(new.baudrate, self.pipes.bcdDevice)
        if new.bytesize < 7:
            raise LocalProtocolError(f"FTDI chips have 7 or 8 data bits, not {new.bytesize}")
        requests = []
        if old is None or old.baudrate != new.baudrate:
            requests.append(self._baud(divisor))
        if old is None or old.frame != new.frame:
            self._data = new.bytesize | PARITIES.index(new.parity) << 8 | STOP_BITS.index(new.stopbits) << 11
            requests.append(self._request(SET_DATA, self._data))
        if old is None or old.handshake != new.handshake:
            requests.append(self._flow(new))
        if (old is None or old.low_latency != new.low_latency) and self.pipes.bcdDevice != _AM:
            requests.append(self._request(SET_LATENCY_TIMER, LOW_LATENCY_MS if new.low_latency else LATENCY_MS))
        return requests

    def set_lines(self, dtr: bool, rts: bool) -> Sequence[Request]:
        return [self._request(MODEM_CTRL, _BOTH | dtr * _DTR | rts * _RTS)]

    def set_break(self, on: bool) -> Sequence[Request]:
        return [self._request(SET_DATA, self._data | on * _BREAK)]

    def purge(self, rx: bool, tx: bool) -> Sequence[Request]:
        wanted = [PURGE_RX] * rx + [PURGE_TX] * tx
        return [self._request(RESET, value) for value in wanted]

    def poll(self) -> Sequence[Request]:
        return [Request(Setup(_IN, GET_MODEM_STATUS, 0, self._channel, STATUS_LENGTH))]

    def answered(self, request: Request, data: bytes) -> None:
        if request.setup.bRequest == GET_MODEM_STATUS and data:
            self._lines(data[0])

    def received(self, data: bytes) -> bytes:
        step = self._packet
        if len(data) <= step:
            self._packet_status(data)
            return data[STATUS_LENGTH:]
        packets = [data[at : at + step] for at in range(0, len(data), step)]
        for packet in packets:
            self._packet_status(packet)
        return b"".join([packet[STATUS_LENGTH:] for packet in packets])

    def _packet_status(self, packet: bytes) -> None:
        if len(packet) < STATUS_LENGTH:
            return
        status = packet[0] << 8 | packet[1]
        if status == self._status and not status & _ERRORS:
            return  # nearly always
        # While nothing is received the last errors are reported again and again.
        fresh = status if len(packet) > STATUS_LENGTH else status & ~self._status
        self._status = status
        self._lines(packet[0])
        self.errors.overrun += bool(fresh & _OVERRUN)
        self.errors.parity += bool(fresh & _PARITY)
        self.errors.framing += bool(fresh & _FRAMING)
        self.errors.breaks += bool(fresh & _BREAK_SEEN)

    def _lines(self, status: int) -> None:
        self.lines = ModemLines(*(bool(status & bit) for bit in (_CTS, _DSR, _RI, _CD)))

    def _baud(self, divisor: int) -> Request:
        index = divisor >> 16
        setup = Setup(_OUT, SET_BAUD_RATE, divisor & 0xFFFF, index << 8 | self._channel if self._channel else index, 0)
        return Request(setup)

    def _flow(self, new: LineSettings) -> Request:
        kind = next((k for k in ("rtscts", "dsrdtr", "xonxoff") if getattr(new, k)), "")
        self.in_chip = frozenset({kind} - {""})
        characters = XOFF << 8 | XON if kind == "xonxoff" else 0
        return self._request(SET_FLOW_CTRL, characters, _FLOW.get(kind, 0))

    def _request(self, request: int, value: int, index: int = 0) -> Request:
        return Request(Setup(_OUT, request, value, index | self._channel, 0))


def baud_divisor(baudrate: int, bcdDevice: int) -> int:
    """The divisor of a chip's clock for the nearest speed that it has, encoded in 18 bits.

    Bits 13..0: whole part; 16..14: code of the eighths; 17: the 12 MHz clock.
    Raises LocalProtocolError where nothing is near.
    """
    fast = bcdDevice not in _FULL_SPEED and baudrate >= _LOWEST_HIGH_SPEED
    clock = 8 * (_HIGH_SPEED_CLOCK if fast else _CLOCK)
    known = _AM_EIGHTHS if bcdDevice == _AM else range(8)
    ideal = clock / baudrate
    near = [n for n in range(int(ideal) - 8, int(ideal) + 9) if n % 8 in known and _allowed(n)]
    if not near:
        near = [8 if ideal < 8 else _LONGEST]
    eighths = min(near, key=lambda n: (abs(clock / n - baudrate), n))
    check_rate("this FTDI chip", baudrate, clock / eighths)
    whole, code = eighths >> 3, EIGHTHS[eighths & 7]
    special = {8: 0, 12: 1}  # 1 and 1.5
    encoded = special.get(eighths, whole | code << 14)
    return encoded | fast * _HIGH_SPEED


def _allowed(eighths: int) -> bool:
    return eighths in (8, 12) or 16 <= eighths <= _LONGEST
