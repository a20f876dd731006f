"""Our server against the kernel's own, `usbip-host`: in one guest, the same disk, the same client.

Rounds alternate, so that the ratios hold while the machine's speed drifts. Control transfers and bulk reads are
those of our client on this machine, one at a time; a second guest's kernel reads the disk through each server. What
the guests run is emulated, which makes Python dearer there than it is on any real machine.

    python bench/kernel_server.py [--rounds 3] [--seconds 2]
"""

from __future__ import annotations

import argparse
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.kernel.lending import TIMEOUT, Lending
from tests.kernel.rig import PythonGuest, unsupported
from usbip_capture.devices.remote import RemoteDevice, import_device
from usbip_capture.net.connecting import connect
from usbip_capture.net.transport import SocketTransport
from usbip_capture.usb.setup import get_descriptor, set_configuration
from usbip_capture.usb.urb import FLAG_DIR_IN, TransferType, Urb

BLOCK = 512
DISK_SIZE = 8 << 20
GOALS = {"control": 0.5, "bulk 64 KiB": 0.6, "bulk 1 MiB": 0.85, "disk, by a kernel": 0.6}
DEVICE_DESCRIPTOR = get_descriptor(1, 0, 0, 18).pack()


def imported(port: int, busid: str) -> RemoteDevice:
    return import_device(SocketTransport(connect("127.0.0.1", port, TIMEOUT), "the guest"), busid, TIMEOUT)


class Disk:
    """A disk as our client has it: bulk-only transport. Ref: USB Mass Storage Class, Bulk-Only Transport 1.0"""

    def __init__(self, device: RemoteDevice) -> None:
        self._device = device
        self._tag = 0
        device.run(Urb.control(set_configuration(1).pack()), TIMEOUT)
        self.command(bytes(6), 0)  # takes the unit attention

    def command(self, block: bytes, length: int) -> int:
        """One SCSI command; the bytes that came."""
        self._tag += 1
        wrapper = struct.pack("<4sIIBBB16s", b"USBC", self._tag, length, 0x80, 0, len(block), block)
        self._device.run(Urb(TransferType.BULK, 0x02, len(wrapper), wrapper), TIMEOUT)
        came = self._inward(length) if length else 0
        self._inward(13)
        return came

    def read(self, blocks: int) -> int:
        return self.command(struct.pack(">BBIBHB", 0x28, 0, 0, 0, blocks, 0), blocks * BLOCK)

    def _inward(self, length: int) -> int:
        return self._device.run(Urb(TransferType.BULK, 0x81, length, flags=FLAG_DIR_IN), TIMEOUT).actual_length


def rate(step: Callable[[], int], seconds: float) -> float:
    """What `step` returns, a second."""
    began, done = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        done += step()
    return done / (time.monotonic() - began)


def our_client(port: int, busid: str, seconds: float) -> dict[str, float]:
    """Control transfers a second, and MB/s of two sizes of URBs."""
    with closing(imported(port, busid)) as device:
        disk = Disk(device)

        def control() -> int:
            device.run(Urb.control(DEVICE_DESCRIPTOR), TIMEOUT)
            return 1

        return {
            "control": rate(control, seconds),
            "bulk 64 KiB": rate(lambda: disk.read(128), seconds) / 1e6,
            "bulk 1 MiB": rate(lambda: disk.read(2048), seconds) / 1e6,
        }


def kernel_client(client: PythonGuest, port: int, busid: str) -> float:
    """MB/s of the whole disk."""
    local = client.attach(port, busid)
    client.run("until head -c 512 /dev/sda >/dev/null 2>&1; do usleep 20000; done", timeout=TIMEOUT)
    began = time.monotonic()
    client.run(f"dd if=/dev/sda of=/dev/null bs=64k count={DISK_SIZE >> 16} iflag=direct 2>/dev/null", timeout=120)
    seconds = time.monotonic() - began
    client.detach(local)
    return DISK_SIZE / seconds / 1e6


def one_round(lending: Lending, client: PythonGuest, busid: str, seconds: float) -> tuple[dict[str, float], ...]:
    """Ours, then the kernel's."""
    results = []
    for ours in (True, False):
        if ours:
            lending.start()
            lending.wait_available(busid)
            port = lending.port
        else:
            lending.guest.export(busid)
            port = lending.guest.usbip_port
        found = our_client(port, busid, seconds)
        lending.wait_available(busid) if ours else lending.guest.wait_available(busid)
        found["disk, by a kernel"] = kernel_client(client, port, busid)
        if ours:
            lending.wait_available(busid)
            lending.stop()
        else:
            lending.guest.wait_available(busid)
            lending.guest.run(f"usbip unbind -b {busid}")
        results.append(found)
    return tuple(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each of our client's measurements")
    args = parser.parse_args()
    if reason := unsupported():
        raise SystemExit(reason)
    with tempfile.TemporaryDirectory() as folder, PythonGuest() as guest, PythonGuest() as client:
        image = Path(folder, "disk.img")
        image.write_bytes(bytes(DISK_SIZE))
        guest.add(ROOT / "usbip_capture", *ROOT.glob("usbip_capture__mypyc*"))  # the latter where it is compiled
        client.run("modprobe -a vhci-hcd usb-storage sd_mod")
        lending = Lending(guest)
        busid = lending.lend("storage", "xhci", file=image)
        lending.stop()
        rounds = [one_round(lending, client, busid, args.seconds) for _ in range(args.rounds)]
        lending.close()
    print(f"our server / usbip-host, medians of {args.rounds} rounds")
    for name, goal in GOALS.items():
        ours, kernels = (statistics.median(r[server][name] for r in rounds) for server in (0, 1))
        ratio = statistics.median(r[0][name] / r[1][name] for r in rounds)
        unit = "/s" if name == "control" else " MB/s"
        print(f"  {name:18} {ours:7.2f}{unit} / {kernels:7.2f}{unit}   {ratio:.2f}   (target: at least {goal})")


if __name__ == "__main__":
    main()
