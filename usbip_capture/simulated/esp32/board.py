"""A development board: an ESP32 whose EN and IO0 pins hang on DTR and RTS, as on most of them.

Ref: Espressif, esptool documentation, "Boot Mode Selection", automatic bootloader
"""

from __future__ import annotations

import threading

from usbip_capture.simulated.esp32.flash import Flash, Registers
from usbip_capture.simulated.esp32.loader import Loader
from usbip_capture.simulated.esp32.slip import SlipDecoder, encode
from usbip_capture.simulated.serial.line import Line, Peer

#: Seconds that EN needs to rise, through 10 kOhm into 1 uF, until the chip starts.
EN_DELAY = 0.005
_TOLERANCE = 0.03
_MAC = bytes.fromhex("240ac4000102")

_IN_DOWNLOAD_MODE = b"rst:0x1 (POWERON_RESET),boot:0x3 (DOWNLOAD_BOOT(UART0/UART1))\r\nwaiting for download\r\n"
_IN_FLASH_BOOT = b"rst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n"
_APPLICATION = b"I (30) app: hello from the simulated ESP32\r\n"


class Esp32Board(Peer):
    """A board that runs its application, which echoes lines, until it is reset with IO0 low.

    en_delay: seconds of the RC element at EN. jtag: reset by the rules of a USB-Serial-JTAG unit, not by two
    transistors. native: there is no UART between, so speeds do not matter. resets: how often the chip has started;
    `mode` is "application", "rom" or "stub".
    """

    def __init__(
        self, flash_size: int = 4 << 20, mac: bytes = _MAC, en_delay: float = EN_DELAY, jtag: bool = False,
        native: bool = False,
    ) -> None:  # fmt: skip
        self.flash = Flash(flash_size)
        self.resets = 0
        self._mac = mac
        self._en_delay = en_delay
        self._jtag = jtag
        self._native = native or jtag
        self._lock = threading.RLock()
        self._held = False  # EN is low
        self._rise = 0  # number of the last change of EN
        self._download = False  # the flag of a USB-Serial-JTAG unit
        self._decoder = SlipDecoder()
        self._registers = Registers(self.flash, mac)
        self._loader: Loader | None = None
        self._tuned = False  # the ROM has found out the host's speed

    @property
    def mode(self) -> str:
        """What runs on the chip now."""
        if self._loader is None:
            return "application"
        return "stub" if self._loader.stub else "rom"

    def connected(self, line: Line) -> None:
        super().connected(line)
        self.lines_changed()

    def lines_changed(self) -> None:
        dtr, rts = self.line.dtr, self.line.rts
        with self._lock:
            if self._jtag:
                if dtr != rts:
                    self._held = rts
                    if rts:
                        self._start(self._download)
                if not rts:
                    self._download = dtr
                return
            held = rts and not dtr
            if held == self._held:
                return
            self._held = held
            self._rise += 1
            if held:
                self._loader = None  # in reset
            else:
                rise = self._rise
                self.line.adapter.timetable.after(self._en_delay, lambda: self._risen(rise))

    def received(self, data: bytes) -> None:
        with self._lock:
            if self._held and not self._jtag:
                return
            if self._loader is None:
                self.line.send(data)
                return
            if not self._tuned:
                self._tuned, self._registers.baudrate = True, self.line.settings.baudrate
            if not self._in_tune():
                return
            for packet in self._decoder.feed(data):
                if self._loader is not None:
                    self._loader.packet(packet)

    def _risen(self, rise: int) -> None:
        """EN is high: the chip starts, and looks at IO0 now."""
        with self._lock:
            if rise == self._rise and not self._held:
                self._start(download=self.line.dtr and not self.line.rts)

    def _start(self, download: bool) -> None:
        self.resets += 1
        self._registers = Registers(self.flash, self._mac)
        self._decoder = SlipDecoder()
        self._loader = Loader(self.flash, self._registers, self._send_packet, self._restart) if download else None
        self._tuned = False
        self.line.send(_IN_DOWNLOAD_MODE if download else _IN_FLASH_BOOT + _APPLICATION)

    def _restart(self) -> None:
        self._start(download=False)

    def _send_packet(self, packet: bytes) -> None:
        if self._in_tune():
            self.line.send(encode(packet))

    def _in_tune(self) -> bool:
        """Whether both ends have the same speed."""
        if self._native:
            return True
        wanted, ours = self.line.settings.baudrate, self._registers.baudrate
        return abs(wanted - ours) <= ours * _TOLERANCE
