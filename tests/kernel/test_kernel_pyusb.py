"""PyUSB programs on the devices of a real Linux kernel's USB/IP server."""

from __future__ import annotations

import errno
import os
import struct
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import usb.core
import usb.util

from tests.kernel.conftest import Plug
from tests.kernel.rig import FakeDevice, Guest
from tests.kernel.rig.fakedev import BULK_IN, BULK_OUT, INTERRUPT_IN, ISO_IN, SEND_REPORTS, STALL_BULK_IN
from tests.programs.commands import run_use
from usbip_capture import AsynchronousDevice, PcapWriter, get_backend
from usbip_capture.cli.main import main
from usbip_capture.pyusb_backend import UsbipBackend

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
TIMEOUT_MS = 20_000
# QEMU's adapter is an FT232BM, an old one that has no bit modes; pyftdi resets them at each opening.
FTDI = """\
from pyftdi.ftdi import Ftdi
class Adapter(Ftdi):
    def set_bitmode(self, bitmask, mode):
        pass
ftdi = Adapter()
ftdi.open_from_url("ftdi://0x403:0x6001/1")
ftdi.set_baudrate(115200)
ftdi.write_data(b"hello through the adapter")
got = b""
while len(got) < 25:
    got += ftdi.read_data_bytes(25 - len(got), attempt=50)
print(ftdi.ic_name, got)
ftdi.close()
"""


@pytest.fixture
def open_backend(guest: Guest, tmp_path: Path) -> Iterator[Callable[..., UsbipBackend]]:
    """Opens backends for the guest, captured."""
    opened: list[UsbipBackend] = []

    with PcapWriter(tmp_path / "kernel.pcapng") as writer:

        def open_one(**options: float) -> UsbipBackend:
            opened.append(get_backend("127.0.0.1", guest.usbip_port, 20.0, writer, **options))  # type: ignore[arg-type]
            return opened[-1]

        yield open_one
        for backend in opened:
            backend.close()


class Disk:
    """Bulk-only transport. Ref: USB Mass Storage Class, Bulk-Only Transport 1.0; SCSI block commands."""

    def __init__(self, dev: usb.core.Device) -> None:
        self._dev = dev
        self._tag = 0

    def command(self, cdb: bytes, length: int = 0, data: bytes = b"") -> bytes:
        """What a command reads; 0 is the only good status."""
        self._tag += 1
        size = len(data) or length
        flags = 0 if data else 0x80
        wrapper = struct.pack("<4sIIBBB16s", b"USBC", self._tag, size, flags, 0, len(cdb), cdb)
        self._dev.write(0x02, wrapper, TIMEOUT_MS)
        got = b""
        if data:
            assert self._dev.write(0x02, data, TIMEOUT_MS) == len(data)
        elif length:
            got = bytes(self._dev.read(0x81, length, TIMEOUT_MS))
        status = bytes(self._dev.read(0x81, 13, TIMEOUT_MS))
        assert status[:4] == b"USBS"
        if status[12] and cdb[0]:
            raise AssertionError(f"command {cdb.hex()} failed")
        return got


@pytest.mark.parametrize("bus", ["ehci", "xhci-ss"])
def test_disk(open_backend: Callable[..., UsbipBackend], plug: Plug, disk: Path, bus: str) -> None:
    plug("storage", bus, file=disk)
    dev = usb.core.find(backend=open_backend(), idVendor=0x46F4)
    scsi = Disk(dev)
    scsi.command(bytes(6))  # TEST UNIT READY takes the unit attention
    assert scsi.command(struct.pack(">BBBBBB", 0x12, 0, 0, 0, 36, 0), 36)[8:12] == b"QEMU"
    blocks = 512
    read_10 = struct.pack(">BBIBHB", 0x28, 0, 64, 0, blocks, 0)
    assert scsi.command(read_10, blocks * 512) == disk.read_bytes()[64 * 512 : (64 + blocks) * 512]
    data = os.urandom(128 * 512)
    scsi.command(struct.pack(">BBIBHB", 0x2A, 0, 1000, 0, 128, 0), data=data)
    assert scsi.command(struct.pack(">BBIBHB", 0x28, 0, 1000, 0, 128, 0), len(data)) == data


def test_pyftdi(guest: Guest, plug: Plug, tmp_path: Path) -> None:
    pytest.importorskip("pyftdi", reason="pyftdi is not installed")
    plug("serial")
    (tmp_path / "echo.py").write_text(FTDI)
    output = run_use(guest.usbip_port, tmp_path, "--pcap", "ftdi.pcapng", "--", "echo.py")
    assert "b'hello through the adapter'" in output
    assert (tmp_path / "ftdi.pcapng").stat().st_size > 2000


def test_keyboard_without_set_configuration(
    guest: Guest, open_backend: Callable[..., UsbipBackend], plug: Plug
) -> None:
    plug("kbd")
    dev = usb.core.find(backend=open_backend(), idVendor=0x0627)
    with pytest.raises(usb.core.USBTimeoutError):
        dev.read(0x81, 8, 50)
    guest.send_keys("a")
    assert bytes(dev.read(0x81, 8, TIMEOUT_MS)) == bytes([0, 0, 4, 0, 0, 0, 0, 0])  # HID usage 4: a


def test_speaker(open_backend: Callable[..., UsbipBackend], plug: Plug) -> None:
    plug("audio", "uhci")
    dev = usb.core.find(backend=open_backend(), idVendor=0x46F4)
    dev.set_interface_altsetting(1, 1)
    (endpoint,) = [e for e in dev.get_active_configuration()[(1, 1)] if not e.bEndpointAddress & 0x80]
    samples = bytes(endpoint.wMaxPacketSize * 100)
    assert dev.write(endpoint.bEndpointAddress, samples, TIMEOUT_MS) == len(samples)
    with AsynchronousDevice(dev) as device:
        sent = device.write(endpoint.bEndpointAddress, bytes(endpoint.wMaxPacketSize * 8)).result(20)
    assert [packet.status for packet in sent.packets] == [0] * 8


def test_smart_card_reader(open_backend: Callable[..., UsbipBackend], plug: Plug) -> None:
    plug("ccid")
    dev = usb.core.find(backend=open_backend(), idVendor=0x08E6)
    out, back = (
        next(e.bEndpointAddress for e in dev[0][(0, 0)] if e.bmAttributes == 2 and e.bEndpointAddress & 0x80 == way)
        for way in (0, 0x80)
    )
    dev.write(out, struct.pack("<BIBB3x", 0x65, 0, 0, 7), TIMEOUT_MS)  # PC_to_RDR_GetSlotStatus
    answer = bytes(dev.read(back, 64, TIMEOUT_MS))
    assert (answer[0], answer[6]) == (0x81, 7)  # RDR_to_PC_SlotStatus, of the same sequence


class TestFakeDevice:
    """A device made by a program, with the faults that others do not have."""

    @pytest.fixture
    def fake(self, plug: Plug, tmp_path: Path) -> Iterator[FakeDevice]:
        with closing(FakeDevice(tmp_path / "fake.sock")) as device:
            plug("redir", socket=device.path)
            yield device

    @pytest.fixture
    def dev(self, fake: FakeDevice, open_backend: Callable[..., UsbipBackend]) -> usb.core.Device:
        found: usb.core.Device = usb.core.find(backend=open_backend(), idVendor=0x1209)
        return found

    def test_loop_stall_and_reports(self, dev: usb.core.Device) -> None:
        assert dev.write(BULK_OUT, b"once around", TIMEOUT_MS) == 11
        assert bytes(dev.read(BULK_IN, 64, TIMEOUT_MS)) == b"once around"
        dev.ctrl_transfer(0x40, STALL_BULK_IN, 1, 0, None, TIMEOUT_MS)
        with pytest.raises(usb.core.USBError) as caught:
            dev.read(BULK_IN, 64, TIMEOUT_MS)
        assert caught.value.errno == errno.EPIPE
        dev.clear_halt(BULK_IN)
        dev.ctrl_transfer(0x40, SEND_REPORTS, 2, 0, None, TIMEOUT_MS)
        assert [bytes(dev.read(INTERRUPT_IN, 8, TIMEOUT_MS)) for _ in range(2)] == [b"report 0", b"report 1"]

    def test_microphone(self, dev: usb.core.Device) -> None:
        dev.set_interface_altsetting(2, 1)
        with AsynchronousDevice(dev) as device:
            flying = [device.read(ISO_IN, 192 * 16) for _ in range(16)]
            done = [future.result(20) for future in flying]
        lengths = {packet.actual_length for completion in done for packet in completion.packets}
        assert lengths - {0} == {176, 180}

    def test_reset_keeps_the_settings(self, dev: usb.core.Device) -> None:
        dev.set_interface_altsetting(2, 1)
        dev.backend.reset_device(dev._ctx.managed_open())
        dev.backend.clear_halt(dev._ctx.managed_open(), BULK_IN)
        assert dev.write(BULK_OUT, b"x", TIMEOUT_MS) == 1
        assert bytes(dev.read(BULK_IN, 64, TIMEOUT_MS)) == b"x"
        dev.reset()
        assert dev.get_active_configuration().bConfigurationValue == 1

    def test_an_endpoint_that_is_not_there_is_not_asked(self, dev: usb.core.Device) -> None:
        opened = dev._ctx.managed_open()
        with pytest.raises(usb.core.USBError) as caught:
            dev.backend.bulk_read(opened, 0x8E, 0, array("B", bytes(8)), TIMEOUT_MS)
        assert caught.value.errno == errno.ENOENT


def test_unplugged_in_mid_transfer(guest: Guest, open_backend: Callable[..., UsbipBackend], plug: Plug) -> None:
    busid = plug("kbd")
    dev = usb.core.find(backend=open_backend(), idVendor=0x0627)
    with AsynchronousDevice(dev) as device:
        reads = [device.read(0x81, 8) for _ in range(4)]
        assert len(dev.ctrl_transfer(0x80, 6, 0x0100, 0, 18, TIMEOUT_MS)) == 18  # all are there before it
        guest.unplug(busid)
        for future in reads:
            error = future.exception(20)
            assert isinstance(error, usb.core.USBError)
            assert error.errno == errno.ENODEV


@pytest.mark.parametrize("rounds", [4, pytest.param(50, marks=pytest.mark.long)])
def test_many_rounds(rounds: int, guest: Guest, open_backend: Callable[..., UsbipBackend], plug: Plug) -> None:
    plug("ccid")
    backend = open_backend()

    def opened() -> None:
        dev = usb.core.find(backend=backend, idVendor=0x08E6)
        assert dev.ctrl_transfer(0x80, 6, 0x0100, 0, 18, TIMEOUT_MS)[0] == 18
        usb.util.dispose_resources(dev)

    def sockets_and_threads() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    opened()
    before = sockets_and_threads()
    for _ in range(rounds - 1):
        opened()
    assert sockets_and_threads() <= before


def test_selftest(guest: Guest, plug: Plug, capsys: pytest.CaptureFixture[str]) -> None:
    busid = plug("kbd")
    assert main(["selftest", "127.0.0.1", "--port", str(guest.usbip_port), "--device", busid]) == 0
    printed = capsys.readouterr().out
    assert "ok     UNLINK, pending             ECONNRESET" in printed
    assert "ok     UNLINK, unknown URB         answered with success, but only after the next reply" in printed
    assert "ok     missing endpoint            not answered" in printed
