"""Segments that are taken in runs become what they become one by one: as on a link of which none are taken in runs."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from struct import pack

import pytest

from tests.builders.conversion import convert
from tests.builders.tcp_recording import ETHERNET, RAW, Segment, packet, pcap, restamped, segments
from tests.builders.usbip_sessions import session

WHOLE = segments(session(), size=300)


def damaged(seed: int) -> list[Segment]:
    """Segments swapped, lost, sent again, and sent again otherwise cut."""
    random = Random(seed)
    found = list(WHOLE)
    for _ in range(random.randrange(1, 12)):
        at = random.randrange(3, len(found) - 1)
        match random.randrange(4):
            case 0:
                found[at], found[at + 1] = found[at + 1], found[at]
            case 1:
                del found[at]
            case 2:
                found.insert(random.randrange(at, len(found)), found[at])
            case _:
                one = found[at]
                found.insert(at, Segment(one.side, one.seq, one.ack, one.payload[: len(one.payload) // 2], one.flags))
    return restamped(found, random.choice((1000, 1_000_000, 90_000_000)))


def pcapng(packets: Iterable[tuple[int, bytes]]) -> bytes:
    """A section, little-endian, of one interface with time stamps in nanoseconds."""
    out = [pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)]
    out.append(pack("<IIHHIHHB3xII", 1, 32, 1, 0, 0, 9, 1, 9, 0, 32))
    for timestamp_ns, data in packets:
        size, padding = 32 + len(data) + (-len(data) & 3), bytes(-len(data) & 3)
        head = pack("<IIIIIII", 6, size, 0, timestamp_ns >> 32, timestamp_ns & 0xFFFFFFFF, len(data), len(data))
        out += [head, data, padding, pack("<I", size)]
    return b"".join(out)


def padded(segment: Segment) -> tuple[int, bytes]:
    """As Ethernet carries it: short ones are filled up to 60 bytes."""
    return segment.timestamp_ns, packet(segment, ETHERNET).ljust(60, b"\x55")


@pytest.mark.parametrize("seed", range(60))
def test_runs_change_nothing(seed: int) -> None:
    found = damaged(seed) if seed else restamped(WHOLE)
    expected = convert(pcap(((s.timestamp_ns, packet(s, RAW)) for s in found), RAW))
    for raw in (pcap(map(padded, found), ETHERNET), pcapng(map(padded, found))):
        got = convert(raw)
        assert got.raw == expected.raw
        assert got.counts == expected.counts
        assert got.converter.remarks == expected.converter.remarks
        assert got.converter.packets == expected.converter.packets == len(found)
        assert got.converter._runs.packets > 0.8 * len(found)  # not before the session, nor after its end


@pytest.mark.parametrize("snaplen", [40, 56, 70, 90, 200])
def test_packets_that_are_cut_are_not_taken_in_runs(snaplen: int) -> None:
    found = [(s.timestamp_ns, packet(s)) for s in WHOLE]
    assert (
        convert(pcap(found, snaplen=snaplen)).counts
        == convert(pcap([(t, data[14:]) for t, data in found], RAW, snaplen=snaplen - 14)).counts
    )


@pytest.mark.parametrize("large", [1448, 32 << 10, 60_000])
def test_payloads_across_portions(large: int) -> None:
    """Long recordings are read in portions, with packets that begin in one and end in the next."""
    found = restamped(segments(session() + session()[2:] * 40, size=large), 1000)
    expected = convert(pcap(((s.timestamp_ns, packet(s, RAW)) for s in found), RAW))
    got = convert(pcap(map(padded, found), ETHERNET))
    assert got.urbs() == expected.urbs()
    assert got.counts == expected.counts
