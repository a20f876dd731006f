"""The converter against tshark's own dissectors on the same recording, in the same run; and the memory for a long one.

    python bench/convert.py [--urbs 100000] [--rounds 3] [--long 2]

The recordings are made here: a bulk or interrupt IN endpoint read over Ethernet, each request and reply with its
acknowledgement; 64 KiB replies as an Ethernet carries them (1448 bytes a segment) and as loopback or an adapter that
joins segments shows them (two a reply). Both programs read from memory (/dev/shm, where there is one), ours writes a
new file there: how fast a disk takes hundreds of megabytes measures neither. The long recording is on disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from struct import Struct

from usbip_capture.system.compiling import build
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.wire import structs

INFO = DeviceInfo("1-1", 1, 2, Speed.HIGH, 0x1209, 0x0001)
CLIENT, SERVER = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
PORTS = 40000, 3240
RECORD = Struct("<IIII")
FRAME = Struct(">12xHBxHxxHBBxx4s4sHHIIBBHxxxx")
SMALL, LARGE = 8, 65536
# As it is installed: with bytecode.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class Recording:
    """A pcap file of one session."""

    def __init__(self, path: Path, segment: int) -> None:
        self._file = path.open("wb", buffering=1 << 20)
        self._file.write(Struct("<IHHiIII").pack(0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        self._segment = segment
        self._sent = [1000, 5000]
        self._time = 1_700_000_000_000_000
        self.size = 24

    def send(self, side: int, data: bytes) -> None:
        """Bytes of the client (0) or the server (1), in segments, and the acknowledgement of the other side."""
        for at in range(0, len(data), self._segment):
            piece = data[at : at + self._segment]
            self._packet(side, piece, 0x18)
            self._sent[side] = (self._sent[side] + len(piece)) & 0xFFFFFFFF
        self._packet(1 - side, b"", 0x10)

    def close(self) -> None:
        """The file is complete."""
        self._file.close()

    def _packet(self, side: int, payload: bytes, flags: int) -> None:
        source, target = (SERVER, CLIENT) if side else (CLIENT, SERVER)
        ports = PORTS[::-1] if side else PORTS
        head = FRAME.pack(
            0x0800, 0x45, 40 + len(payload), 0x4000, 64, 6, source, target, *ports,
            self._sent[side], self._sent[1 - side], 5 << 4, flags, 0xFFFF,
        )  # fmt: skip
        length = len(head) + len(payload)
        self._time += 10
        self._file.write(RECORD.pack(*divmod(self._time, 1_000_000), length, length) + head + payload)
        self.size += RECORD.size + length


def make(path: Path, urbs: int, length: int, segment: int, size: int = 0) -> int:
    """A recording of so many URBs, or of `size` bytes if that is given; the number of URBs."""
    recording = Recording(path, segment)
    request = structs.OP_COMMON.pack(structs.VERSION, structs.OP_REQ_IMPORT, 0) + structs.pack_busid("1-1")
    recording.send(0, request)
    reply = structs.OP_COMMON.pack(structs.VERSION, structs.OP_REP_IMPORT, 0) + structs.pack_device(INFO)
    recording.send(1, reply)
    data = bytes(range(256)) * (length // 256 + 1)
    interval = 8 if length == SMALL else 0
    seqnum = 0
    while seqnum < urbs or recording.size < size:
        seqnum += 1
        recording.send(0, structs.CMD_SUBMIT.pack(1, seqnum, INFO.devid, 1, 1, 0, length, 0, 0, interval, bytes(8)))
        recording.send(1, structs.RET_SUBMIT.pack(3, seqnum, 0, 0, 0, 0, length, 0, 0, 0) + data[:length])
    recording.close()
    return seqnum


def ours(path: Path, out: str) -> list[str]:
    return [sys.executable, "-m", "usbip_capture.cli.main", "convert", str(path), out]


def tshark(path: Path) -> list[str]:
    return ["tshark", "-r", str(path), "-d", "tcp.port==3240,usbip"]


def run(command: list[str]) -> tuple[float, int]:
    """Seconds, and the most memory it had, in KiB."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss


def cases(urbs: int) -> Iterator[tuple[str, int, int, int, float]]:
    """Name, URBs, their length, bytes of a segment, target."""
    small, large = (4.0, 3.0) if build() == "compiled" else (2.0, 2.0)
    yield f"{SMALL}-byte URBs", urbs, SMALL, 1448, small
    yield "64 KiB URBs, 1448-byte segments", urbs // 40, LARGE, 1448, large
    yield "64 KiB URBs, 32 KiB segments", urbs // 20, LARGE, 32 << 10, large


def in_memory() -> str | None:
    """A folder that is not on a disk, if it has room."""
    folder = "/dev/shm"
    return folder if os.path.isdir(folder) and shutil.disk_usage(folder).free > 1 << 30 else None


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--urbs", type=int, default=100_000, help="URBs of the recording of small ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", type=float, default=2.0, help="GB of the long recording, 0 for none")
    args = parser.parse_args()
    if shutil.which("tshark") is None:
        raise SystemExit("tshark is not installed: there is nothing to compare with")
    print(f"convert is {build()} here")
    with tempfile.TemporaryDirectory(dir=in_memory()) as name:
        path, out = Path(name) / "tcp.pcap", Path(name) / "usb.pcapng"
        for what, urbs, length, segment, target in cases(args.urbs):
            made = make(path, urbs, length, segment)
            rounds = []
            for _ in range(args.rounds):
                out.unlink(missing_ok=True)  # emptying the old one would count as well
                rounds.append((run(tshark(path))[0], *run(ours(path, str(out)))))
            theirs, own = (statistics.median(r[n] for r in rounds) for n in (0, 1))
            ratio = statistics.median(t / o for t, o, _ in rounds)
            print(
                f"{what}: {made} in {path.stat().st_size >> 20} MiB: tshark {theirs:.2f} s, convert {own:.2f} s"
                f" ({made / own:.0f} URBs/s, {rounds[0][2] >> 10} MiB of memory), ratio {ratio:.2f}"
                f"   (target: at least {target})"
            )
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "tcp.pcap"
        for size in (args.long / 10, args.long) if args.long else ():
            made = make(path, 0, LARGE, 1448, int(size * 1e9))
            seconds, memory = run(ours(path, os.devnull))
            print(f"{path.stat().st_size / 1e9:.2f} GB, {made} URBs: {seconds:.1f} s, {memory >> 10} MiB of memory")


if __name__ == "__main__":
    main()
