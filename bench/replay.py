"""`replay` on long captures: time to the first answer and memory, against tshark on the same file; URBs a second.

Times are those of the processor: a busy machine changes them little.

    python bench/replay.py [--megabytes 1000] [--kinds small,large]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from usbip_capture.device import Transfer
from usbip_capture.records.pcapng import Section
from usbip_capture.records.usbmon import UsbmonPacker
from usbip_capture.replayed.device import ReplayedDevice
from usbip_capture.replayed.recording import chosen, read_recordings
from usbip_capture.usb.urb import Buffer, Completion, TransferType, Urb

START_NS = 1_700_000_000 * 10**9
PENDING = 64
ANSWERED = 20_000
_KINDS = {
    "keys": "interrupt IN, 8 bytes",
    "serial": "bulk OUT and IN, 16 bytes",
    "disk": "bulk OUT, 31 bytes, and IN, 64 KiB and 13 bytes",
    "writes": "bulk OUT, 64 KiB",
}


def exchanges(kind: str, number: int) -> list[tuple[Urb, bytes, Completion]]:
    """Of the kind, what comes each time."""
    counter = number.to_bytes(4, "little")
    if kind == "keys":
        return [(Urb(TransferType.INTERRUPT, 0x81, 8, interval=8), b"", Completion(0, 8, counter * 2))]
    if kind == "serial":
        sent = b"ask " + counter * 3
        out = (Urb(TransferType.BULK, 0x02, 16, sent), sent, Completion(0, 16))
        return [out, (Urb(TransferType.BULK, 0x81, 64), b"", Completion(0, 16, counter * 4))]
    if kind == "writes":
        sent = counter * 16384
        return [(Urb(TransferType.BULK, 0x02, 65536, sent), sent, Completion(0, 65536))]
    sent = b"USBC" + counter + counter + b"\x80\0\x0a\x28" + counter + bytes(11)
    return [
        (Urb(TransferType.BULK, 0x02, 31, sent), sent, Completion(0, 31)),
        (Urb(TransferType.BULK, 0x81, 65536), b"", Completion(0, 65536, counter * 16384)),
        (Urb(TransferType.BULK, 0x81, 13), b"", Completion(0, 13, b"USBS" + counter + bytes(5))),
    ]


def write(path: Path, size: int, kind: str) -> int:
    """A capture of at least so many bytes; how many URBs it has."""
    section = Section(application="bench", hardware="", os="")
    packer = UsbmonPacker(0, 262_144, 1, 2)
    stamp, urbs, number = START_NS, 0, 0
    with open(path, "wb") as file:
        file.write(section.header())
        file.write(section.interface(name="usbip0", description="USB/IP pi 1-1 1209:0001", snaplen=262_144)[1])
        while file.tell() < size:
            blocks: list[Buffer] = []
            for _ in range(20):
                number += 1
                for urb, sent, completion in exchanges(kind, number):
                    urbs += 1
                    packer.submit(blocks, stamp, urbs % PENDING, urb, sent)
                    packer.complete(blocks, stamp + 40_000, urbs % PENDING, urb, completion)
                    stamp += 125_000
            file.write(b"".join(blocks))
    return urbs


def answer(device: ReplayedDevice, urb: Urb) -> None:
    """Submit, and wait for its completion."""
    transfer = Transfer(urb)
    device.submit(transfer)
    assert device.wait(transfer, 60)
    assert transfer.completion is not None
    assert not transfer.completion.status


def replay(path: Path, kind: str) -> dict[str, float]:
    """In a process of its own: seconds to the first answer, MiB, URBs a second."""
    before, begin = _memory(), time.process_time()
    recording = chosen(read_recordings(path), "")
    device = ReplayedDevice(recording, speed=0)
    answer(device, Urb(TransferType.CONTROL, 0, 0, setup=bytes((0, 9, 1, 0, 0, 0, 0, 0))))
    first = time.process_time() - begin
    urbs, number = 0, 0
    begin = time.process_time()
    while urbs < min(ANSWERED, len(recording.exchanges)):
        number += 1
        for urb, _, _ in exchanges(kind, number):
            answer(device, urb)
            urbs += 1
    seconds = time.process_time() - begin
    device.close()
    assert not device.outcome.divergences
    return {"first": first, "memory": _memory() - before, "rate": urbs / seconds}


def compare(path: Path) -> dict[str, float]:
    """In a process of its own: seconds and MiB to compare a capture with itself."""
    from usbip_capture.comparing.differences import compare

    before, begin = _memory(), time.process_time()
    (first,), (second,) = read_recordings(path), read_recordings(path)
    found = compare(first.exchanges, second.exchanges, (first.known, second.known))
    assert not found.differences
    return {"seconds": time.process_time() - begin, "memory": _memory() - before}


def _memory() -> float:
    """MiB that this process needed at most."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def apart(what: str, path: Path, kind: str) -> dict[str, Any]:
    """The same, in another process."""
    command: list[str | Path] = [sys.executable, __file__, "--of", what, "--path", path, "--kinds", kind]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, env=env).stdout)
    return found


def tshark(path: Path) -> float:
    """Seconds of one pass."""
    process = subprocess.Popen(["tshark", "-r", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def measure(path: Path, kind: str, size: int, *, with_compare: bool) -> None:
    """Print what one kind took."""
    urbs = write(path, size, kind)
    megabytes = path.stat().st_size / 1e6
    print(f"{kind} ({_KINDS[kind]}): {megabytes:.0f} MB, {urbs} URBs")
    subprocess.run(["cat", path], check=True, stdout=subprocess.DEVNULL)  # so that all of them find it in memory
    theirs = tshark(path) if shutil.which("tshark") else float("nan")
    ours = apart("replay", path, kind)
    share = ours["memory"] / megabytes * 100
    print(f"  first answer after {ours['first']:.1f} s, {ours['first'] / theirs:.2f} times tshark -r ({theirs:.1f} s)")
    print(f"  memory: {ours['memory']:.0f} MiB, {share:.1f} % of the file; {ours['rate']:.0f} URBs/s")
    if with_compare:
        both = apart("compare", path, kind)
        print(f"  compare with itself: {both['seconds']:.1f} s, {both['memory']:.0f} MiB")


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--kinds", default=",".join(_KINDS))
    parser.add_argument("--compare", action="store_true", help="a capture with itself, too")
    parser.add_argument("--of", choices=("replay", "compare"), help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.of:
        print(json.dumps(replay(args.path, args.kinds) if args.of == "replay" else compare(args.path)))
        return
    with tempfile.TemporaryDirectory() as name:
        for kind in args.kinds.split(","):
            path = Path(name) / "capture.pcapng"
            measure(path, kind, args.megabytes * 1_000_000, with_compare=args.compare)


if __name__ == "__main__":
    main()
