"""Packets that are counted in runs give the same as packets that are counted one by one."""

from __future__ import annotations

import random
from struct import pack
from typing import Any

import pytest

from tests.builders.capture_files import option
from usbip_capture.errors import CaptureError
from usbip_capture.recordings.packets import Interface
from usbip_capture.recordings.reading import read_packets
from usbip_capture.recordings.stream import Stream
from usbip_capture.report import runs, statistics
from usbip_capture.report.runs import Runs
from usbip_capture.report.statistics import InterfaceTotals, Statistics

SECTION = pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
START_NS = 1_700_000_000 * 10**9
HEADER = "<QBBBBHBBqiiII8siiII"
SETUPS = [
    bytes.fromhex("8006000100001200"),
    bytes.fromhex("0009010000000000"),
    bytes.fromhex("a1210000000007 00"),
    bytes.fromhex("4003000000000000"),
]
DESCRIPTOR = bytes.fromhex("1201000200000040 5c04 3412 0001 000000 01")


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) & 3)
    return pack(order + "II", kind, 12 + len(body)) + body + pack(order + "I", 12 + len(body))


def packet(number: int, ticks: int, data: bytes, options: bytes = b"", missing: int = 0) -> bytes:
    head = pack("<IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data) + missing)
    return block(6, head + data + bytes(-len(data) & 3) + options)


def event(chance: random.Random, *, ids: int, devices: int) -> bytes:
    """Any event: mostly one that is as most are."""
    kind = chance.choice((1, 2, 3, 3, 3, 3, 0, 7)) if chance.random() < 0.5 else 3
    stage = ord(chance.choice("SC"))
    status = -115 if stage == ord("S") else chance.choice((0, 0, 0, 0, 0, 0, -32, -2, -104, -108))
    endpoint = chance.choice((0x81, 0x02)) if kind != 2 else chance.choice((0x00, 0x80))
    if chance.random() < 0.02:
        stage, endpoint = chance.choice(((ord("E"), 0x81), (0, 0x02), (ord("S"), 0xF1)))
    setup = chance.choice(SETUPS) if kind == 2 and stage == ord("S") else bytes(8)
    data = DESCRIPTOR if kind == 2 else bytes(chance.choice((0, 0, 8, 61)))
    many = chance.choice((0, 1, 3)) if kind == 0 else 0
    descriptors = pack("<iIII", chance.choice((0, 0, -71)), 0, 8, 0) * many
    length = chance.choice((0, len(data), 300))
    header = pack(HEADER, chance.randrange(ids), stage, kind, endpoint, chance.randrange(devices), 1, 0,
                  chance.choice((0, 0, ord(">"))), 0, 0, status, length, len(data), setup, 0, 0, 0, many)  # fmt: skip
    raw = header + descriptors + data
    return raw if chance.random() > 0.01 else raw[: chance.randrange(70)]


def capture(seed: int, count: int = 3000, devices: int = 3) -> bytes:
    """A capture of several interfaces, of which some have another clock or link type."""
    chance = random.Random(seed)
    described = [
        block(1, pack("<HHI", 220, 0, 0) + option("<", 9, b"\x09") + option("<", 2, b"first")),
        block(1, pack("<HHI", 220, 0, 0)),
        block(1, pack("<HHI", 220, 0, 0) + option("<", 9, b"\x94")),
        block(1, pack("<HHI", chance.choice((252, 249, 189)), 0, 0) + option("<", 9, b"\x09")),
        block(1, pack("<HHI", 220, 0, 0) + option("<", 9, b"\x09") + option("<", 14, pack("<q", -(1 << 33)))),
    ]
    per_second = (10**9, 10**6, 2**20, 10**9, 10**9)
    parts, now_ns = [SECTION, *described], START_NS
    for _ in range(count):
        number = chance.choice((0, 0, 0, 0, 0, 0, 1, 2, 3, 4))
        now_ns = max(0, now_ns + chance.choice((1, 400, 90_000, 1_000_000, -300, 1_000_000_000 if seed & 1 else 0)))
        ticks = 0 if chance.random() < 0.01 else now_ns * per_second[number] // 10**9
        if chance.random() < 0.001:
            ticks = (1 << 64) - 5
        comments = option("<", 1, b"remark") + option("<", 0, b"") if chance.random() < 0.01 else b""
        parts.append(packet(number, ticks, event(chance, ids=20, devices=devices), comments, chance.choice((0, 0, 9))))
        if chance.random() < 0.005:
            parts.append(chance.choice((block(0xBAD, bytes(40)), block(3, pack("<I", 64) + bytes(64)), SECTION)))
            parts += described if parts[-1] is SECTION else []
    return b"".join(parts)


def state(found: Statistics) -> list[Any]:
    """All that was counted."""

    def of(totals: InterfaceTotals) -> list[Any]:
        endpoints = [
            (key, e.urbs, e.bytes, e.errors, e.cancelled, e.unfinished, e.in_flight, e.times.count, e.times.minimum,
             e.times.maximum, e.times._buckets, e.series, e.device.name)
            for key, e in totals.endpoints.items()
        ]  # fmt: skip
        devices = [(key, device.descriptor) for key, device in totals.devices.items()]
        return [totals.packets, totals.unread, totals.beyond, totals.first_ns, totals.last_ns, endpoints, devices,
                totals.completes_out]  # fmt: skip

    line = found.timeline
    return [
        [of(totals) for totals in found.interfaces.values()],
        (line.width_ns, line.first, line.last, line._cells),
        sorted(map(repr, found.log)), sorted(map(repr, found.failures)),
    ]  # fmt: skip


def counted(raw: bytes, portion: int, *, in_runs: bool) -> tuple[list[Any], str, int]:
    """What was counted, why not more, and how many packets were handed out one by one."""
    places = iter(range(0, len(raw), portion))
    stream = Stream("it", lambda: raw[(at := next(places, len(raw))) : at + portion])
    found, interfaces, problem, singly = Statistics(), list[Interface](), "", 0
    counting = Runs(found)
    try:
        for one in read_packets(stream, interfaces, take_run=counting.take if in_runs else None):
            found.add(one)
            singly += 1
    except CaptureError as error:
        problem = str(error)
    counting.finish()
    for interface in interfaces:
        found.see(interface)
    found.finish()
    return state(found), problem, singly


@pytest.mark.parametrize("portion", [1 << 20, 5000])
@pytest.mark.parametrize("seed", range(4))
def test_runs_give_the_same(seed: int, portion: int) -> None:
    raw = capture(seed)
    expected, _, all_packets = counted(raw, portion, in_runs=False)
    found, problem, singly = counted(raw, portion, in_runs=True)
    assert (found, problem) == (expected, "")
    assert singly < all_packets // 2


def test_damage_anywhere_is_found_at_the_same_place() -> None:
    raw, chance = capture(7, 150), random.Random(7)
    problems = set()
    for _ in range(150):
        damaged = bytearray(raw)
        damaged[chance.randrange(28, len(raw))] = chance.randrange(256)
        cut = bytes(damaged[: chance.randrange(len(raw))]) if chance.random() < 0.2 else bytes(damaged)
        expected = counted(cut, 1 << 20, in_runs=False)
        assert counted(cut, 1 << 20, in_runs=True)[:2] == expected[:2]
        problems.add(expected[1])
    assert len(problems) > 10


def test_more_endpoints_and_kinds_of_events_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MAX_WITH_PENDING", 8)
    monkeypatch.setattr(statistics, "MAX_ENDPOINTS", 20)
    monkeypatch.setattr(runs, "MAX_LANES", 9)
    monkeypatch.setattr(runs, "MAX_GATHERED", 50)
    raw = capture(3, 3000, devices=12)
    assert counted(raw, 1 << 20, in_runs=True)[:2] == counted(raw, 1 << 20, in_runs=False)[:2]


def test_most_urbs_that_are_out_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MAX_PENDING", 500)
    monkeypatch.setattr(runs, "MAX_GATHERED", 400)
    submits = [
        pack(HEADER, n, ord("S"), 3, 0x81, 2, 1, 0, 0, 0, 0, -115, 8, 0, bytes(8), 0, 0, 0, 0) for n in range(5000)
    ]
    described = block(1, pack("<HHI", 220, 0, 0) + option("<", 9, b"\x09"))
    raw = b"".join([SECTION, described, *(packet(0, START_NS + n, data) for n, data in enumerate(submits))])
    places, found = iter(range(0, len(raw), 10_000)), Statistics()
    counting = Runs(found)
    stream = Stream("it", lambda: raw[(at := next(places, len(raw))) : at + 10_000])
    for one in read_packets(stream, take_run=counting.take):
        found.add(one)
        assert sum(len(in_flight.urbs) for in_flight in found._in_flight.values()) < 1200
    counting.finish()
    found.finish()
    assert [e.unfinished for totals in found.interfaces.values() for e in totals.endpoints.values()] == [5000]
