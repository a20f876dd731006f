"""What our server captures of the devices that it lends, against usbmon of the bus that they are on."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.kernel.lending import TIMEOUT, Lending
from tests.kernel.rig import FakeDevice, PythonGuest
from tests.kernel.rig.fakedev import BULK_IN, BULK_OUT, FAIL_ISO_IN, INTERRUPT_IN, ISO_IN, SEND_REPORTS, STALL_BULK_IN
from tests.kernel.rig.usbmon import recorded
from tests.oracles.usbmon_comparison import Report, compare
from usbip_capture.device import Transfer
from usbip_capture.devices.remote import RemoteDevice, import_device
from usbip_capture.net.connecting import connect
from usbip_capture.net.transport import SocketTransport
from usbip_capture.usb.setup import clear_halt, get_descriptor, set_configuration, set_interface
from usbip_capture.usb.urb import FLAG_DIR_IN, SHORT_NOT_OK, ZERO_PACKET, IsoPacket, TransferType, Urb

pytestmark = pytest.mark.kernel

CAPTURE = "/tmp/capture.pcapng"  # in the guest


class Recorded:
    """Runs something with a device that is lent, while the server captures it and usbmon records its bus."""

    def __init__(self, lending: Lending, folder: Path) -> None:
        self._lending = lending
        self._folder = folder

    def __call__(self, busid: str, use: Callable[[], object]) -> Report:
        ours, reference = self._folder / "ours.pcapng", self._folder / "server.pcap"
        guest = self._lending.guest
        number = int(guest.run(f"cat /sys/bus/usb/devices/{busid}/devnum").text)
        self._lending.stop()
        self._lending.start("--pcap", CAPTURE)
        self._lending.wait_available(busid)
        with recorded(guest, int(busid.partition("-")[0]), reference):
            use()
            self._lending.stop()
        ours.write_bytes(guest.run(f"cat {CAPTURE}; rm {CAPTURE}").stdout)
        return compare(ours, reference, on_server=True, by_libusb=True, device=number)


@pytest.fixture
def compared(lending: Lending, tmp_path: Path) -> Recorded:
    return Recorded(lending, tmp_path)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDevice]:
    with closing(FakeDevice(tmp_path / "fake.sock")) as device:
        yield device


def test_disk_of_a_kernel(lending: Lending, borrower: PythonGuest, disk: Path, compared: Recorded) -> None:
    busid = lending.lend("storage", "ehci", file=disk, driver="usb-storage")

    def use() -> None:
        local = borrower.attach(lending.port, busid)
        borrower.run("until head -c 512 /dev/sda >/dev/null 2>&1; do usleep 20000; done", timeout=TIMEOUT)
        borrower.run("dd if=/dev/sda bs=240k of=/dev/null; dd if=/dev/zero of=/dev/sda bs=64k count=4 conv=fsync")
        borrower.detach(local)
        lending.wait_available(busid)

    report = compared(busid, use)
    assert report.differences == []
    assert report.urbs > 30


@contextmanager
def imported(lending: Lending, busid: str) -> Iterator[RemoteDevice]:
    sock = SocketTransport(connect("127.0.0.1", lending.port, TIMEOUT), "the guest")
    with closing(import_device(sock, busid, TIMEOUT)) as device:
        for setup in (get_descriptor(2, 0, 0, 255), set_configuration(1)):
            device.run(Urb.control(setup.pack()), TIMEOUT)
        yield device


def inward(endpoint: int, length: int, flags: int = 0, interval: int = 0) -> Urb:
    kind = TransferType.INTERRUPT if interval else TransferType.BULK
    return Urb(kind, endpoint, length, flags=flags | FLAG_DIR_IN, interval=interval)


def vendor(request: int, value: int = 0) -> Urb:
    return Urb.control(struct.pack("<BBHHH", 0x40, request, value, 0, 0))


def started(device: RemoteDevice, *urbs: Urb) -> list[Transfer]:
    transfers = [Transfer(urb) for urb in urbs]
    for transfer in transfers:
        device.submit(transfer)
    return transfers


def test_stalls_short_reads_and_cancelled_urbs(lending: Lending, fake: FakeDevice, compared: Recorded) -> None:
    busid = lending.lend("redir", socket=fake.path)
    report_in = inward(INTERRUPT_IN, 8, interval=8)

    def use() -> None:
        with imported(lending, busid) as device:
            for urb in (
                Urb(TransferType.BULK, BULK_OUT, 11, b"once around", flags=ZERO_PACKET),
                inward(BULK_IN, 64),
                Urb(TransferType.BULK, BULK_OUT, 3, b"abc"),
                inward(BULK_IN, 64, SHORT_NOT_OK),
                vendor(STALL_BULK_IN, 1),
                inward(BULK_IN, 64),
                Urb.control(clear_halt(BULK_IN).pack()),
                vendor(0x7F),
                vendor(SEND_REPORTS, 2),
                report_in,
                report_in,
            ):
                device.run(urb, TIMEOUT)
            for transfer in started(device, inward(BULK_IN, 64), report_in):
                device.cancel(transfer)
                assert device.wait(transfer, TIMEOUT)
            started(device, inward(BULK_IN, 64))  # still out when the connection ends
        lending.wait_available(busid)

    report = compared(busid, use)
    assert report.differences == []
    assert report.urbs > 14


def test_microphone(lending: Lending, fake: FakeDevice, compared: Recorded) -> None:
    busid = lending.lend("redir", socket=fake.path)
    packets = [IsoPacket(192 * n, 192) for n in range(32)]
    urb = Urb(TransferType.ISOCHRONOUS, ISO_IN, 192 * 32, flags=FLAG_DIR_IN, interval=1, packets=packets)

    def use() -> None:
        with imported(lending, busid) as device:
            device.run(vendor(FAIL_ISO_IN, 16), TIMEOUT)
            device.run(Urb.control(set_interface(2, 1).pack()), TIMEOUT)
            assert all(device.wait(transfer, TIMEOUT) for transfer in started(device, *[urb] * 8))
        lending.wait_available(busid)

    report = compared(busid, use)
    assert report.differences == []
    assert report.urbs > 10
