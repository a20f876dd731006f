"""What the fuzzer begins with: good input of every target, from the goldens and from what other tests are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tests.builders import class_descriptors
from tests.builders.capture_files import Shown, classic, pcapng, read_classic
from tests.builders.tcp_recording import CLIENT, Turn, golden_turns, recording, segments
from tests.builders.usbip_sessions import session

_GOLDEN = Path(__file__).parents[1] / "golden"
_LARGEST = 20_000


def _turns() -> list[list[Turn]]:
    golden = [golden_turns(path)[:60] for path in sorted(_GOLDEN.glob("*/usbip.pcap"))]
    return [session(rounds=2), *golden]


def _observer() -> Iterator[bytes]:
    for turns in _turns():
        out = bytearray(b"\x01")
        for side, data in turns:
            for at in range(0, len(data), 400):
                piece = data[at : at + 400]
                # As `targets.observer` reads it: what it is, how much, and the bytes.
                out += bytes((3 if side == CLIENT else 2,)) + (len(piece) - 1).to_bytes(2, "little") + piece
        yield bytes(out)


def _one_side(side: int, size: int) -> Iterator[bytes]:
    for turns in _turns():
        out = bytearray()
        for data in (data for sent_by, data in turns if sent_by == side):
            for at in range(0, len(data), size):
                piece = data[at : at + size]
                out += (len(piece) - 1).to_bytes((size - 1).bit_length() + 7 >> 3, "little") + piece
        yield bytes(out)


def _convert() -> Iterator[bytes]:
    for turns in _turns():
        yield recording(segments(turns))


def _report() -> Iterator[bytes]:
    for path in sorted(_GOLDEN.glob("*/client-usbmon.pcap")):
        packets = read_classic(path.read_bytes())[:60]
        yield classic(packets, 220)
        yield pcapng([Shown(shown.timestamp_ns, shown.data) for shown in packets], 220)


def _descriptors() -> Iterator[bytes]:
    for value in vars(class_descriptors).values():
        if isinstance(value, bytes):
            yield value


def _lsusb() -> Iterator[bytes]:
    for path in sorted((Path(__file__).parents[1] / "unit/describe/golden").glob("*.txt")):
        yield path.read_bytes()


def _syslog() -> Iterator[bytes]:
    rfc5424 = b"<11>1 2000-01-01T00:00:01.000Z esp wifi - - - E (1000) wifi: lost"
    for message in (
        b"%d %s" % (len(rfc5424), rfc5424),
        rfc5424 + b"\n",
        b"<34>Oct 11 22:14:15 machine su[12]: failed\0",
        b"E (1234) wifi: lost\nI main_task: Started\r\n\x1b[0;31mW (5) a::b: \xff\xfe\x1b[0m\n",
    ):
        yield b"\x02\x00" + bytes((min(len(message), 256) - 1, 0)) + message


def _texts() -> Iterator[bytes]:
    yield from (
        b"usbip://pi:3240/1-1.2?pcap=x.pcapng&reconnect=5", b"[fe80::1%eth0]:3240", b"pi:3241", b"303a:4004:0042",
        b"1-1,1-2.3", b"udp:*:514,tls:*:6514", b"192.0.2.0/24, 2001:db8::/32", b":3240",
    )  # fmt: skip


def _control_socket() -> Iterator[bytes]:
    for request in range(20):
        for field in range(4):
            yield (
                bytes((1, 1, request)) + bytes(field) + bytes((1, 5, field)) * 6
            )  # as `targets.control_socket` reads it
    yield bytes((1, 0)) + b'\x40\x00{"token": "x", "request": "status"}\n'


def _filters() -> Iterator[bytes]:
    yield from (
        b"bulk and ep == 0x81", b"not control or (status != 0 and length >= 64)", b"ep in (0x81, 0x02..0x05)",
        b"device == 303a:4004 and class == hid", b"error", b"descriptors",
    )  # fmt: skip


_SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "client": lambda: _one_side(1 - CLIENT, 500),
    "server": lambda: _one_side(CLIENT, 300),
    "observer": _observer,
    "convert": _convert,
    "report": _report,
    "descriptors": _descriptors,
    "lsusb": _lsusb,
    "syslog": _syslog,
    "texts": _texts,
    "control_socket": _control_socket,
    "filters": _filters,
}


def seeds(target: str) -> list[bytes]:
    """What there is for a target; cut, as a fuzzer changes small inputs best."""
    return [seed[:_LARGEST] for seed in _SEEDS.get(target, lambda: iter(()))()]
