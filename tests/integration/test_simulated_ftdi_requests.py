"""What FTDI's chips answer beyond serial ports: bit modes, pins, EEPROM, event characters; and pyftdi on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.serial_host import SerialHost
from tests.programs.commands import run_use
from usbip_capture.demo.lsusb import add_directory
from usbip_capture.describe.reading import read_description
from usbip_capture.describe.verbose import verbose
from usbip_capture.device import Device
from usbip_capture.host.handle import DeviceHandle
from usbip_capture.server import Server
from usbip_capture.simulated.serial.ftdi import CHIPS, ftdi
from usbip_capture.simulated.serial.ftdi_pins import Eeprom
from usbip_capture.simulated.serial.line import Loopback, Notebook
from usbip_capture.usb.setup import Setup
from usbip_capture.usb.status import EPIPE
from usbip_capture.usb.urb import Completion, TransferType, Urb

# Each in the way of one of pyftdi's own hardware tests: resets, latency timers of two interfaces, a loop-back plug at
# several speeds, EEPROM with its checksum, pins.
PROGRAM = """\
import sys
from pyftdi.ftdi import Ftdi
from pyftdi.serialext import serial_for_url
one = Ftdi()
for usb_reset in (False, True):
    one.open_from_url("ftdi:///1")
    assert one.is_connected
    one.reset(usb_reset)
    one.close()
one.open_from_url("ftdi:///1")
if one.device_port_count > 1:
    two = Ftdi()
    two.open_from_url("ftdi:///2")
    two.set_latency_timer(128)
    one.set_latency_timer(64)
    assert (one.get_latency_timer(), two.get_latency_timer()) == (64, 128)
    print(two.modem_status())
    two.close()
print(hex(one.poll_modem_status()), len(one.read_data(64)))
one.close()
port = serial_for_url("ftdi:///1", baudrate=1000000, timeout=10)
for speed in (300, 9600, 115200, 3000000):
    port.baudrate = speed
    port.write(bytes(range(256)) * 4)
    assert port.read(1024) == bytes(range(256)) * 4, speed
port.close()
one.open_bitbang_from_url("ftdi:///1", direction=0x0F)
for value in (0x05, 0x0A):
    one.write_data(bytes([value]))
    print(hex(one.read_pins()))
size = int(sys.argv[1])
content = one.read_eeprom(eeprom_size=size)
checksum = one.calc_eeprom_checksum(content[:-2])
assert checksum == int.from_bytes(content[-2:], "little") or content == b"\\xff" * size
one.write_eeprom(0x70, b"test", eeprom_size=size, dry_run=False)
assert one.read_eeprom(0x70, 4, size) == b"test"
one.close()
"""


@pytest.fixture
def server() -> Iterator[Server]:
    opened = Server()
    yield opened
    opened.close()


@pytest.mark.parametrize(("name", "size"), [("FT232R", 128), ("FT2232H", 256), ("FT4232H", 256), ("FT230X", 1024)])
def test_pyftdi_on_a_chip_out_of_lsusb_s_text(name: str, size: int, server: Server, tmp_path: Path) -> None:
    pytest.importorskip("pyftdi", reason="pyftdi is not installed")
    device = ftdi([Notebook() for _ in range(CHIPS[name][2])], name).open()
    text = "\n".join(verbose(read_description(DeviceHandle(device))))
    device.close()
    (tmp_path / "1-1.lsusb").write_text(text)
    (tmp_path / "program.py").write_text(PROGRAM)
    add_directory(server, tmp_path)
    port = server.listen("127.0.0.1", 0)[1]
    printed = run_use(port, tmp_path, "--", "program.py", str(size)).splitlines()
    assert printed[-2:] == ["0xf5", "0xfa"]
    assert printed[-3] == "0x6001 0"


def asked(device: Device, kind: int, request: int, value: int, index: int, length: int = 0) -> Completion:
    return device.run(Urb.control(Setup(kind, request, value, index, length).pack()))


@pytest.fixture
def chip() -> Iterator[Device]:
    device = ftdi([Loopback()]).open()
    yield device
    device.close()


def test_requests_that_programs_send_when_they_open_a_chip(chip: Device) -> None:
    assert asked(chip, 0x40, 0x0B, 0, 1).status == 0
    assert bytes(asked(chip, 0xC0, 0x0C, 0, 1, 1).data) == b"\xff"
    assert bytes(asked(chip, 0xC0, 0x90, 0, 0, 2).data) == b"\x00\x40"
    assert bytes(asked(chip, 0xC0, 0x90, 0, 1, 2).data) == b"\x03\x04"  # idVendor
    for request in (6, 7):
        assert asked(chip, 0x40, request, 0x10A, 0).status == 0
    # MPSSE is not simulated: nobody should believe it is.
    assert asked(chip, 0x40, 0x0B, 0x02FF, 1).status == -EPIPE
    assert asked(chip, 0xC0, 0x93, 0, 0, 2).status == -EPIPE


def test_the_eeprom_can_be_written_and_erased(chip: Device) -> None:
    assert asked(chip, 0x40, 0x91, 0x1234, 0x30).status == 0
    assert bytes(asked(chip, 0xC0, 0x90, 0, 0x30, 2).data) == b"\x34\x12"
    assert bytes(asked(chip, 0xC0, 0x90, 0, 0x30 + 64, 2).data) == b"\x34\x12"  # it wraps around
    assert asked(chip, 0x40, 0x92, 0, 0).status == 0
    assert bytes(asked(chip, 0xC0, 0x90, 0, 0x3F, 2).data) == b"\xff\xff"


@pytest.mark.parametrize("length", [0, 1, 46, 47, 48, 126])
def test_names_longer_than_the_eeprom_are_cut(length: int) -> None:
    eeprom = Eeprom(replace(ftdi([Loopback()]).descriptors, strings=["n" * length] * 3))
    content = b"".join(eeprom.read(word) for word in range(64))
    assert eeprom.read(64) == content[:2]
    assert content[14] == 0x80 | 24
    checksum = 0xAAAA
    for word in range(63):
        checksum ^= int.from_bytes(eeprom.read(word), "little")
        checksum = (checksum << 1 | checksum >> 15) & 0xFFFF
    assert eeprom.read(63) == checksum.to_bytes(2, "little")


def test_the_oldest_chip_has_no_bit_modes() -> None:
    adapter = ftdi([Loopback()])
    raw = adapter.descriptors.device
    old = replace(adapter.descriptors, device=raw[:12] + b"\x00\x02" + raw[14:])
    device = adapter.kind(adapter.info, old, [Loopback()])
    assert asked(device, 0x40, 0x0B, 0, 0).status == -EPIPE
    assert asked(device, 0xC0, 0x0C, 0, 0, 1).status == -EPIPE
    device.close()


def test_pins_of_a_uart_are_low_when_active(chip: Device) -> None:
    assert asked(chip, 0x40, 1, 0x0303, 0).status == 0  # DTR and RTS; the plug returns them as CTS, DSR and CD
    assert asked(chip, 0xC0, 0x0C, 0, 0, 1).data[0] == 0xFF & ~0b0111_1100


def configured(device: Device) -> Device:
    device.run(Urb.control(Setup(0, 9, 1, 0, 0).pack()))
    return device


def test_synchronous_bit_bang_reads_the_pins_before_each_write(chip: Device) -> None:
    configured(chip)
    asked(chip, 0x40, 0x0B, 0x040F, 0)
    chip.run(Urb(TransferType.BULK, 0x02, 4, bytes([1, 2, 3, 4])))
    got = b""
    while len(got) < 4:
        got += bytes(chip.run(Urb(TransferType.BULK, 0x81, 64)).data)[2:]
    assert got == bytes([0xF0, 0xF1, 0xF2, 0xF3])
    assert asked(chip, 0xC0, 0x0C, 0, 0, 1).data[0] == 0xF4


def test_cbus_pins(chip: Device) -> None:
    asked(chip, 0x40, 0x0B, 0x2031, 0)  # pins 0 and 1 are outputs: 1 and 0
    assert asked(chip, 0xC0, 0x0C, 0, 0, 1).data[0] == 0b1101


def test_an_event_character_is_sent_at_once() -> None:
    notebook = Notebook()
    device = configured(ftdi([notebook]).open())
    asked(device, 0x40, 9, 255, 0)  # not by the latency timer
    asked(device, 0x40, 6, 0x100 | ord("\n"), 0)
    notebook.line.send(b"a line\n")
    got = bytes(device.run(Urb(TransferType.BULK, 0x81, 64)).data)
    device.close()
    assert got[2:] == b"a line\n"


def test_pyserial_still_works_in_uart_mode(chip: Device) -> None:
    host = SerialHost(chip)
    host.write(b"loop")
    assert host.read(4) == b"loop"
