"""The rig itself: a kernel that boots, devices that come, work and go, and nothing that stays behind."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.kernel.conftest import Plug
from tests.kernel.rig import FakeDevice, Guest, RigError
from tests.kernel.rig.fakedev import BULK_IN, BULK_OUT, FAIL_ISO_IN, INTERRUPT_IN, ISO_IN, SEND_REPORTS, STALL_BULK_IN
from usbip_capture.device import Transfer
from usbip_capture.devices.devlist import list_devices
from usbip_capture.devices.remote import RemoteDevice, import_device
from usbip_capture.net.connecting import connect
from usbip_capture.net.transport import SocketTransport
from usbip_capture.usb.status import EPIPE
from usbip_capture.usb.urb import FLAG_DIR_IN, Completion, IsoPacket, TransferType, Urb

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
TIMEOUT = 20.0

IDS = {
    "storage": (0x46F4, 0x0001),
    "serial": (0x0403, 0x6001),
    "kbd": (0x0627, 0x0001),
    "mouse": (0x0627, 0x0001),
    "tablet": (0x0627, 0x0001),
    "net": (0x0525, 0xA4A2),
    "audio": (0x46F4, 0x0002),
    "ccid": (0x08E6, 0x4433),
    "redir": (0x1209, 0x0001),
}


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDevice]:
    with closing(FakeDevice(tmp_path / "fake.sock")) as device:
        yield device


@contextmanager
def imported(port: int, busid: str, configuration: int = 1) -> Iterator[RemoteDevice]:
    device = import_device(SocketTransport(connect("127.0.0.1", port, TIMEOUT), "the guest"), busid, TIMEOUT)
    with closing(device):
        assert control(device, 0x00, 9, configuration).status == 0
        yield device


def control(device: RemoteDevice, bmRequestType: int, bRequest: int, wValue: int = 0, wIndex: int = 0) -> Completion:
    return device.run(Urb.control(struct.pack("<BBHHH", bmRequestType, bRequest, wValue, wIndex, 0)), TIMEOUT)


def bulk_in(endpoint: int, length: int) -> Urb:
    return Urb(TransferType.BULK, endpoint, length, flags=FLAG_DIR_IN)


def bulk_out(endpoint: int, data: bytes) -> Urb:
    return Urb(TransferType.BULK, endpoint, len(data), data)


def exported(guest: Guest) -> dict[str, tuple[int, int]]:
    devices = list_devices(SocketTransport(connect("127.0.0.1", guest.usbip_port, TIMEOUT), "the guest"), TIMEOUT)
    return {device.busid: (device.idVendor, device.idProduct) for device in devices}


def test_guest_runs_commands(guest: Guest) -> None:
    assert guest.run("cat; echo to stderr >&2", b"typed in\n").text == "typed in\nto stderr\n"
    assert guest.run("exit 3", check=False).returncode == 3
    with pytest.raises(RigError, match="exit 1"):
        guest.run("false")
    with pytest.raises(RigError, match="timed out: sleep"):
        guest.run("sleep 60", timeout=0.2)


def test_second_guest_starts_from_the_saved_state(guest: Guest, client: Guest) -> None:
    assert client.restored


@pytest.mark.parametrize(
    ("kind", "bus"),
    [
        ("storage", "ehci"),
        ("storage", "xhci-ss"),
        ("serial", "xhci"),
        ("kbd", "xhci"),
        ("mouse", "uhci"),
        ("tablet", "ehci"),
        ("net", "xhci"),
        ("audio", "uhci"),
        ("ccid", "xhci"),
        ("redir", "xhci"),
    ],
)
def test_device_is_exported_and_again_when_plugged_in_anew(
    guest: Guest, disk: Path, tmp_path: Path, kind: str, bus: str
) -> None:
    busids = []
    for attempt in range(2):
        fake = FakeDevice(tmp_path / f"fake-{attempt}")
        busid = guest.export(guest.plug(kind, bus, file=disk, socket=fake.path if kind == "redir" else None))
        assert exported(guest) == {busid: IDS[kind]}
        guest.unplug(busid)
        fake.close()
        assert exported(guest) == {}
        busids.append(busid)
    assert busids[0] == busids[1]


def test_devices_behind_a_hub(guest: Guest, plug: Plug) -> None:
    hub = plug("hub")
    behind = {plug("serial", hub): IDS["serial"], plug("kbd", hub): IDS["kbd"]}
    assert set(behind) == {f"{hub}.1", f"{hub}.2"}
    assert exported(guest) == behind


def test_disk_answers(guest: Guest, plug: Plug, disk: Path) -> None:
    read_10 = struct.pack(">BBIBHB6x", 0x28, 0, 100, 0, 16, 0)
    with imported(guest.usbip_port, plug("storage", "ehci", file=disk)) as device:
        for tag, command in enumerate((bytes(16), read_10)):  # TEST UNIT READY takes the unit attention
            size = 16 * 512 if command is read_10 else 0
            wrapper = struct.pack("<4sIIBBB16s", b"USBC", tag, size, 0x80, 0, 10, command)
            assert device.run(bulk_out(0x02, wrapper), TIMEOUT).status == 0
            data = device.run(bulk_in(0x81, size), TIMEOUT).data if size else b""
            assert bytes(device.run(bulk_in(0x81, 13), TIMEOUT).data).startswith(b"USBS")
    assert bytes(data) == disk.read_bytes()[100 * 512 : 116 * 512]


def test_pressed_key_arrives(guest: Guest, plug: Plug) -> None:
    with imported(guest.usbip_port, plug("kbd")) as device:
        guest.send_keys("a")
        report = device.run(Urb(TransferType.INTERRUPT, 0x81, 8, flags=FLAG_DIR_IN, interval=8), TIMEOUT)
    assert bytes(report.data) == bytes([0, 0, 4, 0, 0, 0, 0, 0])  # HID usage 4: a


def test_fake_device_loops_stalls_and_reports(guest: Guest, plug: Plug, fake: FakeDevice) -> None:
    with imported(guest.usbip_port, plug("redir", socket=fake.path)) as device:
        assert device.run(bulk_out(BULK_OUT, b"once around"), TIMEOUT).actual_length == 11
        assert bytes(device.run(bulk_in(BULK_IN, 64), TIMEOUT).data) == b"once around"
        control(device, 0x40, STALL_BULK_IN, 1)
        assert device.run(bulk_in(BULK_IN, 64), TIMEOUT).status == -EPIPE
        assert control(device, 0x40, 0x7F).status == -EPIPE
        control(device, 0x40, SEND_REPORTS, 2)
        reports = [Urb(TransferType.INTERRUPT, INTERRUPT_IN, 8, flags=FLAG_DIR_IN, interval=10) for _ in range(2)]
        assert [bytes(device.run(urb, TIMEOUT).data) for urb in reports] == [b"report 0", b"report 1"]


def test_fake_microphone_counts_up_in_uneven_packets(guest: Guest, plug: Plug, fake: FakeDevice) -> None:
    packets = [IsoPacket(192 * n, 192) for n in range(16)]
    urb = Urb(TransferType.ISOCHRONOUS, ISO_IN, 192 * 16, flags=FLAG_DIR_IN, interval=1, packets=packets)
    with imported(guest.usbip_port, plug("redir", socket=fake.path)) as device:
        control(device, 0x40, FAIL_ISO_IN, 16)
        control(device, 0x01, 11, 1, 2)  # SET_INTERFACE
        transfers = [Transfer(urb) for _ in range(16)]  # in flight together: QEMU first fills a buffer
        for transfer in transfers:
            device.submit(transfer)
        assert all(device.wait(transfer, TIMEOUT) for transfer in transfers)
    completions = [transfer.completion for transfer in transfers if transfer.completion]
    packets = [packet for completion in completions for packet in completion.packets]
    assert {packet.status for packet in packets} > {0}
    assert {packet.actual_length for packet in packets} == {0, 176, 180}
    data = b"".join(bytes(completion.data) for completion in completions)
    frames = struct.unpack(f"<{len(data) // 4}I", data)
    lost = [following - frame - 1 for frame, following in pairwise(frames) if following != frame + 1]
    # Whole packets of 44 or 45 frames: those that failed, and those for which a busy host came too late.
    assert all(frames >= 44 * -(-frames // 45) for frames in lost)


def test_attached_disk_is_the_same_and_goes_back(guest: Guest, client: Guest, plug: Plug, disk: Path) -> None:
    busid = plug("storage", "ehci", file=disk)
    client.run("modprobe -a usb-storage sd_mod")
    local = client.attach(guest.usbip_port, busid)
    assert exported(guest) == {}
    client.run("until head -c 512 /dev/sda >/dev/null 2>&1; do usleep 20000; done")
    checksum = client.run("dd if=/dev/sda bs=64k 2>/dev/null | md5sum").text.split()[0]
    assert checksum == hashlib.md5(disk.read_bytes()).hexdigest()
    client.detach(local)
    guest.wait_available(busid)
    assert busid in exported(guest)


@pytest.mark.parametrize(("udc", "endpoint_out"), [("usbip-vudc.0", 0x01), ("dummy_udc.0", 0x02)])
def test_gadget_sources_and_sinks(start_guest: Callable[[], Guest], udc: str, endpoint_out: int) -> None:
    with Guest() as guest:
        guest.gadget(["SourceSink.0"], udc)
        if udc == "usbip-vudc.0":
            port, busid = guest.gadget_port, udc
        else:
            port, busid = guest.usbip_port, guest.export(f"{guest.bus('dummy')}-1")
        with imported(port, busid) as device:
            assert bytes(device.run(bulk_in(0x81, 4096), TIMEOUT).data) == bytes(4096)
            assert device.run(bulk_out(endpoint_out, bytes(4096)), TIMEOUT).actual_length == 4096


def test_command_line_and_a_guest_that_dies_with_it(start_guest: Callable[[], Guest], tmp_path: Path) -> None:
    rig = [sys.executable, "-m", "tests.kernel.rig"]
    boot = [*rig, "boot", "--plug", "kbd@ehci"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # who is killed leaves its folder behind
    with subprocess.Popen(boot, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        info = json.loads(process.stdout.readline())
        assert info["busids"] == ["3-1"]
        ran = subprocess.run([*rig, "run", str(info["agent_port"]), "lsusb"], cwd=ROOT, capture_output=True, check=True)
        assert b"0627:0001" in ran.stdout
        (qemu,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ended = os.pidfd_open(int(qemu))
        try:
            process.send_signal(signal.SIGKILL)
            assert select.select([ended], [], [], TIMEOUT)[0], "QEMU outlived the process that started it"
        finally:
            os.close(ended)
