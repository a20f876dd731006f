"""`probe`: what is read and listened to, devices that fail and go, and stopping in every phase."""

from __future__ import annotations

import io
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fakes.scripted_server import ScriptedServer, answer_import
from tests.oracles.pcapng_reader import CapturedRecord, read_capture
from tests.waiting import wait_until
from usbip_capture import PcapWriter
from usbip_capture.demo import device as demo
from usbip_capture.demo.device import CDC_IN, KEYS_IN, DemoDevice
from usbip_capture.device import Transfer
from usbip_capture.errors import ServerLost, UsbipError
from usbip_capture.probe import ProbeSession, ProbeSettings
from usbip_capture.probe.listen import MAX_ERRORS
from usbip_capture.records.usbmon import UsbmonRecord
from usbip_capture.server import Server
from usbip_capture.servers import address as hosts
from usbip_capture.servers.address import Selector
from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.status import ECONNRESET, EMSGSIZE, EPIPE, EPROTO
from usbip_capture.usb.urb import Completion, TransferType


class Probe:
    """A session on a thread of its own, capturing into memory."""

    def __init__(self, port: int, **settings: Any) -> None:
        self.stream = io.BytesIO()
        self.writer = PcapWriter(self.stream)
        self.error: UsbipError | None = None
        selector = Selector.parse(settings.pop("device", ""))
        server = hosts.ServerAddress("127.0.0.1", port, settings.pop("timeout", 5.0))
        self.session = ProbeSession(server, selector, ProbeSettings(**settings))
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.session.run(self.writer)
        except UsbipError as error:
            self.error = error

    def written(self, count: int) -> None:
        wait_until(f"{count} packets", lambda: self.writer.received >= count)

    def stop(self) -> None:
        self.session.stop()
        self.ended()

    def ended(self) -> None:
        self.thread.join(20)
        assert not self.thread.is_alive()
        self.writer.close()


@pytest.fixture
def records(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Probe], list[tuple[CapturedRecord, UsbmonRecord]]]:
    def read(probe: Probe) -> list[tuple[CapturedRecord, UsbmonRecord]]:
        path = tmp_path_factory.mktemp("probe") / "out.pcapng"
        path.write_bytes(probe.stream.getvalue())
        return [(packet, packet.usb) for packet in read_capture(path) if packet.usb]

    return read


Records = Callable[[Probe], "list[tuple[CapturedRecord, UsbmonRecord]]"]


class Exporter:
    """A server on a port, with devices that the test can reach."""

    def __init__(self) -> None:
        self.server = Server()
        _, self.port = self.server.listen("127.0.0.1", 0)
        self.opened: list[SimulatedDevice] = []

    def add(self, make: Callable[[], SimulatedDevice], info: DeviceInfo = demo.INFO) -> None:
        def open_device() -> SimulatedDevice:
            self.opened.append(make())
            return self.opened[-1]

        self.server.add(info, open_device)


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    opened = Exporter()
    yield opened
    opened.server.close()


def test_what_is_read_and_in_which_order(exporter: Exporter, records: Records) -> None:
    exporter.add(DemoDevice)
    probe = Probe(exporter.port)
    probe.written(40)
    probe.stop()
    setups = [r.setup.hex(" ", 2) for _, r in records(probe) if r.type == ord("S") and r.xfer_type == 2]
    assert setups[0] == "8006 0001 0000 1200"
    assert setups[1:3] == ["8006 000f 0000 0500", "8006 000f 0000 0c00"]
    assert setups[3:5] == ["8006 0002 0000 0900", "8006 0002 0000 9200"]
    assert [s for s in setups if s.startswith("8006 0003")] == ["8006 0003 0000 ff00"]
    assert setups[-2:] == ["0009 0100 0000 0000", "8106 0022 0200 3f00"]
    assert probe.error is None


def test_listening_reads_every_in_endpoint_several_at_a_time(exporter: Exporter, records: Records) -> None:
    exporter.add(DemoDevice)
    probe = Probe(exporter.port)
    probe.written(46)
    probe.stop()
    first: dict[int, int] = {}
    answered: set[int] = set()
    for _, record in records(probe):
        if record.xfer_type != 2 and record.type == ord("S") and record.epnum not in answered:
            first[record.epnum] = first.get(record.epnum, 0) + 1
        elif record.xfer_type != 2:
            answered.add(record.epnum)
    assert set(first) == {0x81, 0x82, 0x83, 0x84}
    assert min(first.values()) >= 2


def test_the_enumeration_is_marked_and_nothing_else(exporter: Exporter, records: Records) -> None:
    exporter.add(DemoDevice)
    probe = Probe(exporter.port)
    probe.written(46)
    probe.stop()
    for packet, record in records(probe):
        marked = any("descriptors read" in comment for comment in packet.comments)
        assert marked == (record.xfer_type == 2), packet
        assert len(packet.comments) == marked or record.status == -ECONNRESET  # unlinked at the end


def test_without_descriptors_only_what_listening_needs(exporter: Exporter, records: Records) -> None:
    exporter.add(DemoDevice)
    probe = Probe(exporter.port, descriptors=False)
    probe.written(20)
    probe.stop()
    kinds = {r.setup[3] for _, r in records(probe) if r.type == ord("S") and r.setup[:2] == b"\x80\x06"}
    assert kinds == {1, 2}


def interface(number: int, endpoints: str, *, cls: int = 0xFF, count: int = 1) -> bytes:
    return bytes([9, 4, number, 0, count, cls, 0, 0, 0]) + bytes.fromhex(endpoints)


class Small(SimulatedDevice):
    """A device with the given interfaces, and its own idea of what IN transfers bring."""

    replies: Callable[[int], Completion] | None = None

    def __init__(self, *interfaces: bytes) -> None:
        body = b"".join(interfaces)
        head = b"\x09\x02" + (9 + len(body)).to_bytes(2, "little") + bytes([len(interfaces), 1, 0, 0x80, 50])
        device = bytes.fromhex("12 01 0002 000000 40 0912 0200 0001 00 00 00 01")
        descriptors = Descriptors(device, [head + body])
        self.count = 0
        super().__init__(descriptors.info("1-1", 1, 2, Speed.HIGH), descriptors)

    def submit(self, transfer: Transfer) -> None:
        self.count += transfer.urb.endpoint == 0x81
        if transfer.urb.transfer_type == TransferType.CONTROL or self.replies is None:
            super().submit(transfer)
        else:
            completion = self.replies(transfer.urb.length)
            self.timetable.after(0.001, lambda: transfer.finish(completion))


def test_bulk_in_of_mass_storage_is_left_alone(exporter: Exporter, records: Records) -> None:
    disk = interface(0, "07 05 81 02 0002 00 07 05 02 02 0002 00", cls=8, count=2)
    serial = interface(1, "07 05 83 02 0002 00")
    exporter.add(lambda: Small(disk, serial))
    probe = Probe(exporter.port)
    probe.written(12)
    probe.stop()
    assert {r.epnum for _, r in records(probe) if r.xfer_type != 2} == {0x83}


def test_isochronous_endpoints_are_listened_to(exporter: Exporter, records: Records) -> None:
    exporter.add(lambda: Small(interface(0, "07 05 81 05 4000 01")))
    probe = Probe(exporter.port)
    probe.written(60)
    probe.stop()
    iso = [r for _, r in records(probe) if r.xfer_type == 0]
    assert len(iso) > 20
    assert {r.epnum for r in iso} == {0x81}
    assert all(r.ndesc >= 8 for r in iso)


@pytest.mark.parametrize("status", [-EPROTO, -EPIPE], ids=["EPROTO", "EPIPE"])
def test_an_endpoint_that_only_fails_is_given_up(exporter: Exporter, records: Records, status: int) -> None:
    class Failing(Small):
        replies = staticmethod(lambda length: Completion(status))

    small: list[Small] = []

    def make() -> Small:
        small.append(Failing(interface(0, "07 05 81 02 0002 00")))
        return small[-1]

    exporter.add(make)
    probe = Probe(exporter.port)
    wait_until("the endpoint is given up", lambda: small and small[0].count >= MAX_ERRORS and _quiet(probe))
    probe.stop()
    found = records(probe)
    notes = [c for packet, _ in found for c in packet.comments] + _remarks(probe)
    # Not as fast as it can: a device that is being reset gets a second.
    assert len([r for _, r in found if r.type == ord("S") and r.epnum == 0x81]) < 200
    assert any("endpoint 0x81 is not read any more" in note for note in notes)
    assert probe.error is None


def _quiet(probe: Probe) -> bool:
    """Whether nothing more is captured; a good device is never quiet for so long."""
    before = probe.writer.received
    threading.Event().wait(0.3)
    return probe.writer.received == before


def _remarks(probe: Probe) -> list[str]:
    """Comments that found no packet: they are packets of their own."""
    return [probe.stream.getvalue().decode("utf-8", "replace")]


def test_transfers_get_smaller_until_the_server_takes_them(exporter: Exporter, records: Records) -> None:
    class Picky(Small):
        @staticmethod
        def replies(length: int) -> Completion:
            return Completion(-EMSGSIZE) if length > 4096 else Completion(0, 1, b"x")

    exporter.add(lambda: Picky(interface(0, "07 05 81 02 0002 00")))
    probe = Probe(exporter.port)
    probe.written(80)
    probe.stop()
    good = [r.length for _, r in records(probe) if r.type == ord("S") and r.epnum == 0x81]
    assert good[0] == 16384
    assert good[-1] == 4096


def test_unplugged_and_back(exporter: Exporter, records: Records) -> None:
    exporter.add(DemoDevice)
    probe = Probe(exporter.port)
    probe.written(46)
    gone = exporter.opened[-1]
    exporter.server.remove("1-1")
    gone.unplug()
    exporter.add(DemoDevice)
    wait_until("the device is imported again", lambda: len(exporter.opened) == 2)
    before = probe.writer.received
    probe.written(before + 46)
    probe.stop()
    ours = re.compile("descriptors read|unlinked by CMD_UNLINK")
    comments = [c for packet, _ in records(probe) for c in packet.comments if not ours.search(c)]
    assert len(comments) == 2, comments
    assert "gone" in comments[0]
    assert "is back" in comments[1]


def test_moved_to_another_port_it_is_found_by_its_identity(exporter: Exporter) -> None:
    exporter.add(DemoDevice)
    probe = Probe(exporter.port)
    probe.written(46)
    exporter.server.remove("1-1")
    exporter.opened[-1].unplug()
    elsewhere = demo.DESCRIPTORS.info("2-3", 2, 9, Speed.HIGH)
    exporter.add(DemoDevice, elsewhere)
    wait_until("the device is imported again", lambda: len(exporter.opened) == 2)
    probe.stop()
    assert probe.error is None


def test_without_reconnect_the_loss_is_the_end(exporter: Exporter) -> None:
    exporter.add(DemoDevice)
    probe = Probe(exporter.port, reconnect=False)
    probe.written(46)
    exporter.opened[-1].unplug()
    probe.ended()
    assert isinstance(probe.error, ServerLost)
    # Who is just sending is the first to see it, and knows the connection only.
    assert "1-1" in str(probe.error) or "the connection to 127.0.0.1" in str(probe.error)


def silent(sock: socket.socket) -> None:
    """Import, and nothing ever after."""
    answer_import(sock)
    while sock.recv(4096):
        pass


def test_stop_while_the_device_is_silent() -> None:
    with ScriptedServer(silent) as server:
        probe = Probe(server.port, device="1-1")
        probe.written(1)
        probe.stop()
    assert probe.error is None


def test_stop_while_the_device_is_disconnected(exporter: Exporter) -> None:
    exporter.add(DemoDevice)
    probe = Probe(exporter.port)
    probe.written(46)
    exporter.server.remove("1-1")
    exporter.opened[-1].unplug()
    probe.stop()
    assert probe.error is None


def test_data_reaches_the_capture_while_listening(exporter: Exporter, records: Records) -> None:
    exporter.add(DemoDevice)
    probe = Probe(exporter.port)
    wait_until("somebody listens", lambda: exporter.opened and exporter.opened[0].waits_for_data(CDC_IN))
    exporter.opened[0].feed(CDC_IN, b"a line of the device\r\n")
    wait_until("a key", lambda: exporter.opened[0].waits_for_data(KEYS_IN))
    before = probe.writer.received
    probe.written(before + 2)
    probe.stop()
    assert any(r.data == b"a line of the device\r\n" and r.epnum == CDC_IN for _, r in records(probe))
