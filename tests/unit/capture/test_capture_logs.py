"""Logs in a capture: their interface, their share of the queue, counts and ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.recording import INFO, HeldWriter, finish, run
from tests.oracles.pcapng_reader import CapturedInterface, CapturedRecord, read_capture, read_items
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import CaptureError
from usbip_capture.records.pcapng import LINKTYPE_WIRESHARK_UPPER_PDU

MESSAGE = 1_700_000_000_000_000_000, b"head<14>text", ()


def test_a_log_beside_a_device(tmp_path: Path) -> None:
    path = tmp_path / "both.pcapng"
    with PcapWriter(path) as writer:
        log = writer.add_log_interface("log of pi")
        channel = writer.add_usb_interface(INFO, server="pi")
        log.write([MESSAGE])
        run(channel)
        log.write([MESSAGE, (MESSAGE[0] + 1, b"<14>second", ("late",))])
        assert writer.flush(10)
        assert (writer.received, writer.written, writer.dropped, writer.urbs) == (5, 5, 0, 1)
        log.note("one was cut")
    items = list(read_items(path))
    interfaces = [item for item in items if isinstance(item, CapturedInterface)]
    assert [(i.name, i.link_type, i.received, i.dropped, i.comments) for i in interfaces] == [
        ("syslog0", LINKTYPE_WIRESHARK_UPPER_PDU, 3, 0, ["one was cut"]),
        ("usbip0", 220, 2, 0, []),
    ]
    assert interfaces[0].description == "log of pi"
    records = [item for item in items if isinstance(item, CapturedRecord)]
    assert [record.interface.name for record in records] == ["syslog0", "usbip0", "usbip0", "syslog0", "syslog0"]
    last = records[-1]
    assert (last.timestamp_ns, last.data, last.comments) == (MESSAGE[0] + 1, b"<14>second", ["late"])


def test_several_logs_have_interfaces_of_their_own(tmp_path: Path) -> None:
    with PcapWriter(tmp_path / "out.pcapng") as writer:
        for text in (b"<14>a", b"<14>b"):
            writer.add_log_interface("a log").write([(1, text, ())])
    assert [(r.interface.name, r.data) for r in read_capture(tmp_path / "out.pcapng")] == [
        ("syslog0", b"<14>a"),
        ("syslog1", b"<14>b"),
    ]


def test_the_snapshot_length_cuts_messages(tmp_path: Path) -> None:
    with PcapWriter(tmp_path / "out.pcapng", snaplen=64) as writer:
        writer.add_log_interface("").write([(1, bytes(1000), ())])
    (record,) = read_capture(tmp_path / "out.pcapng")
    assert (len(record.data), record.original_length) == (64, 1000)


def test_exactly_so_many_packets_of_a_batch(tmp_path: Path) -> None:
    reasons: list[str] = []
    writer = PcapWriter(tmp_path / "out.pcapng", max_packets=3, on_end=reasons.append)
    log = writer.add_log_interface("")
    log.write([MESSAGE, MESSAGE])
    log.write([MESSAGE, MESSAGE, MESSAGE])
    writer.close()
    assert reasons == ["count"]
    assert (writer.received, writer.written, writer.dropped) == (3, 3, 0)
    assert len(list(read_capture(tmp_path / "out.pcapng"))) == 3


def test_a_flood_of_messages_leaves_room_for_usb() -> None:
    with HeldWriter(queue_bytes=1 << 20) as (writer, channel, sink):
        log = writer.add_log_interface("flood")
        for _ in range(2000):
            log.write([(1, bytes(1000), ())])
        assert 100 < log.received - log.dropped < 300
        for _ in range(100):
            run(channel)
        assert channel.dropped == 0
        data = finish(writer, sink)
        assert log.written == log.received - log.dropped
        assert data.count(bytes(1000)) == log.written
        log.write([MESSAGE])  # after the end: neither captured nor counted
        assert log.received == 2000


def test_what_is_lost_with_the_output_counts_as_dropped() -> None:
    with HeldWriter(CaptureError("gone")) as (writer, _, sink):
        log = writer.add_log_interface("")
        log.write([MESSAGE, MESSAGE])
        sink.go_on.set()
        with pytest.raises(CaptureError, match="gone"):
            writer.close()
        assert (log.received, log.dropped, log.written) == (2, 2, 0)
