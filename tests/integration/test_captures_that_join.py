"""Captures that begin and end while a client works hard, compared with one that was there all the time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from tests.fakes.hard_working_client import works
from tests.fakes.local_bus import FakeBus
from tests.oracles.pcapng_reader import CapturedRecord, read_capture
from tests.waiting import wait_until
from usbip_capture import serve
from usbip_capture.capture.channel import IN_FLIGHT
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.sessions.session_capture import DESCRIPTORS
from usbip_capture.usb.setup import set_configuration
from usbip_capture.usb.urb import Urb

CAPTURES = 12


def events(records: Sequence[CapturedRecord]) -> list[tuple[str, int, bytes]]:
    """What happened, and to which URB: known by its data, which its submit or its completion has."""
    known = {record.usb.id: record.usb.data for record in records if record.usb is not None and record.usb.data}
    return [(chr(usb.type), usb.epnum, known.get(usb.id, b"")) for usb in (record.usb for record in records) if usb]


def test_each_is_a_part_of_the_whole_without_a_gap(tmp_path: Path) -> None:
    bus, whole, stopping = FakeBus(), tmp_path / "whole.pcapng", threading.Event()
    bus.plug("1-1")
    with serve(
        ["all"], listen="127.0.0.1:0", web="127.0.0.1:0", captures=tmp_path / "kept", pcap=whole, bus=bus
    ) as server:
        device = ServerAddress.parse(server.address, timeout=60.0).import_device(Selector("1-1"))
        device.run(Urb.control(set_configuration(1).pack()), 60)
        working = threading.Thread(target=works, args=(device, stopping))
        working.start()
        store = server.captures
        assert store is not None
        ids = []
        try:
            for number in range(CAPTURES):
                begun = store.start(["1-1"] if number % 2 else [])
                ids.append(begun.id)
                wait_until("it has something", lambda: (found := store.find(ids[-1])) and (found.packets or 0) > 10)
                if number % 4 == 3:  # so that some overlap
                    for capture_id in ids[-4:]:
                        store.stop(capture_id)
        finally:
            stopping.set()
            working.join(60)
            device.close()
        wait_until("the client has left", lambda: not server.clients)
        found = [[r for path in store.files(each) for r in read_capture(path) if r.usb is not None] for each in ids]
        assert all(not facts.dropped for facts in store.captures)
    everything = events(list(read_capture(whole)))
    places = {event: place for place, event in enumerate(everything) if event[2]}
    was_in_flight = 0
    for records in found:
        own = list(zip(records, events(records), strict=True))
        earlier = [record for record, (kind, *_) in own if kind == "S" and IN_FLIGHT in record.comments]
        left_out = {id(record) for record in earlier} | {id(r) for r in records if DESCRIPTORS in r.comments}
        seen = [event for record, event in own if id(record) not in left_out]
        first = next(number for number, event in enumerate(seen) if event[2])
        begin = places[seen[first]] - first
        expected = everything[begin : begin + len(seen)]
        assert [event[:2] for event in seen] == [event[:2] for event in expected]
        assert all(one[2] in (b"", other[2]) for one, other in zip(seen, expected, strict=True))
        was_in_flight += len(earlier)
    assert was_in_flight
