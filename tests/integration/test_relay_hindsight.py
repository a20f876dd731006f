"""A relay that keeps what went through: captures that join later have it first, each URB once and in its order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.hard_working_client import AT_ONCE, SIZE, works
from tests.oracles.pcapng_reader import CapturedRecord, read_capture
from tests.waiting import wait_until
from usbip_capture import PcapWriter
from usbip_capture.capture.sinks import FileSink
from usbip_capture.capture.span import Span
from usbip_capture.cli.main import main
from usbip_capture.demo.device import BULK_IN, BULK_OUT, DemoServer
from usbip_capture.device import Device
from usbip_capture.live import registry
from usbip_capture.live.joining import JoinedCapture
from usbip_capture.relay.captures import DESCRIPTORS
from usbip_capture.relay.service import RelayService
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.usb.setup import get_descriptor, set_configuration
from usbip_capture.usb.urb import TransferType, Urb

FIRST_WORK = 60
BEGAN = "usbip-capture: this capture began here"


@pytest.fixture
def service() -> Iterator[RelayService]:
    with closing(DemoServer()) as server:
        there = ServerAddress(*server.listen("127.0.0.1", 0))
        with closing(RelayService(there, "127.0.0.1", 0, keeps=Span(0, 64 << 20))) as found:
            yield found


def attached(service: RelayService) -> Device:
    device = ServerAddress("127.0.0.1", service.relay.port, timeout=60.0).import_device(Selector("1-1"))
    device.run(Urb.control(get_descriptor(1, 0, 0, 18).pack()), 60)
    device.run(Urb.control(set_configuration(1).pack()), 60)
    return device


def echo(device: Device, number: int) -> None:
    data = number.to_bytes(SIZE, "big")
    device.run(Urb(TransferType.BULK, BULK_OUT, SIZE, data), 60)
    assert device.run(Urb(TransferType.BULK, BULK_IN, SIZE), 60).data == data


def captured(service: RelayService, path: Path) -> tuple[PcapWriter, object]:
    writer = PcapWriter(path)
    return writer, service.relay.capture(writer)


def ended(service: RelayService, writer: PcapWriter, capture: object, path: Path) -> list[CapturedRecord]:
    service.end(capture)
    writer.close()
    assert writer.dropped == 0
    return list(read_capture(path))


def bulk(records: list[CapturedRecord]) -> list[tuple[str, int, bytes, int]]:
    """What happened to which URB, known by its data, and when."""
    usb = [(r.usb, r.timestamp_ns) for r in records if r.usb is not None and r.usb.xfer_type == 3]
    known = {each.id: bytes(each.data) for each, _ in usb if each.data}
    return [(chr(each.type), each.epnum, known.get(each.id, b""), at) for each, at in usb]


def test_a_client_that_has_left_and_one_that_is_there(service: RelayService, tmp_path: Path) -> None:
    first = attached(service)
    echo(first, 1)
    first.close()
    wait_until("it has left", lambda: not service.relay.clients)
    before = captured(service, tmp_path / "a.pcapng")
    second = attached(service)
    echo(second, 2)
    meanwhile = captured(service, tmp_path / "b.pcapng")
    echo(second, 3)
    second.close()
    for begun, path in ((before, "a.pcapng"), (meanwhile, "b.pcapng")):
        records = ended(service, *begun, tmp_path / path)
        events = bulk(records)
        assert [int.from_bytes(data, "big") for _, _, data, _ in events] == [n for n in (1, 2, 3) for _ in range(4)]
        assert [at for *_, at in events] == sorted(at for *_, at in events)
        assert DESCRIPTORS in records[0].comments
        comments = [text for r in records for text in r.comments]
        assert "usbip-capture: kept by the relay: what happened before this capture began" in comments
        assert comments.count(BEGAN) == 1
        assert len({r.interface.name for r in records if r.usb is not None}) == 1


def test_those_who_join_under_load_have_the_whole_of_it(service: RelayService, tmp_path: Path) -> None:
    """Compared with one that was there all the time."""
    whole = captured(service, tmp_path / "whole.pcapng")
    device, stopping, some = attached(service), threading.Event(), threading.Event()
    working = threading.Thread(
        target=works, args=(device, stopping, lambda rounds: some.set() if rounds > FIRST_WORK else None)
    )
    working.start()
    assert some.wait(60)
    begun = [captured(service, tmp_path / f"{number}.pcapng") for number in range(4)]
    stopping.set()
    working.join(60)
    device.close()
    wait_until("it has left", lambda: not service.relay.clients)
    everything = bulk(ended(service, *whole, tmp_path / "whole.pcapng"))
    assert len(everything) > 4 * FIRST_WORK * AT_ONCE
    for number, each in enumerate(begun):
        assert bulk(ended(service, *each, tmp_path / f"{number}.pcapng")) == everything


def test_it_is_joined_by_the_channel(service: RelayService, tmp_path: Path) -> None:
    device = attached(service)
    echo(device, 1)
    entry, path = registry.find(service.channel.name), tmp_path / "a.pcapng"
    assert entry is not None
    joined = JoinedCapture(
        entry, FileSink(str(path)), snaplen=0, capture_filter="bulk", max_packets=4, on_end=lambda reason: None
    )
    wait_until("it has enough", joined._done.is_set)
    joined.close()
    assert [int.from_bytes(data, "big") for _, _, data, _ in bulk(list(read_capture(path)))] == [1] * 4
    device.close()


def test_what_cannot_be_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["relay", "demo", "--listen", "127.0.0.1:0", "--hindsight", "much"]) == 2
    assert "'much' is not what is to be kept: write a time, a size or both" in capsys.readouterr().err
