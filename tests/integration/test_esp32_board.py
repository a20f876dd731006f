"""The simulated ESP32 board by its serial line: resets by DTR and RTS, the loader's commands, what it refuses."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from functools import reduce
from operator import xor
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.serial_host import SerialHost
from tests.waiting import wait_until
from usbip_capture.simulated.esp32.board import Esp32Board
from usbip_capture.simulated.esp32.flash import Flash, Registers
from usbip_capture.simulated.esp32.loader import Loader
from usbip_capture.simulated.esp32.slip import SlipDecoder, encode
from usbip_capture.simulated.serial.acm import USB_SERIAL_JTAG, acm
from usbip_capture.simulated.serial.cp210x import cp210x
from usbip_capture.uart.settings import LineSettings

SYNC, READ_REG, CHANGE_BAUDRATE, MD5 = 0x08, 0x0A, 0x0F, 0x13


class Programmer:
    """The other side of the loader."""

    def __init__(self, host: SerialHost) -> None:
        self.host = host
        self.decoder = SlipDecoder()
        self.packets: list[bytes] = []

    def lines(self, dtr: bool, rts: bool) -> None:
        self.host.do(self.host.driver.set_lines(dtr, rts))

    def reset(self, download: bool) -> None:
        self.lines(False, True)
        self.lines(download, False)

    def packet(self) -> bytes:
        while not self.packets:
            self.packets += self.decoder.feed(self.host.read_once())
        return self.packets.pop(0)

    def command(self, number: int, body: bytes = b"", checksum: int = 0) -> tuple[int, bytes]:
        """Value and data of the reply, status at its end."""
        self.host.write(encode(pack("<BBHI", 0, number, len(body), checksum) + body))
        reply = self.packet()
        assert reply[0] == 1
        assert reply[1] == number
        return int.from_bytes(reply[4:8], "little"), reply[8:]

    def sync(self) -> int:
        value, _ = self.command(SYNC, b"\x07\x07\x12\x20" + b"\x55" * 32)
        for _ in range(7):
            self.packet()
        return value


@pytest.fixture
def board() -> Esp32Board:
    return Esp32Board()


@pytest.fixture
def programmer(board: Esp32Board) -> Iterator[Programmer]:
    device = cp210x([board]).open()
    yield Programmer(SerialHost(device))
    device.close()


def boot(programmer: Programmer, board: Esp32Board, download: bool = True) -> None:
    before = board.resets
    programmer.reset(download)
    wait_until("the chip starts", lambda: board.resets > before)


def block(data: bytes, number: int = 0) -> tuple[bytes, int]:
    return pack("<IIII", len(data), number, 0, 0) + data, reduce(xor, data, 0xEF)


def test_the_application_runs_until_a_reset_with_io0_low(programmer: Programmer, board: Esp32Board) -> None:
    programmer.host.write(b"echo")
    assert programmer.host.read(4) == b"echo"
    boot(programmer, board, download=False)
    assert board.mode == "application"
    assert b"boot:0x13" in programmer.host.read(20)
    boot(programmer, board)
    assert board.mode == "rom"
    assert b"waiting for download" in programmer.host.read(60)


def test_nothing_runs_while_en_is_low(programmer: Programmer, board: Esp32Board) -> None:
    programmer.lines(False, True)
    programmer.host.write(b"hello?")
    assert programmer.host.read_once(timeout=0.05) == b""


def test_both_lines_asserted_are_neither(programmer: Programmer, board: Esp32Board) -> None:
    programmer.lines(False, False)
    programmer.lines(True, True)
    programmer.lines(True, False)
    assert board.resets == 0


def test_io0_too_late_boots_the_application(board: Esp32Board) -> None:
    slow = Esp32Board(en_delay=0.0)
    device = cp210x([slow]).open()
    programmer = Programmer(SerialHost(device))
    programmer.lines(False, True)
    programmer.lines(True, True)  # EN rises, IO0 is still high
    wait_until("the chip starts", lambda: slow.resets)
    programmer.lines(True, False)
    assert slow.mode == "application"
    device.close()


def test_registers_and_sync(programmer: Programmer, board: Esp32Board) -> None:
    boot(programmer, board)
    assert programmer.sync() != 0
    assert programmer.command(READ_REG, pack("<I", 0x40001000))[0] == 0x00F01D83
    low, high = (programmer.command(READ_REG, pack("<I", 0x3FF5A000 + at))[0] for at in (4, 8))
    assert (high << 32 | low).to_bytes(6, "big").hex() == "240ac4000102"
    programmer.command(0x09, pack("<IIII", 0x3FF42024, 0x9F, 0xFFFFFFFF, 0))
    programmer.command(0x09, pack("<IIII", 0x3FF42000, 1 << 18, 0xFFFFFFFF, 0))
    assert programmer.command(READ_REG, pack("<I", 0x3FF42080))[0] == 0x1640EF
    cycles, oscillator = (programmer.command(READ_REG, pack("<I", at))[0] for at in (0x3FF5F06C, 0x3FF5A010))
    assert (cycles >> 7) * 15625 * (oscillator & 0xFF) / 40 == 40_000_000  # the crystal, as esptool computes it


@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("stub", [False, True])
def test_flash_is_written_and_read(programmer: Programmer, board: Esp32Board, deflated: bool, stub: bool) -> None:
    boot(programmer, board)
    programmer.sync()
    if stub:
        programmer.command(0x05, pack("<IIII", 4, 1, 4, 0x40080000))
        programmer.command(0x07, *block(b"code"))
        programmer.command(0x06, pack("<II", 0, 0x40080000))
        assert programmer.packet() == b"OHAI"
        assert programmer.sync() == 0
        assert board.mode == "stub"
    data = bytes(n * n % 253 for n in range(10_000))
    board.flash.write(0x1000, bytes(20_000))  # old contents, which must be erased
    sent = zlib.compress(data) if deflated else data
    begin = pack("<IIII", 12288, 3, 4096, 0x1000)
    assert programmer.command(0x10 if deflated else 0x02, begin)[1][:2] == b"\0\0"
    for number, at in enumerate(range(0, len(sent), 4096)):
        assert programmer.command(0x11 if deflated else 0x03, *block(sent[at : at + 4096], number))[1][:2] == b"\0\0"
    assert board.flash.content[0x1000 : 0x1000 + len(data)] == data
    digest = programmer.command(MD5, pack("<IIII", 0x1000, len(data), 0, 0))[1]
    expected = hashlib.md5(data)
    assert digest.startswith(expected.digest() if stub else expected.hexdigest().encode())
    if stub:
        programmer.command(0xD2, pack("<IIII", 0x1000, len(data), 4096, 2))
        read = b""
        while len(read) < len(data):
            read += programmer.packet()
            programmer.host.write(encode(pack("<I", len(read))))
        assert read == data
        assert programmer.packet() == expected.digest()
    else:
        assert programmer.command(0x0E, pack("<II", 0x1040, 10))[1][:10] == data[64:74]
    before = board.resets
    programmer.command(0x12 if deflated else 0x04, pack("<I", 0))
    assert (board.resets, board.mode) == (before + 1, "application")


def test_both_ends_change_their_speed(programmer: Programmer, board: Esp32Board) -> None:
    boot(programmer, board)
    programmer.sync()
    programmer.command(CHANGE_BAUDRATE, pack("<II", 921600, 0))
    programmer.host.write(encode(pack("<BBHI", 0, READ_REG, 4, 0) + bytes(4)))
    assert programmer.host.read_once(timeout=0.05) == b""  # only one of them has
    programmer.host.apply(LineSettings(921600))
    assert programmer.command(READ_REG, bytes(4))[1][:2] == b"\0\0"


@pytest.mark.parametrize(
    ("command", "body", "checksum"),
    [
        (0x14, b"", 0),  # not in this chip
        (0xD2, bytes(16), 0),  # not in the ROM
        (0x02, b"short", 0),
        (0x02, pack("<IIII", 8192, 2, 4096, 4 << 20), 0),  # beyond the flash
        (0x03, pack("<IIII", 4, 0, 0, 0) + b"data", 1),  # wrong checksum
        (0x03, pack("<IIII", 9, 0, 0, 0) + b"data", reduce(xor, b"data", 0xEF)),
        (0x11, pack("<IIII", 4, 0, 0, 0) + b"junk", reduce(xor, b"junk", 0xEF)),
        (MD5, pack("<IIII", 0xFFFFFFF0, 32, 0, 0), 0),
        (SYNC, b"", 0),
    ],
)
def test_what_is_refused(programmer: Programmer, board: Esp32Board, command: int, body: bytes, checksum: int) -> None:
    boot(programmer, board)
    assert programmer.command(command, body, checksum)[1][0] == 1
    assert programmer.sync()


def test_reset_by_the_rules_of_usb_serial_jtag() -> None:
    board = Esp32Board(jtag=True)
    device = acm(board, identity=USB_SERIAL_JTAG).open()
    programmer = Programmer(SerialHost(device))
    for dtr, rts in ((False, False), (True, False), (True, True), (False, True), (False, False)):
        programmer.lines(dtr, rts)
    assert (board.resets, board.mode) == (1, "rom")
    assert programmer.sync()
    programmer.lines(False, True)
    programmer.lines(False, False)
    assert (board.resets, board.mode) == (2, "application")
    device.close()


@given(st.lists(st.binary(max_size=40)), st.integers(1, 40))
def test_packets_survive_their_framing(packets: list[bytes], step: int) -> None:
    stream = b"".join(encode(packet) for packet in packets)
    decoder = SlipDecoder()
    got = [p for at in range(0, len(stream), step) for p in decoder.feed(stream[at : at + step])]
    assert got == [packet for packet in packets if packet]


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_whatever_a_programmer_sends_is_taken(packets: list[bytes]) -> None:
    flash = Flash(1 << 16)
    sent: list[bytes] = []
    loader = Loader(flash, Registers(flash, bytes(6)), sent.append, lambda: None)
    for packet in packets:
        loader.packet(packet)
        if packet:
            loader.packet(pack("<BBHI", 0, packet[0], len(packet) - 1, 0) + packet[1:])
