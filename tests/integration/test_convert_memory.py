"""Memory is bounded in bytes, for all connections together, whatever a recording unpacks to."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from struct import Struct, pack

import pytest

from tests.builders.tcp_recording import CLIENT, SERVER, START_NS, Hosts, Turn, packet, segments
from tests.builders.usbip_sessions import INFO, imported
from usbip_capture.wire import structs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="this system has no /proc"),
]

#: MiB. What was promised, and what Python has by itself.
LIMIT, ALONE = 300, 17
PCAP = pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 20, 1)
RECORD = Struct("<IIII")
# Runs the command with a share of each budget, and the peak of its memory as the last line.
PROGRAM = """
import re, sys
from usbip_capture.cli.main import main
from usbip_capture.convert import converter, fragments, hindsight, reassembly, sessions

budgets = {
    sessions: ["MAX_MEMORY", "_CHECK_AFTER", "MAX_CONNECTIONS"], reassembly: ["MAX_HELD", "_MAX_HELD_SEGMENTS"],
    hindsight: ["_MAX_EVENTS", "_MAX_BYTES"], converter: ["MAX_DEVICES"], fragments: ["MAX_WAITING"],
}
for module, names in budgets.items():
    for name in names:
        setattr(module, name, getattr(module, name) // int(sys.argv[1]))
code = main(sys.argv[2:])
# Not ru_maxrss, which begins with what the parent had when it forked.
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) >> 10, file=sys.stderr)
sys.exit(code)
"""


def connection(number: int, turns: list[Turn], *, size: int = 60_000) -> bytes:
    """The packets of one connection, which stays open."""
    hosts = Hosts(client=f"10.1.{number >> 8}.{number & 255}")
    out = []
    for segment in segments(turns, size=size, closed=False):
        raw = packet(segment, hosts=hosts)
        out.append(RECORD.pack(*divmod(START_NS, 10**9), len(raw), len(raw)) + raw)
    return b"".join(out)


def block(kind: int, body: bytes) -> bytes:
    size = 12 + len(body)
    return pack("<II", kind, size) + body + pack("<I", size)


SECTION = block(0x0A0D0D0A, pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
ETHERNET = block(1, pack("<HHI", 1, 0, 0))


def submit(seqnum: int, length: int, *, out: bool = False, packets: int = 0) -> bytes:
    return structs.CMD_SUBMIT.pack(1, seqnum, INFO.devid, not out, 1, 0, length, 0, packets, packets, bytes(8))


def behind_a_hole(share: int) -> Iterator[bytes]:
    yield PCAP
    for number in range(60):
        sent = segments([*imported(), (CLIENT, bytes(7_000_000 // share))], size=60_000 // share, closed=False)
        lost = next(n for n, s in enumerate(sent) if len(s.payload) == 60_000 // share)
        hosts = Hosts(client=f"10.1.0.{number}")
        for segment in sent[:lost] + sent[lost + 1 :]:
            raw = packet(segment, hosts=hosts)
            yield RECORD.pack(*divmod(START_NS, 10**9), len(raw), len(raw)) + raw


def messages_that_never_end(share: int) -> Iterator[bytes]:
    yield PCAP
    for number in range(60):
        yield connection(number, [*imported(), (CLIENT, submit(1, 16 << 20, out=True) + bytes((8 << 20) // share))])


def small_parts_of_large_portions(share: int) -> Iterator[bytes]:
    """The beginning of a message at the end of each large packet, which another connection is in."""
    yield PCAP
    for number in range(6000 // share):
        data = submit(1, 60_000, out=True) + bytes(60_000) + submit(2, 60_000, out=True)[:40]
        yield connection(number, [*imported(), (CLIENT, data)], size=64_000)


def urbs_that_are_never_answered(share: int) -> Iterator[bytes]:
    yield PCAP
    for number in range(40):
        yield connection(number, [*imported(), (CLIENT, b"".join(submit(1 + i, 8) for i in range(20_000 // share)))])


def isochronous_urbs_that_are_never_answered(share: int) -> Iterator[bytes]:
    yield PCAP
    descriptors = structs.ISO_PACKET.pack(0, 8, 0, 0) * 1024
    for number in range(20):
        data = b"".join(submit(1 + i, 8 * 1024, packets=1024) + descriptors for i in range(200 // share))
        yield connection(number, [*imported(), (CLIENT, data)])


def configurations(share: int) -> Iterator[bytes]:
    yield PCAP
    body = b"\x07\x05\x81\x02\0\x02\0" * 9361
    for number in range(30):
        turns = imported()
        for value in range(40 // share):
            setup = bytes((0x80, 6, value, 2, 0, 0, 0xFF, 0xFF))
            head = bytes((9, 2, 0xFF, 0xFF, 1, value, 0, 0xC0, 50))
            answer = (head + body).ljust(65535, b"\0")
            asked = structs.CMD_SUBMIT.pack(1, 1 + value, INFO.devid, 1, 0, 0, 65535, 0, 0, 0, setup)
            done = structs.RET_SUBMIT.pack(3, 1 + value, 0, 0, 0, 0, 65535, 0, 0, 0)
            turns += [(CLIENT, asked), (SERVER, done + answer)]
        yield connection(number, turns)


def connections(share: int) -> Iterator[bytes]:
    """More than are followed, each a session."""
    yield PCAP
    (request, _) = imported()
    for number in range(70_000 // share):
        hosts = Hosts(client=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        for segment in segments([request], closed=False)[:4:3]:
            raw = packet(segment, hosts=hosts)
            yield RECORD.pack(*divmod(START_NS, 10**9), len(raw), len(raw)) + raw


def devices(share: int) -> Iterator[bytes]:
    yield PCAP
    for number in range(30):
        turns: list[Turn] = []
        for n in range(1000 // share):
            turns += imported(replace(INFO, busid=f"{number}-{n}", devnum=n + 1000 * number))
        yield connection(number, turns)


def fragments(share: int) -> Iterator[bytes]:
    """Every second piece of many packets."""
    yield PCAP
    for ident in range(100):
        for place in range(0, 8000 // share, 2):
            ip = pack(">BBHHHBBH4s4s", 0x45, 0, 28, ident, 0x2000 | place, 64, 6, 0, bytes(4), bytes(4)) + bytes(8)
            raw = bytes(12) + b"\x08\x00" + ip
            yield RECORD.pack(1, 0, len(raw), len(raw)) + raw


def interfaces() -> Iterator[bytes]:
    yield SECTION
    for _ in range(100):
        yield ETHERNET * 10_000


def blocks_of_no_interest() -> Iterator[bytes]:
    yield SECTION + ETHERNET
    for _ in range(6):
        yield block(0xBAD, bytes(64 << 20))


def packets_with_much_beside_them() -> Iterator[bytes]:
    """Blocks of nearly 16 MiB, of which some kilobytes are a packet that waits."""
    yield SECTION + ETHERNET
    sent = segments([*imported(), (CLIENT, bytes(120_000))], size=5000, closed=False)
    lost = next(n for n, s in enumerate(sent) if len(s.payload) == 5000)
    for segment in sent[:lost] + sent[lost + 1 :]:
        raw = packet(segment)
        raw += bytes(-len(raw) % 4)
        yield block(6, pack("<IIIII", 0, 0, 0, len(raw), len(raw)) + raw + bytes(15 << 20))


#: What no budget bounds, but the size of what is read at a time: more than the limit, all of it together.
WHOLE = (interfaces, blocks_of_no_interest, packets_with_much_beside_them)
#: With the share of budgets that shows it as well as all of them.
SHARED = {
    behind_a_hole: 8, messages_that_never_end: 8, small_parts_of_large_portions: 8, urbs_that_are_never_answered: 8,
    isochronous_urbs_that_are_never_answered: 2, configurations: 8, connections: 8, devices: 8, fragments: 8,
}  # fmt: skip


@pytest.mark.parametrize("parts", WHOLE)
def test_memory_is_bounded(parts: Callable[[], Iterator[bytes]], tmp_path: Path) -> None:
    assert peak(parts(), tmp_path) < LIMIT


@pytest.mark.parametrize(
    ("parts", "share"), [*SHARED.items(), *(pytest.param(parts, 1, marks=pytest.mark.long) for parts in SHARED)]
)
def test_memory_is_bounded_by_the_budgets(parts: Callable[[int], Iterator[bytes]], share: int, tmp_path: Path) -> None:
    """A part of what is sent and of each budget takes that part of the memory; without them it would be more."""
    assert peak(parts(share), tmp_path, share) < ALONE + (LIMIT - ALONE) / share


def peak(parts: Iterator[bytes], folder: Path, share: int = 1) -> int:
    """MiB that converting these takes, with a share of each budget."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    tcp = folder / "tcp.pcap.gz"
    with tcp.open("wb") as file:
        for part in parts:
            file.write(packer.compress(part))
        file.write(packer.flush())
    command = [sys.executable, "-c", PROGRAM, str(share), "convert", str(tcp), str(folder / "usb.pcapng")]
    done = subprocess.run([*command, "--record-unlinks"], stderr=subprocess.PIPE, text=True, timeout=240, check=False)
    assert "Traceback" not in done.stderr
    return int(done.stderr.split()[-1])
