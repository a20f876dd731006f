"""Small files that ask for much: memory and work stay bounded, whatever a capture claims."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import pack

import pytest

from tests.builders.capture_files import Shown, classic, option, pcapng
from usbip_capture.filters.language import Facts, parse
from usbip_capture.recordings.packets import MAX_COMMENT_TEXT, MAX_PACKET, MAX_TEXT, Interface
from usbip_capture.report import statistics
from usbip_capture.report.measure import measure
from usbip_capture.report.text import text_report

MOST_MIB = 300
SECTION = pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)


def block(kind: int, body: bytes) -> bytes:
    size = 12 + len(body)
    return pack("<II", kind, size) + body + pack("<I", size)


def interface(options: bytes = b"") -> bytes:
    return block(1, pack("<HHI", 220, 0, 0) + options)


def submission(urb_id: int, device: int = 2, transfer_type: int = 3, endpoint: int = 0x81) -> bytes:
    head = pack(
        "<QBBBBHBBqiiII8s", urb_id, ord("S"), transfer_type, endpoint, device, 1, 0, 0, 0, 0, 0, 64, 0, bytes(8)
    )
    return head + bytes(16)


def completion(urb_id: int, length: int = 0) -> bytes:
    head = pack("<QBBBBHBBqiiII8s", urb_id, ord("C"), 3, 0x81, 2, 1, 0, 0, 0, 0, 0, length, 0, bytes(8))
    return head + bytes(16)


def packet(number: int, data: bytes, options: bytes = b"") -> bytes:
    return block(6, pack("<IIIII", number, 400_000, 0, len(data), len(data)) + data + bytes(-len(data) & 3) + options)


def statistics_block(number: int, options: bytes) -> bytes:
    return block(5, pack("<III", number, 400_000, 0) + options)


def comments_of_statistics() -> Iterator[bytes]:
    yield SECTION + interface() * 300
    for number in range(300):
        yield statistics_block(number, option("<", 1, b"c" * 65000) * 16)


def comments_of_packets() -> Iterator[bytes]:
    yield SECTION + interface() * 300
    comments = [option("<", 1, bytes((65 + n,)) * 65000) for n in range(16)]
    for number in range(300):
        yield packet(number, submission(1), b"".join(comments))


def names() -> Iterator[bytes]:
    yield SECTION
    for _ in range(2000):
        yield interface(option("<", 2, b"n" * 65000) + option("<", 3, b"d" * 65000))


def urbs_that_never_come_back() -> Iterator[bytes]:
    yield SECTION + interface() * 300
    for number in range(300):
        yield b"".join(packet(number, submission(n)) for n in range(1000))


def devices() -> Iterator[bytes]:
    yield SECTION + interface() * 100
    for number in range(100):
        yield b"".join(packet(number, submission(1, device)) for device in range(128))


def configurations() -> Iterator[bytes]:
    raw = bytes((9, 2, 0xFF, 0xFF, 1, 1, 0, 0x80, 50)) + bytes((9, 4, 0, 0, 255, 255, 0, 0, 0))
    raw += bytes((7, 5, 0x81, 2, 0, 2, 0)) * ((0xFFFF - len(raw)) // 7)
    raw += bytes(0xFFFF - len(raw))
    setup = bytes((0x80, 6, 0, 2, 0, 0, 0xFF, 0xFF))
    yield SECTION + interface() * 20
    for number in range(20):
        for device in range(1, 100):
            ask = pack("<QBBBBHBBqiiII8s", 1, ord("S"), 2, 0x80, device, 1, 0, 0, 0, 0, 0, 65535, 0, setup)
            answer = pack("<QBBBBHBBqiiII8s", 1, ord("C"), 2, 0x80, device, 1, 0, 0, 0, 0, 0, 65535, 65535, bytes(8))
            yield packet(number, ask + bytes(16)) + packet(number, answer + bytes(16) + raw)


def longest_packets() -> Iterator[bytes]:
    yield SECTION + interface()
    for urb_id in range(3):
        yield packet(0, completion(urb_id, MAX_PACKET - 64) + bytes(MAX_PACKET - 64))


def longest_blocks() -> Iterator[bytes]:
    yield SECTION + interface()
    for _ in range(3):
        yield block(0xBAD, bytes(MAX_PACKET))


@pytest.mark.parametrize(
    "parts",
    [
        comments_of_statistics,
        comments_of_packets,
        names,
        urbs_that_never_come_back,
        devices,
        configurations,
        longest_packets,
        longest_blocks,
    ],
)
def test_memory(parts: Callable[[], Iterator[bytes]], tmp_path: Path) -> None:
    path = tmp_path / "bomb.pcapng.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for part in parts():
            file.write(part)
    page = tmp_path / "page.html"
    program = [sys.executable, "-m", "usbip_capture.cli.main", "stats", path, "--html", page]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *map(str, program)], check=True, capture_output=True, text=True, timeout=120
    )
    assert int(done.stdout) < MOST_MIB << 10
    assert page.stat().st_size < 10 << 20


_MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_long_texts_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "long.pcapng"
    options = option("<", 1, b"c" * 65000) * 64
    parts = [SECTION, interface(option("<", 2, b"n" * 65000)) * 20]
    path.write_bytes(b"".join(parts) + b"".join(statistics_block(n, options) for n in range(20)))
    found = list(measure(path).statistics.interfaces)
    assert {len(known.name) for known in found} == {MAX_TEXT}
    comments = [len(comment) for known in found for comment in known.comments]
    assert max(comments) == MAX_TEXT
    assert MAX_COMMENT_TEXT - MAX_TEXT < sum(comments) <= MAX_COMMENT_TEXT
    assert len("".join(text_report(measure(path).statistics))) < 2 * MAX_COMMENT_TEXT


def test_pending_urbs_are_bounded_over_all_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MAX_PENDING", 500)
    found = statistics.Statistics()
    interfaces = [Interface(220, "<", 1, 1) for _ in range(5)]
    for number in range(1000):
        for known in interfaces:
            data = submission(number)
            found.add((known, number, data, 0, len(data), 0, []))
    out = sum(len(in_flight.urbs) for in_flight in found._in_flight.values())
    assert 250 <= out < 500 + 64 * 5
    found.finish()
    counted = [e.unfinished for totals in found.interfaces.values() for e in totals.endpoints.values()]
    assert counted == [1000] * 5


@pytest.mark.parametrize("size", [2000, 4000])
def test_work_for_urbs_that_never_come_back_is_the_same_for_each(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MAX_PENDING", size // 4)
    found = statistics.Statistics()
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    capture = [Shown(n, submission(n)) for n in range(size)]
    known = Interface(220, "<", 1, 1)
    sys.setprofile(count)
    try:
        for shown in capture:
            found.add((known, shown.timestamp_ns, shown.data, 0, len(shown.data), 0, []))
    finally:
        sys.setprofile(None)
    assert calls < 40 * size
    found.finish()
    assert sum(e.unfinished for e in found.interfaces[known].endpoints.values()) == size


def test_simple_packets_are_as_long_as_the_interface_keeps(tmp_path: Path) -> None:
    # Ref: draft-ietf-opsawg-pcapng, 4.4: the captured length is the least of original length and snaplen.
    from usbip_capture.recordings.reading import open_capture

    path = tmp_path / "simple.pcapng"
    description = block(1, pack("<HHI", 220, 0, 95))
    path.write_bytes(SECTION + description + block(3, pack("<I", 314) + bytes(96)))
    with open_capture(path) as capture:
        assert [end - start for _, _, _, start, end, _, _ in capture.packets] == [95]


@pytest.mark.parametrize("joined", [" or ", " and ", ", "])
def test_filters_may_have_many_terms(joined: str) -> None:
    many = joined.join(str(n) if joined == ", " else f"ep != {n + 300}" for n in range(5000))
    found = parse(f"ep in ({many})" if joined == ", " else many)
    assert found is not None
    assert found.test(Facts(ep=0x81)) is True
    assert found.test(Facts()) is None


def test_equal_ids_of_different_devices_and_endpoints_are_different_urbs(tmp_path: Path) -> None:
    path = tmp_path / "ids.pcap"
    packets = [Shown(1000, submission(1, device)) for device in (2, 3)]
    packets += [Shown(1500, submission(1, 2, 3, 0x82)), Shown(3000, completion(1))]
    path.write_bytes(classic(packets, 220))
    (totals,) = measure(path).statistics.interfaces.values()
    assert [(e.device.name, e.address, e.unfinished) for e in totals.endpoints.values()] == [
        ("1.2", 0x81, 0),
        ("1.3", 0x81, 1),
        ("1.2", 0x82, 1),
    ]


def test_a_log_alone_is_shown_and_tcp_gets_a_hint(tmp_path: Path) -> None:
    from usbip_capture.errors import CaptureError

    path = tmp_path / "tcp.pcapng"
    path.write_bytes(pcapng([Shown(1, bytes(60))], 1))
    with pytest.raises(CaptureError, match=r"has nothing of USB: link type 1 .*'usbip-capture convert' makes"):
        measure(path)
    path.write_bytes(pcapng([Shown(1, bytes(60))], 195))
    with pytest.raises(CaptureError, match="has nothing of USB: link type 195") as failure:
        measure(path)
    assert "convert" not in str(failure.value)
