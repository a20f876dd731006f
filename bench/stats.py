"""`usbip-capture stats` on long captures: processor time and memory, against capinfos and tshark on the same file.

capinfos only walks from packet to packet; `tshark -z io,stat,0` decodes each of them, as far as stats must, too.

    python bench/stats.py [--megabytes 1000]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from usbip_capture.records.pcapng import Section
from usbip_capture.records.usbmon import UsbmonPacker
from usbip_capture.usb.urb import Buffer, Completion, TransferType, Urb

SMALL = (Urb(TransferType.INTERRUPT, 0x81, 8, interval=8), Completion(0, 8, bytes(8)))
LARGE = (Urb(TransferType.BULK, 0x82, 65536), Completion(0, 65536, bytes(65536)))
START_NS = 1_700_000_000 * 10**9
PENDING = 64
# As it is installed: with bytecode.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def write(path: Path, size: int, urb: Urb, completion: Completion) -> int:
    """A capture of at least so many bytes; how many packets it has."""
    section = Section(application="bench", hardware="", os="")
    packer = UsbmonPacker(0, 262_144, 1, 2)
    stamp, urbs = START_NS, 0
    with open(path, "wb") as file:
        file.write(section.header())
        file.write(section.interface(name="usbip0", description="USB/IP pi 1-1 1209:0001", snaplen=262_144)[1])
        while file.tell() < size:
            blocks: list[Buffer] = []
            for _ in range(100):
                urbs += 1
                packer.submit(blocks, stamp, urbs % PENDING, urb, b"")
                packer.complete(blocks, stamp + 40_000 + urbs % 97 * 311, urbs % PENDING, urb, completion)
                stamp += 125_000
            file.write(b"".join(blocks))
    return 2 * urbs


def run(command: list[str | Path]) -> tuple[float, int]:
    """Seconds of processor time, as others may be busy here, and memory of the process in MiB."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024


def measure(path: Path, packets: int, kind: str) -> None:
    """Print what each program took."""
    ours: list[str | Path] = [sys.executable, "-m", "usbip_capture.cli.main", "stats", path]
    others: dict[str, list[str | Path]] = {
        "capinfos": ["capinfos", "-c", path],
        "tshark -z io,stat,0": ["tshark", "-r", path, "-q", "-z", "io,stat,0"],
    }
    run(["cat", path])  # so that all of them find it in memory
    seconds, memory = run(ours)
    print(f"{kind}: {path.stat().st_size / 1e6:.0f} MB, {packets} packets")
    print(f"  stats: {seconds:.1f} s, {seconds / packets * 1e6:.2f} us a packet, {memory} MiB")
    for name, command in others.items():
        if shutil.which(str(command[0])) is None:
            print(f"  {name}: not installed")
            continue
        theirs, their_memory = run(command)
        print(f"  {name}: {theirs:.1f} s, {their_memory} MiB; stats takes {seconds / theirs:.2f} times as long")


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for kind, (urb, completion) in (("small URBs", SMALL), ("64 KiB URBs", LARGE)):
            path = Path(name) / "capture.pcapng"
            measure(path, write(path, args.megabytes * 1_000_000, urb, completion), kind)


if __name__ == "__main__":
    main()
