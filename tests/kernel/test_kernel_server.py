"""Our server on real libusb, usbfs and kernel drivers, in a guest; another guest's kernel uses what it lends."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.kernel.lending import TIMEOUT, Lending
from tests.kernel.rig import FakeDevice, Guest, PythonGuest
from tests.kernel.rig.fakedev import ISO_IN
from tests.kernel.rig.machine import PLAYED
from usbip_capture.device import Transfer
from usbip_capture.devices.remote import RemoteDevice, import_device
from usbip_capture.net.connecting import connect
from usbip_capture.net.transport import SocketTransport
from usbip_capture.usb.setup import set_configuration, set_interface
from usbip_capture.usb.urb import FLAG_DIR_IN, IsoPacket, TransferType, Urb

pytestmark = pytest.mark.kernel

BLOCK = 65536


@contextmanager
def imported(lending: Lending, busid: str) -> Iterator[RemoteDevice]:
    """The device as our own client has it."""
    sock = SocketTransport(connect("127.0.0.1", lending.port, TIMEOUT), "the guest")
    with closing(import_device(sock, busid, TIMEOUT)) as device:
        yield device


def md5_of_disk(client: Guest) -> str:
    client.run("until head -c 512 /dev/sda >/dev/null 2>&1; do usleep 20000; done", timeout=TIMEOUT)
    return client.run("dd if=/dev/sda bs=64k 2>/dev/null | md5sum").text.split()[0]


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def echo(client: Guest, line: str = "hello") -> str:
    """What a serial adapter sends back."""
    client.run("until [ -c /dev/ttyUSB0 ]; do usleep 20000; done", timeout=TIMEOUT)
    answer = f"timeout 10 head -c {len(line) + 1} <&9"
    read = f"stty -F /dev/ttyUSB0 115200 raw -echo; exec 9<>/dev/ttyUSB0; echo {line} >&9; {answer}"
    return client.run(read).text


RECORD = """
import sys
device, file = open(sys.argv[1], "rb", 0), open("/tmp/keys", "wb", 0)
print("recording")
while True:
    file.write(device.read(4096))
"""


class Keys:
    """The events of a keyboard in a guest, from now on."""

    def __init__(self, guest: PythonGuest, busid: str) -> None:
        self._guest = guest
        events = f"/sys/bus/usb/devices/{busid}/{busid}:*/*/input/input*/event*"
        guest.run(f"until ls -d {events} 2>/dev/null; do usleep 20000; done", timeout=TIMEOUT)
        name = guest.run(f"basename {events}").text.strip()
        guest.run(f"until [ -c /dev/input/{name} ]; do usleep 20000; done", timeout=TIMEOUT)
        self._reader = guest.start("-c", RECORD, f"/dev/input/{name}", log="/tmp/keys.log")
        self._reader.wait_printed("recording")

    def wait(self, code: int) -> None:
        """Until this key was pressed and released. Ref: Linux input.h, struct input_event"""
        pressed, released = (struct.pack("<HHi", 1, code, value) for value in (1, 0))

        def both() -> bool:
            data = self._guest.run("cat /tmp/keys").stdout
            return pressed in data and released in data

        self._guest.wait_until(both, TIMEOUT)

    def close(self) -> None:
        self._reader.signal("KILL")


KEY_A = 30


@pytest.mark.parametrize("bus", ["xhci-ss", pytest.param("ehci", marks=pytest.mark.long)])
def test_disk_is_read_and_written_and_goes_back_to_its_driver(
    lending: Lending, borrower: PythonGuest, disk: Path, bus: str
) -> None:
    busid = lending.lend("storage", bus, file=disk, driver="usb-storage")
    before = lending.drivers(busid)
    local = borrower.attach(lending.port, busid)
    assert borrower.run(f"cat /sys/bus/usb/devices/{local}/speed").text.strip() == {"ehci": "480"}.get(bus, "5000")
    assert md5_of_disk(borrower) == md5(disk)
    new = random.Random(16).randbytes(4 * BLOCK)
    borrower.run("dd of=/dev/sda bs=64k seek=3 iflag=fullblock conv=fsync 2>/dev/null", new)
    assert disk.read_bytes()[3 * BLOCK : 7 * BLOCK] == new
    assert lending.drivers(busid) == {"1.0": "usbfs"}
    borrower.detach(local)
    lending.wait_available(busid)
    lending.wait_driver(busid, "usb-storage")
    assert lending.drivers(busid) == before
    assert md5_of_disk(lending.guest) == md5(disk)


@pytest.mark.parametrize(
    "behind_a_hub", [pytest.param(True, id="behind a hub"), pytest.param(False, id="", marks=pytest.mark.long)]
)
def test_serial_adapter_echoes(lending: Lending, borrower: PythonGuest, behind_a_hub: bool) -> None:
    hub = lending.lend("hub") if behind_a_hub else ""
    busid = lending.lend("serial", hub or "xhci", driver="ftdi_sio")
    local = borrower.attach(lending.port, busid)
    assert echo(borrower) == "hello\n"
    borrower.detach(local)
    lending.wait_available(busid)
    lending.wait_driver(busid, "ftdi_sio")
    assert echo(lending.guest) == "hello\n"
    assert hub not in [info.busid for info in lending.offered()]


def test_keys_arrive_at_the_client_and_afterwards_here_again(lending: Lending, borrower: PythonGuest) -> None:
    busid = lending.lend("kbd", driver="usbhid")
    local = borrower.attach(lending.port, busid)
    with closing(Keys(borrower, local)) as keys:
        lending.guest.send_keys("a")
        keys.wait(KEY_A)
    borrower.detach(local)
    lending.wait_driver(busid, "usbhid")
    with closing(Keys(lending.guest, busid)) as keys:
        lending.guest.send_keys("a")
        keys.wait(KEY_A)


def test_smart_card_reader_answers(lending: Lending, borrower: PythonGuest) -> None:
    busid = lending.lend("ccid")
    local = borrower.attach(lending.port, busid)
    assert "ChipCard Interface Descriptor" in borrower.run("lsusb -v -d 08e6:4433 2>/dev/null").text
    borrower.detach(local)
    lending.wait_available(busid)
    get_slot_status = struct.pack("<BIBB3x", 0x65, 0, 0, 7)
    with imported(lending, busid) as device:
        out = Urb(TransferType.BULK, 0x03, len(get_slot_status), get_slot_status)
        assert device.run(out, TIMEOUT).status == 0
        status = device.run(Urb(TransferType.BULK, 0x82, 64, flags=FLAG_DIR_IN), TIMEOUT)
    assert bytes(status.data[:7]) == struct.pack("<BIBB", 0x81, 0, 0, 7)  # RDR_to_PC_SlotStatus


def test_network_adapter_changes_its_configuration_while_attached(lending: Lending, borrower: PythonGuest) -> None:
    for guest in (lending.guest, borrower):
        guest.run("modprobe -a cdc_ether rndis_host")
    busid = lending.lend("net")
    before = lending.drivers(busid)
    local = borrower.attach(lending.port, busid)
    folder = f"/sys/bus/usb/devices/{local}"
    first = int(borrower.run(f"cat {folder}/bConfigurationValue").text)
    answered = [ping(borrower, local)]
    borrower.run(f"echo {3 - first} >{folder}/bConfigurationValue")
    answered.append(ping(borrower, local))
    assert sorted(answered) == ["cdc_ether", "rndis_host"]
    borrower.detach(local)
    lending.wait_available(busid)
    lending.guest.wait_until(lambda: lending.drivers(busid) == before, TIMEOUT)


def ping(client: Guest, busid: str) -> str:
    """Reach QEMU's network through the adapter; its driver."""
    links = f"/sys/bus/usb/devices/{busid}:*/net"
    client.run(f"until ls {links} >/dev/null 2>&1; do usleep 20000; done", timeout=TIMEOUT)
    (name,) = client.run(f"ls {links}").text.split()[-1:]
    client.run(f"ip addr add 10.0.3.15/24 dev {name}; ip link set {name} up")
    client.run(f"until ping -c 1 -W 1 -I {name} 10.0.3.2; do :; done", timeout=TIMEOUT)
    return client.run(f"basename $(readlink /sys/class/net/{name}/device/driver)").text.strip()


# Ref: HID 1.11, appendix B.1: the boot keyboard's report descriptor, without its LEDs.
BOOT_KEYBOARD = bytes.fromhex(
    "05010906a101050719e029e71500250175019508810295017508810395067508150025650507190029658100c0"
)
GADGETS = {
    "hid.0/protocol": "1", "hid.0/subclass": "1", "hid.0/report_length": "8",
    "printer.0/pnp_string": "MFG:linux;MDL:gadget;CLS:PRINTER;", "printer.0/q_len": "10",
}  # fmt: skip


def test_keyboard_and_printer_in_one_device(lending: Lending, borrower: PythonGuest) -> None:
    lending.guest.gadget(["hid.0", "printer.0"], "dummy_udc.0", GADGETS, binary={"hid.0/report_desc": BOOT_KEYBOARD})
    busid = f"{lending.guest.bus('dummy')}-1"
    try:
        lending.wait_available(busid)
        for driver in ("usbhid", "usblp"):
            lending.wait_driver(busid, driver)
        local = borrower.attach(lending.port, busid)
        with closing(Keys(borrower, local)) as keys:
            lending.guest.run("cat >/dev/hidg0", bytes([0, 0, 4, 0, 0, 0, 0, 0]))
            lending.guest.run("cat >/dev/hidg0", bytes(8))
            keys.wait(KEY_A)
        borrower.run("until [ -c /dev/usb/lp0 ]; do usleep 20000; done", timeout=TIMEOUT)
        lending.guest.run("timeout 20 head -c 7 /dev/g_printer0 >/tmp/page 2>/dev/null </dev/null &")
        borrower.run("echo a page >/dev/usb/lp0")  # which waits for somebody to take it
        lending.guest.wait_until(lambda: lending.guest.run("cat /tmp/page").text == "a page\n", TIMEOUT)
        borrower.detach(local)
        lending.wait_available(busid)
        for driver in ("usbhid", "usblp"):
            lending.wait_driver(busid, driver)
    finally:
        lending.guest.remove_gadget()


def test_music_is_played(lending: Lending, borrower: PythonGuest) -> None:
    busid = lending.lend("audio", "uhci", driver="snd-usb-audio")
    played = lending.guest.folder / PLAYED
    before = played.stat().st_size
    local = borrower.attach(lending.port, busid)
    borrower.run(
        "until [ -c /dev/snd/controlC0 ] && [ -c /dev/snd/pcmC0D0p ]; do usleep 20000; done;"
        " head -c 96000 /dev/zero | tr '\\0' x | aplay -q -D hw:0 -f S16_LE -r 48000 -c 2 -t raw"
    )
    borrower.detach(local)
    lending.wait_available(busid)
    # Nearly all of it where nothing else runs: a host that is late loses packets, as a real one does.
    assert len(played.read_bytes()[before:].replace(b"\0", b"")) > 9600
    lending.guest.wait_until(
        lambda: lending.drivers(busid) == {"1.0": "snd-usb-audio", "1.1": "snd-usb-audio"}, TIMEOUT
    )


@pytest.mark.parametrize("count", [32, pytest.param(128, marks=pytest.mark.long)])
def test_microphone_is_heard(lending: Lending, tmp_path: Path, count: int) -> None:
    packets = [IsoPacket(192 * n, 192) for n in range(count)]
    urb = Urb(TransferType.ISOCHRONOUS, ISO_IN, 192 * count, flags=FLAG_DIR_IN, interval=1, packets=packets)
    with closing(FakeDevice(tmp_path / "fake.sock")) as fake:
        busid = lending.lend("redir", socket=fake.path)
        with imported(lending, busid) as device:
            assert device.run(Urb.control(set_configuration(1).pack()), TIMEOUT).status == 0
            assert device.run(Urb.control(set_interface(2, 1).pack()), TIMEOUT).status == 0
            transfers = [Transfer(urb) for _ in range(8)]
            for transfer in transfers:
                device.submit(transfer)
            assert all(device.wait(transfer, TIMEOUT) for transfer in transfers)
        lending.unplug(busid)
    completions = [transfer.completion for transfer in transfers if transfer.completion]
    assert {completion.status for completion in completions} == {0}
    sizes = [packet.actual_length for completion in completions for packet in completion.packets]
    assert len(sizes) == 8 * count
    assert {176, 180} <= set(sizes) <= {0, 176, 180}
    data = b"".join(bytes(completion.data) for completion in completions)
    frames = struct.unpack(f"<{len(data) // 4}I", data)
    lost = [following - frame - 1 for frame, following in pairwise(frames) if following != frame + 1]
    assert all(missing >= 44 * -(-missing // 45) for missing in lost)  # whole packets, on a busy machine


def test_unplugged_in_mid_read(lending: Lending, borrower: PythonGuest, disk: Path) -> None:
    other = lending.lend("serial", driver="ftdi_sio")
    busid = lending.lend("storage", "ehci", file=disk, driver="usb-storage")
    local = borrower.attach(lending.port, busid)
    md5_of_disk(borrower)
    read_for_ever(borrower)
    lending.unplug(busid)
    borrower.run(f"until [ ! -e /sys/bus/usb/devices/{local} ] && [ -e /tmp/ended ]; do usleep 20000; done", timeout=30)
    assert [info.busid for info in lending.offered()] == [other]
    local = borrower.attach(lending.port, other)
    assert echo(borrower) == "hello\n"
    borrower.detach(local)


def read_for_ever(client: Guest) -> None:
    """Read the disk again and again, until that fails; /tmp/ended is there then."""
    read = "while dd if=/dev/sda of=/dev/null bs=64k iflag=direct; do touch /tmp/reading; done; touch /tmp/ended"
    client.run(f"rm -f /tmp/reading /tmp/ended; ({read}) >/dev/null 2>&1 </dev/null & :")
    client.run("until [ -e /tmp/reading ]; do usleep 20000; done", timeout=TIMEOUT)


def test_detached_while_busy(lending: Lending, borrower: PythonGuest, disk: Path) -> None:
    busid = lending.lend("storage", "xhci", file=disk, driver="usb-storage")
    local = borrower.attach(lending.port, busid)
    md5_of_disk(borrower)
    read_for_ever(borrower)
    borrower.detach(local)
    lending.wait_available(busid)
    lending.wait_driver(busid, "usb-storage")
    borrower.run("until [ -e /tmp/ended ]; do usleep 20000; done", timeout=30)
    assert md5_of_disk(lending.guest) == md5(disk)


RESET = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.ioctl(file, 0x5514)  # USBDEVFS_RESET
"""


def test_reset_by_the_client(lending: Lending, borrower: PythonGuest, disk: Path) -> None:
    busid = lending.lend("storage", "ehci", file=disk, driver="usb-storage")
    local = borrower.attach(lending.port, busid)
    md5_of_disk(borrower)
    borrower.python(RESET, borrower.device_file(local))
    assert md5_of_disk(borrower) == md5(disk)
    borrower.detach(local)


def test_second_import_and_the_end_of_the_server(lending: Lending, borrower: PythonGuest, disk: Path) -> None:
    busid = lending.lend("storage", "ehci", file=disk, driver="usb-storage")
    local = borrower.attach(lending.port, busid)
    assert lending.offered() == []
    refused = borrower.run(f"usbip --tcp-port {lending.port} attach -r 10.0.2.2 -b {busid}", check=False)
    assert (refused.returncode, "Device busy" in refused.text) == (1, True)
    printed = lending.stop()
    assert "ERROR" not in printed
    assert "Traceback" not in printed
    lending.wait_driver(busid, "usb-storage")
    borrower.run(f"until [ ! -e /sys/bus/usb/devices/{local} ]; do usleep 20000; done", timeout=TIMEOUT)
    assert md5_of_disk(lending.guest) == md5(disk)
