"""TCP as it is in recordings: sent again, swapped, overlapping, cut short, lost; many connections at once."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.conversion import Converted, convert, event
from tests.builders.tcp_recording import (
    CLIENT,
    LINK_TYPES,
    RAW,
    SERVER,
    START_NS,
    STEP_NS,
    Hosts,
    Segment,
    fragmented,
    packet,
    pcap,
    recording,
    restamped,
    segments,
)
from tests.builders.usbip_sessions import INFO, session
from usbip_capture.convert import sessions
from usbip_capture.convert.fragments import MAX_AGE_NS, Fragments
from usbip_capture.convert.link import ACK, FIN, RST, SYN

SESSION = session(rounds=4)
PLAIN = convert(recording(segments(SESSION)))
SEEDS = st.integers(0, 10_000)


def test_a_session_is_whole() -> None:
    urbs = 2 + 4 * 6
    assert len(PLAIN.urbs()) == 2 * urbs
    assert PLAIN.converter.sessions == 1
    assert not PLAIN.counts
    (interface,) = PLAIN.interfaces
    assert interface.description == "USB/IP 10.0.0.2 1-1 1209:0001"
    assert (interface.speed, interface.received, interface.dropped) == (480_000_000, 2 * urbs, 0)
    assert {(r.usb.busnum, r.usb.devnum) for r in PLAIN.records if r.usb} == {(INFO.busnum, INFO.devnum)}


def test_time_stamps_are_those_of_the_packets() -> None:
    sent = segments(SESSION)
    stamps = [record.timestamp_ns for record in PLAIN.records]
    assert set(stamps) <= {s.timestamp_ns for s in sent}
    assert stamps == sorted(stamps)


@pytest.mark.parametrize("link", list(LINK_TYPES))
@pytest.mark.parametrize("hosts", [Hosts(), Hosts("2001:db8::1", "2001:db8::2", 50000, 33000)], ids=["IPv4", "IPv6"])
def test_link_types(link: str, hosts: Hosts) -> None:
    got = convert(recording(segments(SESSION), link, hosts))
    assert got.urbs() == PLAIN.urbs()
    server = "[2001:db8::2]:33000" if ":" in hosts.server else "USB/IP 10.0.0.2 "
    assert server in got.interfaces[0].description


@given(st.integers(1, 3000), SEEDS)
def test_any_size_of_segments(size: int, seed: int) -> None:
    random = Random(seed)
    starts = [random.randrange(1 << 32), random.randrange(1 << 32)]
    assert convert(recording(segments(SESSION, size=size, starts=starts))).urbs() == PLAIN.urbs()


@given(SEEDS)
def test_sent_again_swapped_and_overlapping(seed: int) -> None:
    random = Random(seed)
    mixed: list[Segment] = []
    for segment in segments(SESSION, size=random.randrange(40, 1500)):
        mixed.append(segment)
        if segment.payload and random.random() < 0.2:  # again, or its second half, or with what was before it
            cut = random.randrange(len(segment.payload))
            mixed.append(replace(segment, seq=(segment.seq + cut) & 0xFFFFFFFF, payload=segment.payload[cut:]))
        if len(mixed) > 4 and random.random() < 0.2:  # late by up to three packets
            late = mixed.pop()
            mixed.insert(len(mixed) - random.randrange(4), late)
    got = convert(recording(restamped(mixed)))
    assert sorted(map(repr, got.urbs())) == sorted(map(repr, PLAIN.urbs()))
    assert not got.counts


@settings(max_examples=25)
@given(SEEDS)
def test_lost_segments_cost_what_was_in_them_only(seed: int) -> None:
    random = Random(seed)
    sent = segments(session(rounds=12), size=random.choice([48, 200, 1448]))
    whole = {e[:2]: e for e in convert(recording(sent)).urbs()}
    lost = {n for n, s in enumerate(sent[10:-30], 10) if s.payload and random.random() < 0.05}
    got = convert(recording(s for n, s in enumerate(sent) if n not in lost))
    for record in got.records:
        assert record.usb
        urb, other = event(record.usb), whole[chr(record.usb.type), record.usb.id & 0xFFFFFFFF]
        if urb[6] == -108:  # its reply is lost: the end of the connection completes it
            assert any("may be in what is missing" in comment for comment in record.comments)
            continue
        assert urb[:9] == other[:9]  # the data may end early, what is there is right
        data, complete = urb[-1], other[-1]
        assert isinstance(data, bytes)
        assert isinstance(complete, bytes)
        assert complete.startswith(data)
    assert set(list(whole.values())[-2:]) <= set(got.urbs())  # it has found back
    gaps = sum(count for reason, count in got.counts.items() if reason.startswith("gap"))
    assert bool(gaps) == bool(lost)
    comments = [c for r in got.records for c in r.comments] + [c for i in got.interfaces for c in i.comments]
    assert bool(gaps) == any("are not in the recording" in c for c in comments)


def test_cut_packets_keep_headers_and_what_there_is_of_data() -> None:
    """As tcpdump -s 120 records it."""
    sent = segments(SESSION, size=100_000)
    got = convert(pcap(((s.timestamp_ns, packet(s)) for s in sent), snaplen=14 + 40 + 48 + 10))
    whole = {e[:2]: e for e in PLAIN.urbs()}
    bulk = [e for e in got.urbs() if e[2] == 3]
    assert [e[:9] for e in bulk] == [whole[e[:2]][:9] for e in PLAIN.urbs() if e[2] == 3]
    assert all(len(r.data) <= r.original_length for r in got.records)
    assert {len(e[-1]) for e in bulk if isinstance(e[-1], bytes)} == {0, 10}
    assert any("only the beginning was recorded" in remark for remark in got.converter.remarks)


@pytest.mark.parametrize("snaplen", [40, 60])
def test_packets_cut_too_short_are_reported(snaplen: int) -> None:
    sent = segments(SESSION)
    got = convert(pcap(((s.timestamp_ns, packet(s)) for s in sent), snaplen=snaplen))
    assert got.records == []
    (remark,) = [r for r in got.converter.remarks if "only the beginning was recorded" in r]
    cut = len(sent) if snaplen == 40 else sum(bool(s.payload) for s in sent)
    assert remark.endswith(f": {cut}")


@settings(max_examples=25)
@given(SEEDS, st.sampled_from(["10.0.0.", "2001:db8::"]))
def test_fragments_of_ip(seed: int, net: str) -> None:
    """In any order, some twice; what is missing is a gap."""
    random = Random(seed)
    hosts = Hosts(f"{net}1", f"{net}2")
    pieces: list[tuple[int, bytes]] = []
    for number, segment in enumerate(segments(SESSION, size=1400)):
        cut = fragmented(packet(segment, RAW, hosts), 8 * random.randrange(3, 100), number)
        random.shuffle(cut)
        cut += [random.choice(cut)] if len(cut) > 1 and random.random() < 0.1 else []
        pieces += [(segment.timestamp_ns, fragment) for fragment in cut]
    got = convert(pcap(pieces, RAW))
    assert got.urbs() == PLAIN.urbs()
    assert got.converter.remarks == []


def test_fragments_that_are_missing_are_reported() -> None:
    sent = segments(SESSION)
    pieces = [(s.timestamp_ns, p) for n, s in enumerate(sent) for p in fragmented(packet(s, RAW), 400, n)]
    lost = next(n for n, (_, p) in enumerate(pieces) if n > 20 and len(p) == 420)
    got = convert(pcap(pieces[:lost] + pieces[lost + 1 :], RAW))
    assert "IP packets with a fragment missing: 1" in got.converter.remarks
    assert sum(got.counts.values()) <= 4


def test_an_old_fragment_is_no_part_of_a_packet_with_its_number() -> None:
    whole = packet(segments(SESSION)[3], RAW)
    first, second, *_ = fragmented(whole, 24, 7)
    fragments = Fragments()
    assert fragments.add(0, first, 0, len(first)) is None
    wrong = second[:20] + bytes(len(second) - 20)
    assert fragments.add(0, wrong, 0, len(wrong)) is None
    rest = fragmented(whole, 24, 7)
    got = [fragments.add(MAX_AGE_NS + 1, piece, 0, len(piece)) for piece in rest]
    assert got[-1] is not None
    assert got[-1][20:] == whole[20:]
    assert fragments.incomplete == 1


@settings(max_examples=25)
@given(SEEDS)
def test_many_sessions_at_once(seed: int) -> None:
    random = Random(seed)
    queues, expected = [], {}
    for number in range(5):
        info = replace(INFO, busid=f"1-{number}", devnum=number + 1)
        turns = session(rounds=number + 1, info=info)
        hosts = Hosts(client_port=40000 + number, server_port=random.choice([3240, 5000 + number]))
        queues.append([packet(s, hosts=hosts) for s in segments(turns, size=random.randrange(50, 1500))])
        alone = convert(recording(segments(turns)))
        expected[f"1-{number}"] = alone.urbs()
    mixed: list[bytes] = []
    while any(queues):
        queue = random.choice([q for q in queues if q])
        mixed.append(queue.pop(0))
    got = convert(pcap((START_NS + n * STEP_NS, raw) for n, raw in enumerate(mixed)))
    assert got.converter.sessions == 5
    names = {interface.description.split()[2]: interface.name for interface in got.interfaces}
    assert {busid: got.urbs(names[busid]) for busid in expected} == expected
    assert len({r.usb.id for r in got.records if r.usb}) == got.converter.urbs


def test_what_is_wrong_is_reported_with_its_device() -> None:
    other = session(info=replace(INFO, busid="1-2"))
    sound = [(s.timestamp_ns, packet(s, hosts=Hosts(client_port=5000))) for s in segments(other, closed=False)]
    sent = segments(SESSION)
    lost = next(n for n, s in enumerate(sent) if n > 60 and s.side == SERVER and s.payload)
    poor = [(s.timestamp_ns, packet(s)) for n, s in enumerate(sent) if n != lost]
    got = convert(pcap([*sound, *poor]))
    assert got.counts["gap in what the server sent"] == 1
    quiet, output = (i.comments for i in got.interfaces)
    assert quiet == []
    assert set(got.converter.remarks) <= set(output)


def test_a_device_that_is_imported_again_keeps_its_interface() -> None:
    again = [replace(s, timestamp_ns=s.timestamp_ns + 10**9) for s in segments(SESSION)]
    both = [(s.timestamp_ns, packet(s)) for s in segments(SESSION)]
    both += [(s.timestamp_ns, packet(s, hosts=Hosts(client_port=40001))) for s in again]
    got = convert(pcap(both))
    assert (got.converter.sessions, len(got.interfaces)) == (2, 1)
    assert got.urbs() == PLAIN.urbs() * 2


def test_same_ports_again() -> None:
    first = segments(SESSION, closed=False)
    second = [replace(s, timestamp_ns=s.timestamp_ns + 10**9) for s in segments(SESSION, starts=(77, 88))]
    got = convert(recording([*first, *second]))
    assert got.converter.sessions == 2
    assert got.urbs() == PLAIN.urbs() * 2


def test_an_opening_packet_that_comes_late_opens_nothing() -> None:
    sent = segments(SESSION)
    got = convert(recording(restamped([*sent[:30], sent[0], *sent[30:]])))
    assert got.converter.sessions == 1
    assert got.urbs() == PLAIN.urbs()


def test_reset_far_outside_of_the_window_ends_nothing() -> None:
    sent = segments(SESSION)
    forged = [replace(sent[30], seq=sent[30].seq + (1 << 30), payload=b"", flags=RST)]
    assert convert(recording(restamped([*sent[:30], *forged, *sent[30:]]))).urbs() == PLAIN.urbs()


# -- how connections begin and end


def pending(flags: int) -> Converted:
    """A URB waits, and then a segment with these flags comes from the server."""
    sent = segments(SESSION[:-1], closed=False)
    last = sent[-1]
    end = replace(last, side=SERVER, seq=last.ack, ack=last.seq, flags=flags, payload=b"")
    return convert(recording([*sent, replace(end, timestamp_ns=last.timestamp_ns + 1)]))


@pytest.mark.parametrize("flags", [FIN | ACK, RST, RST | ACK])
def test_end_of_the_connection_gives_back_what_waits(flags: int) -> None:
    last = pending(flags).urbs()[-1]
    assert last[0] == "C"
    assert last[6] == -108


def test_end_of_the_recording_leaves_it_pending() -> None:
    assert pending(ACK).urbs()[-1][0] == "S"


@given(st.integers(1, 40))
def test_joined_in_the_middle(skip: int) -> None:
    sent = segments(session(rounds=8))[8 + skip :]
    got = convert(recording(sent))
    assert got.converter.sessions == 1
    (interface,) = got.interfaces
    assert interface.description == "USB/IP 10.0.0.2 device 4 of bus 3, whose import is not in the recording"
    whole = {e[:2]: e for e in convert(recording(segments(session(rounds=8)))).urbs()}
    assert all(urb == whole[urb[:2]] for urb in got.urbs())
    assert len(got.urbs()) >= 2 * (6 * 8 - skip)


@pytest.mark.parametrize("first", ["middle", "whole"])
def test_a_device_joined_in_the_middle_is_the_one_that_is_imported_too(first: str) -> None:
    sent = segments(SESSION)
    parts = [(sent, Hosts(client_port=40001)), (sent[40:], Hosts(client_port=40002))]
    if first == "middle":
        parts.reverse()
    got = convert(pcap((START_NS, packet(s, hosts=hosts)) for part, hosts in parts for s in part))
    assert got.converter.sessions == 2
    assert [i.name for i in got.interfaces] == ["usbip0"]
    assert ("whose import is not" in got.interfaces[0].description) == (first == "middle")


def test_only_one_direction_was_recorded() -> None:
    sent = [s for s in segments(SESSION, closed=False) if s.side == CLIENT]
    got = convert(recording(sent))
    assert got.counts == {"nothing that the server sent is in the recording": 1}


def test_what_waits_at_the_end_is_counted_once() -> None:
    """The end of the connection waits for a segment of the server that is not in the recording."""
    sent = segments(SESSION)
    lost = next(n for n in range(len(sent) - 5, 0, -1) if sent[n].side == SERVER and sent[n].payload)
    got = convert(recording([*sent[:lost], *sent[lost + 1 :]]))
    assert got.counts == {"gap in what the server sent": 1}


def test_without_the_handshake() -> None:
    assert convert(recording(segments(SESSION, opened=False))).urbs() == PLAIN.urbs()


def test_only_the_first_packet_of_the_handshake() -> None:
    sent = segments(SESSION)
    assert convert(recording([sent[0], *sent[3:]])).urbs() == PLAIN.urbs()


def test_keepalives_and_window_updates_are_nothing() -> None:
    sent = segments(SESSION)
    mixed: list[Segment] = []
    for segment in sent:
        mixed.append(segment)
        if segment.payload:
            probe = (segment.seq + len(segment.payload) - 1) & 0xFFFFFFFF
            mixed.append(replace(segment, seq=probe, payload=b"\0", flags=ACK))
            mixed.append(replace(segment, seq=probe, payload=b"", flags=ACK))
    assert convert(recording(mixed)).urbs() == PLAIN.urbs()


def test_reply_recorded_before_its_request() -> None:
    sent = segments(SESSION)
    mixed = list(sent)
    for n in range(4, len(sent) - 4):
        request, answer = sent[n], sent[n + 2]
        if request.side == CLIENT and request.payload and answer.side == SERVER and answer.payload:
            mixed[n], mixed[n + 2] = answer, request
    got = convert(recording(restamped(mixed)))
    assert got.urbs() == PLAIN.urbs()
    assert not got.counts


# -- connections that are given up


def many(count: int) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """The packets of so many sessions at once, each with a URB that waits; and those with which they go on."""
    packets: tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]] = ([], [])
    for number in range(count):
        sent = segments(session(info=replace(INFO, busid=f"1-{number}", devnum=number + 1)), closed=False)
        for part, piece in zip(packets, (sent[:40], sent[40:]), strict=True):
            part += [(START_NS, packet(s, hosts=Hosts(client_port=40000 + number))) for s in piece]
    return packets


def completions(got: Converted, name: str) -> list[int]:
    return [r.usb.status for r in got.records if r.usb and r.usb.type == ord("C") and r.interface.name == name]


def test_a_session_that_is_given_up_completes_its_urbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_CONNECTIONS", 2)
    begin, rest = many(3)
    got = convert(pcap(begin))
    assert completions(got, "usbip0")[-1] == -108
    assert -108 not in completions(got, "usbip2")
    assert got.counts["given up: more than 2 connections at the same time"] == 1
    assert any("given up" in comment for record in got.records for comment in record.comments)
    assert "given up: more than 2 connections at the same time: once" in got.interfaces[0].comments
    got = convert(pcap(begin + rest))  # it is followed again from its middle, on the same interface
    assert got.converter.sessions >= 4


def test_connections_that_are_no_sessions_are_given_up_before_one_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_CONNECTIONS", 3)
    sent = segments(SESSION)
    scan = [packet(sent[0], hosts=Hosts(client_port=n)) for n in range(1, 100)]
    ended = [packet(s, hosts=Hosts(client_port=n)) for n in range(200, 220) for s in sent]
    mixed = [packet(s) for s in sent[:40]] + scan + ended + [packet(s) for s in sent[40:]]
    got = convert(pcap((START_NS + n, raw) for n, raw in enumerate(mixed)))
    assert got.converter.sessions == 21
    assert not any(reason.startswith("given up") for reason in got.counts)


def test_a_session_that_takes_too_much_memory_completes_its_urbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_MEMORY", 1 << 20)
    monkeypatch.setattr(sessions, "_CHECK_AFTER", 1)
    sent = segments(SESSION[:-1], closed=False)  # a URB waits for its reply
    last = sent[-1]
    client = (last.seq, last.ack) if last.side == CLIENT else (last.ack, last.seq)
    held = [Segment(CLIENT, client[0] + 5 + 60_000 * n, client[1], bytes(60_000), ACK, START_NS) for n in range(40)]
    quiet = [(START_NS, packet(s, hosts=Hosts(client_port=1))) for s in segments(SESSION, closed=False)]
    got = convert(pcap(quiet + [(START_NS, packet(s)) for s in [*sent, *held]]))
    assert got.counts["given up: what waits for its rest, of all connections, takes more than 1 MiB"] == 1
    assert [e[6] for e in got.urbs() if e[0] == "C"].count(-108) == 1


# -- what is no USB/IP


@pytest.mark.parametrize(
    "turns",
    [
        [(CLIENT, b"GET / HTTP/1.1\r\n\r\n"), (SERVER, b"HTTP/1.1 200 OK\r\n\r\n" + bytes(500))],
        [(SERVER, b"SSH-2.0-OpenSSH_9.2\r\n"), (CLIENT, b"SSH-2.0-x\r\n")],
        [(CLIENT, bytes(3)), (SERVER, bytes(3))],
        [(CLIENT, bytes.fromhex("00000001") + bytes(100))],
        [(CLIENT, bytes.fromhex("00000055") + b"\xfeSMB" + bytes(100))],
    ],
)
def test_other_connections_are_left_alone(turns: list[tuple[int, bytes]]) -> None:
    got = convert(recording(segments(turns)))
    assert got.converter.sessions == 0
    assert got.records == []
    assert got.interfaces != []  # a file without interface is not valid


def test_port_is_believed() -> None:
    sent = segments(SESSION)
    assert convert(recording(sent), ports={3240}).urbs() == PLAIN.urbs()
    assert convert(recording(sent), ports={3241}).converter.sessions == 0
    middle = convert(recording(sent[40:]), ports={3240})
    assert middle.urbs()
    assert middle.urbs() == [e for e in PLAIN.urbs() if e in middle.urbs()]


def test_opening_packets_without_end_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from usbip_capture.convert import sessions

    monkeypatch.setattr(sessions, "MAX_CONNECTIONS", 50)
    opening = Segment(CLIENT, 1, 0, b"", SYN)
    flood = [(START_NS, packet(opening, hosts=Hosts(client_port=port))) for port in range(1024, 3000)]
    ours = [(s.timestamp_ns, packet(s)) for s in segments(SESSION)]
    got = convert(pcap([*flood, *ours]))
    assert got.urbs() == PLAIN.urbs()
