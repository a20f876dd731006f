"""Our captures against usbmon of a real kernel, field by field: live ones of our client, and converted ones of its."""

from __future__ import annotations

import shutil
import signal
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.kernel.conftest import Plug
from tests.kernel.rig import FakeDevice, Guest
from tests.kernel.rig.fakedev import BULK_IN, BULK_OUT, FAIL_ISO_IN, INTERRUPT_IN, ISO_IN, SEND_REPORTS, STALL_BULK_IN
from tests.kernel.rig.usbmon import recorded
from tests.oracles.usbmon_comparison import Report, compare
from usbip_capture import PcapWriter
from usbip_capture.cli.main import main
from usbip_capture.device import Transfer
from usbip_capture.devices.remote import import_device
from usbip_capture.net.connecting import connect
from usbip_capture.net.transport import SocketTransport
from usbip_capture.tap import Tapped
from usbip_capture.usb.setup import clear_halt, get_descriptor, set_configuration, set_interface
from usbip_capture.usb.urb import FLAG_DIR_IN, SHORT_NOT_OK, ZERO_PACKET, IsoPacket, TransferType, Urb

pytestmark = pytest.mark.kernel

TIMEOUT = 20.0
VENDOR_OUT = 0x40


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDevice]:
    with closing(FakeDevice(tmp_path / "fake.sock")) as device:
        yield device


# -- live, with our client


class Captured:
    """A device of the guest, imported by us and captured, while usbmon records its bus."""

    def __init__(self, guest: Guest, busid: str, stack: ExitStack, folder: Path) -> None:
        self.ours, self.reference = folder / "ours.pcapng", folder / "server.pcap"
        self.number = int(guest.run(f"cat /sys/bus/usb/devices/{busid}/devnum").text)
        stack.enter_context(recorded(guest, int(busid.partition("-")[0]), self.reference))
        writer = stack.enter_context(PcapWriter(self.ours))
        device = import_device(
            SocketTransport(connect("127.0.0.1", guest.usbip_port, TIMEOUT), "the guest"), busid, TIMEOUT
        )
        tap = writer.add_usb_interface(device.info, server="the guest")
        self._device = stack.enter_context(closing(Tapped(device, tap)))

    def run(self, *urbs: Urb) -> list[Transfer]:
        """All at once, and wait for all."""
        transfers = self.start(*urbs)
        assert all(self._device.wait(transfer, TIMEOUT) for transfer in transfers)
        return transfers

    def start(self, *urbs: Urb) -> list[Transfer]:
        transfers = [Transfer(urb) for urb in urbs]
        for transfer in transfers:
            self._device.submit(transfer)
        return transfers

    def cancel(self, transfer: Transfer) -> None:
        self._device.cancel(transfer)
        assert self._device.wait(transfer, TIMEOUT)

    def compare(self) -> Report:
        return compare(self.ours, self.reference, on_server=True, device=self.number)


@contextmanager
def captured(guest: Guest, busid: str, folder: Path) -> Iterator[Captured]:
    with ExitStack() as stack:
        device = Captured(guest, busid, stack, folder)
        device.run(Urb.control(get_descriptor(1, 0, 0, 64).pack()))
        device.run(Urb.control(get_descriptor(2, 0, 0, 255).pack()))
        device.run(Urb.control(set_configuration(1).pack()))
        yield device


def inward(endpoint: int, length: int, flags: int = 0, interval: int = 0) -> Urb:
    kind = TransferType.INTERRUPT if interval else TransferType.BULK
    return Urb(kind, endpoint, length, flags=flags | FLAG_DIR_IN, interval=interval)


def vendor(request: int, value: int = 0) -> Urb:
    return Urb.control(struct.pack("<BBHHH", VENDOR_OUT, request, value, 0, 0))


def test_live_disk_is_as_the_server_saw_it(guest: Guest, plug: Plug, disk: Path, tmp_path: Path) -> None:
    with captured(guest, plug("storage", "ehci", file=disk), tmp_path) as device:
        for tag, (command, size) in enumerate([(bytes(16), 0), *(read_10(at, 128) for at in (0, 100, 500))]):
            wrapper = struct.pack("<4sIIBBB16s", b"USBC", tag, size, 0x80, 0, 10, command)
            device.run(Urb(TransferType.BULK, 0x02, 31, wrapper, flags=ZERO_PACKET))
            if size:
                device.run(inward(0x81, size, SHORT_NOT_OK))
            device.run(inward(0x81, 13))
    report = device.compare()
    assert report.differences == []
    assert report.urbs == 3 + 2 + 3 * 3


def read_10(block: int, count: int) -> tuple[bytes, int]:
    return struct.pack(">BBIBHB6x", 0x28, 0, block, 0, count, 0), count * 512


def test_live_stalls_short_reads_and_cancelled_urbs(guest: Guest, plug: Plug, fake: FakeDevice, tmp_path: Path) -> None:
    with captured(guest, plug("redir", socket=fake.path), tmp_path) as device:
        device.run(Urb(TransferType.BULK, BULK_OUT, 11, b"once around"))
        device.run(inward(BULK_IN, 64))
        device.run(Urb(TransferType.BULK, BULK_OUT, 3, b"abc"))
        device.run(inward(BULK_IN, 64, SHORT_NOT_OK))
        device.run(vendor(STALL_BULK_IN, 1))
        device.run(inward(BULK_IN, 64))
        device.run(Urb.control(clear_halt(BULK_IN).pack()))
        device.run(vendor(0x7F))
        device.run(vendor(SEND_REPORTS, 2))
        report = inward(INTERRUPT_IN, 8, interval=10)
        device.run(report, report)
        for transfer in device.start(inward(BULK_IN, 64), report):
            device.cancel(transfer)
        device.start(inward(BULK_IN, 64))  # still out when the connection ends
    found = device.compare()
    assert found.differences == []
    assert found.urbs == 3 + 14


def test_live_microphone(guest: Guest, plug: Plug, fake: FakeDevice, tmp_path: Path) -> None:
    packets = [IsoPacket(192 * n, 192) for n in range(16)]
    many = [IsoPacket(192 * n, 192) for n in range(200)]
    with captured(guest, plug("redir", socket=fake.path), tmp_path) as device:
        device.run(vendor(FAIL_ISO_IN, 16))
        device.run(Urb.control(set_interface(2, 1).pack()))
        urb = Urb(TransferType.ISOCHRONOUS, ISO_IN, 192 * 16, flags=FLAG_DIR_IN, interval=1, packets=packets)
        device.run(*[urb] * 16)
        long = Urb(TransferType.ISOCHRONOUS, ISO_IN, 192 * 200, flags=FLAG_DIR_IN, interval=1, packets=many)
        device.run(long, long)
    report = device.compare()
    assert report.differences == []
    assert report.urbs == 3 + 2 + 18


# -- converted, with the kernel's client


# The card is in /proc before its devices can be opened.
SPEAKER, MICROPHONE = (
    f"until [ -c /dev/snd/controlC0 ] && [ -c /dev/snd/pcmC0D0{way} ]; do usleep 20000; done" for way in "pc"
)


def play(client: Guest) -> None:
    client.run(f"modprobe snd-usb-audio; {SPEAKER}")
    client.run("head -c 76800 /dev/zero | aplay -q -D hw:0 -f S16_LE -r 48000 -c 2 -t raw")


def record(client: Guest) -> None:
    client.run(f"modprobe snd-usb-audio; {MICROPHONE}")
    client.run("arecord -q -D hw:0 -B 2000000 -F 100000 -f S16_LE -r 44100 -c 2 -d 1 -t raw /dev/null")


def read_disk(client: Guest) -> None:
    # The name is there a moment before the disk is.
    client.run("modprobe -a usb-storage sd_mod; until head -c 512 /dev/sda >/dev/null 2>&1; do usleep 20000; done")
    client.run("dd if=/dev/sda bs=240k of=/dev/null; dd if=/dev/zero of=/dev/sda bs=64k count=4 conv=fsync")


def talk(client: Guest) -> None:
    client.run("modprobe ftdi_sio; until [ -c /dev/ttyUSB0 ]; do usleep 20000; done")
    client.run("stty -F /dev/ttyUSB0 115200 raw -echo; echo hello >/dev/ttyUSB0; usleep 200000")


def listed(client: Guest) -> None:
    client.run("lsusb -v >/dev/null 2>&1 || true")


USES = {"storage": read_disk, "serial": talk, "audio": play, "redir": record, "ccid": listed}


@contextmanager
def tcp_recorded(port: int, path: Path) -> Iterator[None]:
    """tcpdump on this machine's loopback, while the context lasts."""
    if shutil.which("tcpdump") is None:
        pytest.skip("tcpdump is not installed")
    options = ["-i", "lo", "--immediate-mode", "-U", "-B", "16384", "-w", str(path)]
    command = ["tcpdump", *options, "tcp", "port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tcpdump:
        assert tcpdump.stderr is not None
        output = tcpdump.stderr.readline()
        while output and "listening on" not in output:
            if "permission" in output:
                tcpdump.wait(TIMEOUT)
                pytest.skip("tcpdump may not record on this machine's loopback")
            output = tcpdump.stderr.readline()
        try:
            yield
        finally:
            tcpdump.send_signal(signal.SIGINT)
            tcpdump.wait(TIMEOUT)


@pytest.mark.parametrize("kind", list(USES))
def test_converted_session_is_as_the_client_saw_it(
    guest: Guest, client: Guest, plug: Plug, disk: Path, fake: FakeDevice, tmp_path: Path, kind: str
) -> None:
    tcp, ours, reference = tmp_path / "tcp.pcap", tmp_path / "ours.pcapng", tmp_path / "client.pcap"
    text, ours_text = tmp_path / "kernel.txt", tmp_path / "ours.txt"
    bus = "ehci" if kind == "storage" else "xhci"
    busid = plug(kind, bus, file=disk, socket=fake.path if kind == "redir" else None)
    client.run("modprobe vhci-hcd")
    with tcp_recorded(guest.usbip_port, tcp), recorded(client, client.bus("vhci"), reference, text):
        local = client.attach(guest.usbip_port, busid)
        USES[kind](client)
        client.detach(local)
        guest.wait_available(busid)
    assert main(["convert", str(tcp), str(ours)]) == 0
    report = compare(ours, reference)
    assert report.differences == []
    assert report.urbs > 10
    assert main(["convert", str(tcp), str(ours_text), "--format", "text"]) == 0
    # The kernel's text has room for a few lines only: of isochronous URBs it loses some on a busy machine.
    more, missing = Counter(spoken(ours_text)), Counter(spoken(text))
    assert not missing - more
    assert kind == "redir" or not more - missing


def spoken(path: Path) -> list[str]:
    """The lines of usbmon's text but for ids, times, buses, devices, and bytes between isochronous packets.

    Of the root hub and SET_ADDRESS there are none.
    """
    lines, address = [], ""
    for line in path.read_text().splitlines():
        tag, _, event, pipe, rest = line.split(" ", 4)
        _, _, device, endpoint = pipe.split(":")
        if device == "001" or rest.startswith("s 00 05 ") or (event == "C" and tag == address):
            address = tag if rest.startswith("s 00 05 ") else ""
            continue
        if pipe.startswith("Zi"):
            rest = rest.partition(" = ")[0]
        lines.append(f"{event} {pipe[:2]}:{endpoint} {'-104' + rest[2:] if rest.startswith('-2 ') else rest}")
    return sorted(lines)
