"""What is counted of a capture: endpoints, errors, times, remarks; filters; bounds."""

from __future__ import annotations

import re
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.capture_files import Shown, classic
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.filters.language import ENUMERATION_LABEL, FilterError
from usbip_capture.records.pcapng import Section, pack_packet
from usbip_capture.records.upper_pdu import pack_head
from usbip_capture.report import statistics
from usbip_capture.report.log import Log, LogLine, log_line
from usbip_capture.report.measure import measure
from usbip_capture.report.plot import rates, throughput_plot
from usbip_capture.report.statistics import EndpointTotals
from usbip_capture.report.text import text_report
from usbip_capture.report.timeline import BYTES, MAX_CELLS, MAX_SLICES, TIME_MAX_NS, Timeline
from usbip_capture.report.units import duration, rate
from usbip_capture.usb.histogram import Histogram
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.urb import Completion, IsoPacket, TransferType, Urb

INFO = DeviceInfo("1-1.2", 1, 5, Speed.FULL, 0x1209, 0x0001)
DESCRIPTOR = bytes.fromhex("1201000200000040 5c04 3412 0001 000000 01")
GET_DEVICE = Urb.control(bytes.fromhex("8006000100001200"))
START_NS = 1_700_000_000 * 10**9


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Two interfaces, a little of everything."""
    path = tmp_path / "capture.pcapng"
    with PcapWriter(path) as writer:
        first = writer.add_usb_interface(INFO, server="pi", product="Thing")
        second = writer.add_usb_interface(INFO, server="demo")
        iso_in = [IsoPacket(0, 8), IsoPacket(8, 8)]
        iso_done = [IsoPacket(0, 8, 8, 0), IsoPacket(8, 8, 0, -71)]
        first.label = ENUMERATION_LABEL
        first.completed(first.submitted(GET_DEVICE), GET_DEVICE, Completion(0, 18, DESCRIPTOR))
        first.label = None
        for urb, completion in [
            (Urb.control(bytes.fromhex("0009010000000000")), Completion(0)),
            (Urb(TransferType.BULK, 0x02, 31, bytes(31)), Completion(0, 31)),
            (Urb(TransferType.BULK, 0x81, 512), Completion(0, 100, bytes(100))),
            (Urb(TransferType.BULK, 0x81, 512), Completion(-32)),
            (Urb(TransferType.BULK, 0x81, 512), Completion(-104)),
            (Urb(TransferType.ISOCHRONOUS, 0x83, 16, packets=iso_in), Completion(0, 8, bytes(8), packets=iso_done)),
        ]:
            first.completed(first.submitted(urb), urb, completion)
        second.submitted(GET_DEVICE)
        second.comment("the \x07 end")
        second.device(INFO)
        assert writer.flush(10)
    return path


def without_times(lines: list[str]) -> list[str]:
    """Times differ from run to run."""
    return [re.sub(r" +", " ", re.sub(r"\d[\d.]* (ns|µs|ms|s)\b", "T", line)) for line in lines]


def endpoints(path: Path, capture_filter: str = "") -> dict[str, EndpointTotals]:
    found = measure(path, capture_filter).statistics.interfaces.values()
    return {
        statistics.endpoint_name(e.transfer_type, e.address): e for totals in found for e in totals.endpoints.values()
    }


def test_text(capture: Path) -> None:
    assert without_times(text_report(measure(capture).statistics)) == [
        "usbip0: USB/IP pi 1-1.2 1209:0001 Thing",
        " 14 packets, 0 dropped, T",
        " device 1-1.2, 045c:1234",
        " completion time",
        " endpoint URBs bytes errors min median p99 max",
        " 0x80 control IN 1 18 0 T T T T",
        " 0x00 control OUT 1 0 0 T T T T",
        " 0x81 bulk IN 3 100 1 T T T T 1 cancelled",
        " 0x02 bulk OUT 1 31 0 T T T T",
        " 0x83 isochronous IN 1 8 1 T T T T",
        "usbip1: USB/IP demo 1-1.2 1209:0001",
        " 1 packet, 0 dropped, T",
        " device 1-1.2, 1209:0001",
        " completion time",
        " endpoint URBs bytes errors min median p99 max",
        " 0x80 control IN 1 0 0 - - - - 1 unfinished",
        "notes0: usbip-capture: marks and notes",
        " 1 packet, T",
        r" T notice the \x07 end",
    ]


@pytest.mark.parametrize(
    ("text", "urbs"),
    [
        ("bulk", {"0x81 bulk IN": 3, "0x02 bulk OUT": 1}),
        ("error and not status == EINPROGRESS", {"0x81 bulk IN": 1}),
        ("status == -104", {"0x81 bulk IN": 1}),
        ("length > 30 and in", {"0x81 bulk IN": 1}),
        ("requested == 31", {"0x02 bulk OUT": 1}),
        ("device == 045c:1234 and iso", {"0x83 isochronous IN": 1}),
        ("device == 1-1.2 and iso", {"0x83 isochronous IN": 1}),
        ("descriptors", {"0x80 control IN": 1}),
        ("status == -115", {"0x80 control IN": 1}),
    ],
)
def test_filters(capture: Path, text: str, urbs: dict[str, int]) -> None:
    assert {name: endpoint.urbs for name, endpoint in endpoints(capture, text).items()} == urbs
    lines = text_report(measure(capture, text).statistics)
    assert lines[-1] == f"{8 - sum(urbs.values())} URBs left out by the filter"


def test_filters_by_class_of_a_capture_of_others() -> None:
    serial = Path(__file__).parent / "golden" / "serial" / "capture.pcap"
    found = endpoints(serial, "class == vendor and bulk and device == 5.2")
    assert set(found) == {"0x81 bulk IN", "0x02 bulk OUT"}
    with pytest.raises(FilterError, match="at 1"):
        measure(serial, "nonsense")


def test_headers_that_were_cut_are_reported(tmp_path: Path) -> None:
    events = [event(kind, 1, 0) for kind in "SC"]  # as `tcpdump -s 20` has them
    (tmp_path / "short.pcap").write_bytes(classic([Shown(at, head[:20]) for at, head in events], 220))
    lines = text_report(measure(tmp_path / "short.pcap").statistics)
    assert lines[1].startswith("  2 packets, 2 of them not about URBs, or cut short")


def event(
    kind: str, urb_id: int, at_ns: int, *, status: int = 0, length: int = 0, dev: int = 2, ep: int = 0x81
) -> Shown:
    head = pack("<QBBBBH14xiI28x", urb_id, ord(kind), 3, ep, dev, 1, status, length)
    return Shown(START_NS + at_ns, head)


def measured_events(tmp_path: Path, events: list[Shown]) -> EndpointTotals:
    path = tmp_path / "events.pcap"
    path.write_bytes(classic(events, 220, tick_ns=1))
    (endpoint,) = endpoints(path).values()
    return endpoint


def test_times_are_from_submit_to_completion(tmp_path: Path) -> None:
    events = []
    for n in range(100):
        took_ns = 1000 * (n + 1)
        events += [event("S", n, n * 10**6), event("C", n, n * 10**6 + took_ns, length=10)]
    endpoint = measured_events(tmp_path, events)
    times = endpoint.times
    assert (endpoint.urbs, endpoint.bytes, times.count) == (100, 1000, 100)
    assert (times.minimum, times.maximum) == (1000, 100_000)
    assert times.quantile(0.5) == pytest.approx(50_000, rel=0.01)
    assert times.quantile(0.99) == pytest.approx(99_000, rel=0.01)


def test_endpoints_of_one_number_have_each_their_own_urbs_in_flight(tmp_path: Path) -> None:
    """What waits at an IN endpoint does not depend on how many URBs an OUT endpoint of the same number has had."""
    events = [event("S", n, n) for n in range(8)]
    events += [event(kind, 100, 10 + at, ep=0x01) for at, kind in enumerate("SC")]
    path = tmp_path / "both.pcap"
    path.write_bytes(classic(events, 220, tick_ns=1))
    assert {name: each.in_flight for name, each in endpoints(path).items()} == {"0x81 bulk IN": 8, "0x01 bulk OUT": 1}


def test_what_has_no_time(tmp_path: Path) -> None:
    """Cancelled, gone, without its submit, before its submit: counted, not timed."""
    endpoint = measured_events(
        tmp_path,
        [
            event("C", 1, 100, length=7),
            event("S", 2, 200), event("C", 2, 300, status=-104),
            event("S", 3, 400), event("C", 3, 500, status=-108),
            event("S", 4, 600), event("C", 4, 550),
            event("S", 5, 700), event("S", 5, 800), event("E", 5, 900, status=-19),
        ],
    )  # fmt: skip
    assert endpoint.urbs == 6
    assert (endpoint.bytes, endpoint.errors, endpoint.cancelled, endpoint.unfinished) == (7, 2, 1, 1)
    assert endpoint.times.count == 0


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MAX_PENDING", 10)
    monkeypatch.setattr(statistics, "MAX_ENDPOINTS", 3)
    events = [event("S", n, n) for n in range(200)]
    events += [event("C", 100 + n, 100 + n, dev=10 + n) for n in range(20)]
    path = tmp_path / "events.pcap"
    path.write_bytes(classic(events, 220, tick_ns=1))
    (totals,) = measure(path).statistics.interfaces.values()
    assert len(totals.endpoints) == 3
    assert sum(e.unfinished for e in totals.endpoints.values()) == 200
    assert totals.beyond == 18
    assert "18 URBs of too many endpoints" in text_report(measure(path).statistics)[1]


def test_log_lines(tmp_path: Path) -> None:
    section = Section(application="t", hardware="", os="")
    parts = [section.header(), section.interface(name="usbip0", description="d", snaplen=0)[1]]
    parts.append(section.interface(name="syslog0", description="", snaplen=0, link_type=252)[1])
    output = [b"<131>disk on fire", b"<165>1 2026-01-01T00:00:00Z host app - - - hello", b"plain \xff"]
    for n, text in enumerate(output):
        parts.append(pack_packet(1, START_NS + n, pack_head("syslog") + text))
    parts.append(pack_packet(1, START_NS + 9, pack_head("http") + b"GET /"))
    path = tmp_path / "log.pcapng"
    path.write_bytes(b"".join(parts))
    found = measure(path).statistics
    assert [(line.source, line.severity, line.text) for line in found.log] == [
        ("syslog0", "error", "disk on fire"),
        ("syslog0", "notice", "app: hello"),
        ("syslog0", "notice", "plain \N{REPLACEMENT CHARACTER}"),
    ]


@given(st.binary(max_size=60))
def test_any_bytes_of_log_lines(packet: bytes) -> None:
    line = log_line(1, "x", pack_head("syslog") + packet)
    assert line is not None
    assert line.text is not None
    log_line(1, "x", packet)


def test_a_log_keeps_both_ends() -> None:
    log = Log(10)
    for n in range(25):
        log.add(LogLine(n, "x", "info", str(n)))
    assert [line.timestamp_ns for line in log] == [0, 1, 2, 3, 4, 20, 21, 22, 23, 24]
    assert (log.left_out, len(log)) == (15, 25)


@given(st.lists(st.integers(0, 2**50), min_size=1), st.floats(0, 1))
def test_quantiles_are_within_one_percent(values: list[int], fraction: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    rank = max(1, -int(-fraction * len(values) // 1))
    assert histogram.quantile(fraction) == pytest.approx(sorted(values)[rank - 1], rel=0.01, abs=0.5)
    assert (histogram.minimum, histogram.maximum) == (min(values), max(values))


@given(st.lists(st.lists(st.integers(0, 2**50), min_size=1)))
def test_durations_added_together_are_those_added_one_by_one(parts: list[list[int]]) -> None:
    together, single = Histogram(), Histogram()
    for part in parts:
        together.add_all(part)
        for value in part:
            single.add(value)
    for found in (together, together.copy()):
        assert (found.count, found.minimum, found.maximum) == (single.count, single.minimum, single.maximum)
        assert (found.powers(), found.quantile(0.3)) == (single.powers(), single.quantile(0.3))
    assert sum(single.powers().values()) == single.count


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-(2**40), 2**70), st.integers(0, 100)), max_size=50))
def test_a_time_line_keeps_sums(events: list[tuple[int, int, int]]) -> None:
    timeline = Timeline()
    series = [timeline.new_series() for _ in range(4)]
    for number, stamp, moved in events:
        cell = timeline.cell(series[number], stamp)
        cell[BYTES] += moved
        cell[TIME_MAX_NS] = max(cell[TIME_MAX_NS], moved)
    assert timeline.last - timeline.first < MAX_SLICES
    for number in range(4):
        mine = [moved for n, _, moved in events if n == number]
        assert sum(cell[BYTES] for cell in series[number].values()) == sum(mine)
        assert max((cell[TIME_MAX_NS] for cell in series[number].values()), default=0) == max(mine, default=0)
        assert all(timeline.first <= at <= timeline.last for at in series[number])


def test_a_time_line_has_a_bound_of_cells() -> None:
    timeline = Timeline()
    series = [timeline.new_series() for _ in range(400)]
    for at in range(MAX_SLICES):
        for one in series:
            timeline.cell(one, at * 1000)[BYTES] += 1
    assert sum(len(one) for one in series) <= MAX_CELLS
    assert all(sum(cell[BYTES] for cell in one.values()) == MAX_SLICES for one in series)


def test_the_plot_shows_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = []
    for n in range(1000):  # 10 kB in the first tenth, then every other of five parts
        if n < 100 or (n // 200) % 2:
            events += [event("S", n, n * 10**6), event("C", n, n * 10**6 + 1000, length=100)]
    events += [event("S", 5000, 999 * 10**6), event("C", 5000, 10**9, length=100)]
    path = tmp_path / "events.pcap"
    path.write_bytes(classic(events, 220, tick_ns=1))
    found = measure(path).statistics
    lines = throughput_plot(found, 74, colour=False)
    assert lines[2].strip() == "0x81 bulk IN: mean 50.1 kB/s"
    assert all(len(line) <= 74 for line in lines)
    base = lines[5][13:]
    assert base[0] != " "
    assert base[9] == " "
    assert base[18] != " "
    assert lines[-1].split() == ["0", "500", "ms", "1.00", "s"]
    monkeypatch.setenv("FORCE_COLOR", "1")  # the library looks for itself whether the output is a terminal
    assert "\x1b[" in "".join(throughput_plot(found, 74, colour=True))
    (totals,) = found.interfaces.values()
    (endpoint,) = totals.endpoints.values()
    assert sum(rates(endpoint.series, found.timeline, 10)) / 10 == pytest.approx(50_100, rel=0.01)


def test_units() -> None:
    assert [duration(ns) for ns in (0, 1, 999, 1000, 12_345, 999_499, 999_600, 5e9, 4e12)] == [
        "0 ns", "1 ns", "999 ns", "1.00 µs", "12.3 µs", "999 µs", "1.00 ms", "5.00 s", "4000 s",
    ]  # fmt: skip
    expected = ["0 B/s", "12.3 B/s", "1.50 kB/s", "3.00 MB/s", "2.50 GB/s"]
    assert [rate(number) for number in (0, 12.34, 1500, 3e6, 2.5e9)] == expected
