"""`SyslogReceiver` over real sockets: connecting, losing, listening, capturing, and whatever senders do wrong."""

from __future__ import annotations

import logging
import socket
import ssl
import subprocess
import sys
import threading
import tracemalloc
from collections import deque
from functools import partial
from pathlib import Path

import pytest

from tests.fakes.syslog_senders import Device, Messages, certificate, esp, port_of
from tests.oracles.pcapng_reader import CapturedInterface, CapturedRecord, read_capture, read_items
from tests.waiting import wait_until
from usbip_capture import PcapWriter, SyslogReceiver
from usbip_capture.collector import connecting, listening
from usbip_capture.collector.delivery import BACKLOG_BYTES, Delivery
from usbip_capture.collector.listen_addresses import ListenAddress, parse_listen_addresses
from usbip_capture.collector.sender import Sender
from usbip_capture.errors import CannotListen, LocalProtocolError
from usbip_capture.records.upper_pdu import TCP, UDP, Flow, parse_upper_pdu
from usbip_capture.syslog.framing import INCOMPLETE, TOO_LONG

LINES = [esp(1000, "I (1000) main: one"), esp(1100, "E (1100) wifi: two", 3), esp(1200, "W (1200) wifi: three", 4)]
TEXTS = ["I (1000) main: one", "E (1100) wifi: two", "W (1200) wifi: three"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(connecting, "LAST_RETRY", 0.02)


# -- connecting


def test_messages_of_a_device_come_as_they_are_sent(device: Device) -> None:
    with SyslogReceiver("127.0.0.1", device.port) as receiver, device.accept() as sock:
        found = iter(receiver)
        for line, text in zip(LINES, TEXTS, strict=True):
            sock.sendall(line)
            message = next(found)
            assert (message.text, message.source, message.hostname) == (text, "127.0.0.1", "esp32")


def test_the_iterator_ends_with_the_receiver(device: Device) -> None:
    receiver = SyslogReceiver("127.0.0.1", device.port)
    receiver.start()
    with device.accept() as sock:
        sock.sendall(b"".join(LINES))
        wait_until("three messages", lambda: receiver.counts.messages == 3)
        receiver.stop()
    assert [(m.severity, m.text) for m in receiver] == list(zip([6, 3, 4], TEXTS, strict=True))
    assert list(receiver) == []
    receiver.stop()


def test_a_device_that_is_not_there_yet_and_is_lost(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    absent = Device()
    port = absent.port
    absent.close()
    messages = Messages()
    path = tmp_path / "out.pcapng"
    with PcapWriter(path) as pcap, SyslogReceiver("127.0.0.1", port, pcap, callback=messages):
        wait_until("a warning", lambda: "nothing listens on 127.0.0.1" in caplog.text)
        device = Device(port)
        with device.accept() as sock:
            sock.sendall(LINES[0] + b"<13>half")
            messages.wait(1)
        with device.accept() as sock:
            sock.sendall(LINES[2])
            found = [(m.text, m.flaw) for m in messages.wait(3)]
        device.close()
    assert found == [(TEXTS[0], ""), ("half", INCOMPLETE), (TEXTS[2], "")]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2, warnings
    assert "closed the connection" in warnings[1]
    comments = [comment for record in read_capture(path) for comment in record.comments]
    assert any(
        "cannot reach the log of 127.0.0.1 yet, still trying: nothing listens" in comment for comment in comments
    )
    assert any("the log of 127.0.0.1 is there" in comment for comment in comments)
    assert any("the log of 127.0.0.1 is lost" in comment for comment in comments)
    assert any("the log of 127.0.0.1 is back" in comment for comment in comments)
    interface, *_ = list(read_items(path))
    assert isinstance(interface, CapturedInterface)
    assert (interface.name, interface.received) == ("syslog0", 3)


def test_a_silent_peer_does_not_hold_up_the_end(device: Device) -> None:
    receiver = SyslogReceiver("127.0.0.1", device.port)
    receiver.start()
    sock = device.accept()
    receiver.stop()
    assert sock.recv(1) == b""
    sock.close()


def test_stop_without_start_and_from_the_callback(device: Device) -> None:
    SyslogReceiver("127.0.0.1", 9).stop()
    messages = Messages()

    def callback(message: object) -> None:
        receiver.stop()
        messages(message)  # type: ignore[arg-type]

    receiver = SyslogReceiver("127.0.0.1", device.port, callback=callback)
    receiver.start()
    with device.accept() as sock:
        sock.sendall(LINES[0])
        messages.wait(1)
    receiver.stop()


def test_a_callback_that_fails_is_reported_once(caplog: pytest.LogCaptureFixture, device: Device) -> None:
    def callback(message: object) -> None:
        raise ZeroDivisionError

    with SyslogReceiver("127.0.0.1", device.port, callback=callback) as receiver, device.accept() as sock:
        sock.sendall(b"".join(LINES))
        wait_until("three failures", lambda: receiver.counts.callback_errors == 3)
    assert caplog.text.count("the callback failed") == 1


# -- into a capture


def test_what_is_captured(tmp_path: Path, device: Device) -> None:
    path = tmp_path / "out.pcapng"
    messages = Messages()
    receiver = SyslogReceiver("127.0.0.1", device.port, path, callback=messages, min_severity="warning")
    with receiver, device.accept() as sock:
        sock.sendall(b"".join(LINES) + b"E (1300) bare: \x1b[0;31mfour\n")
        messages.wait(3)
        own_port = sock.getpeername()[1]
    items = list(read_items(path))
    assert isinstance(items[0], CapturedInterface)
    assert (items[0].name, items[0].link_type, items[0].received) == ("syslog0", 252, 3)
    assert items[0].description == f"syslog, log of 127.0.0.1:{device.port}"
    records = [item for item in items if isinstance(item, CapturedRecord)]
    assert [record.timestamp_ns for record in records] == [message.arrival_ns for message in messages.all]
    pdus = [pdu for record in records if (pdu := parse_upper_pdu(record.data)) is not None]
    assert [pdu.payload for pdu in pdus] == [
        LINES[1].partition(b" ")[2].rstrip(b"\n"),
        LINES[2].partition(b" ")[2].rstrip(b"\n"),
        b"<11>1 - 127.0.0.1 bare - - - E (1300) bare: four",
    ]
    flow = pdus[0].flow
    assert flow is not None
    assert (flow.source, flow.source_port, flow.port_type) == ("127.0.0.1", device.port, TCP)
    assert (flow.destination, flow.destination_port) == ("127.0.0.1", own_port)


def test_aligned_clock(tmp_path: Path, device: Device) -> None:
    path = tmp_path / "out.pcapng"
    messages = Messages()
    with SyslogReceiver("127.0.0.1", device.port, path, callback=messages, align_clock=True), device.accept() as sock:
        # Three at once: they can only have been made one after the other, the first 200 ms before the last.
        sock.sendall(LINES[2])
        messages.wait(1)
        sock.sendall(LINES[0] + LINES[1])
        messages.wait(3)
    records = list(read_capture(path))
    stamps = [record.timestamp_ns for record in records]
    assert stamps[0] == messages.all[0].arrival_ns
    assert [stamps[0] - stamp for stamp in stamps[1:]] == [200_000_000, 100_000_000]
    assert all("aligned; arrived" in record.comments[0] for record in records)
    (interface,) = [item for item in read_items(path) if isinstance(item, CapturedInterface)]
    assert "aligned" in interface.description


def test_the_first_example_of_our_forerunner(tmp_path: Path) -> None:
    """Nothing is stopped or closed in it: that is done when Python ends."""
    code = """
import usb.core
from usbip_capture import PcapWriter, SyslogReceiver, get_backend
pcap = PcapWriter(open("capture.pcapng", "wb"))
syslog = SyslogReceiver("demo", pcap=pcap)
syslog.start()
backend = get_backend("demo", pcap=pcap)
dev = usb.core.find(backend=backend, idVendor=0x1209, idProduct=0x0001)
"""
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(root)}, check=True, timeout=60)
    items = list(read_items(tmp_path / "capture.pcapng"))
    interfaces = [item for item in items if isinstance(item, CapturedInterface)]
    records = [item for item in items if isinstance(item, CapturedRecord)]
    assert {record.interface.name for record in records} == {"usbip0", "syslog0"}
    assert any(record.data.endswith(b"imported by a host") for record in records)
    assert sum(interface.received or 0 for interface in interfaces) == len(records)  # the statistics at its end


def test_what_has_arrived_is_delivered_when_stopped(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "DRAIN_TIME", 60.0)  # as long as a busy machine needs
    messages = Messages()
    receiver = SyslogReceiver("127.0.0.1", device.port, callback=messages)
    receiver.start()
    with device.accept() as sock:
        sock.sendall(b"".join(b"<13>%06d %s\n" % (number, b"x" * 90) for number in range(300)))
        receiver.stop()
    assert [text[:6] for text in messages.texts] == [f"{number:06}" for number in range(300)]


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_what_has_arrived_is_delivered_when_it_listens_no_more(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "DRAIN_TIME", 60.0)  # as long as a busy machine needs
    messages = Messages()
    receiver = SyslogReceiver(listen=f"{transport}:127.0.0.1:0", callback=messages)
    receiver.start()
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[transport]
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.connect(("127.0.0.1", port_of(receiver, transport)))
        for number in range(2000):
            sock.sendall(b"<13>%06d %s\n" % (number, b"x" * 90))
        receiver.stop()
    assert [text[:6] for text in messages.texts] == [f"{number:06}" for number in range(2000)]


# -- listening


def test_tcp_and_udp_at_once(tmp_path: Path) -> None:
    messages = Messages()
    path = tmp_path / "out.pcapng"
    with SyslogReceiver(listen="127.0.0.1:0", pcap=path, callback=messages) as receiver:
        with socket.create_connection(("127.0.0.1", port_of(receiver, "tcp"))) as sock:
            sock.sendall(LINES[0])
            messages.wait(1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"<13>1 - h a - - - datagram\n", ("127.0.0.1", port_of(receiver, "udp")))
            sock.sendto(b"\n", ("127.0.0.1", port_of(receiver, "udp")))
            messages.wait(2)
    assert messages.texts == [TEXTS[0], "datagram"]
    pdus = [parse_upper_pdu(record.data) for record in read_capture(path)]
    assert [pdu.flow.port_type for pdu in pdus if pdu and pdu.flow] == [TCP, UDP]


def test_devices_are_distinguished_by_their_address(tmp_path: Path) -> None:
    messages = Messages()
    with SyslogReceiver(listen="tcp:*:0", callback=messages) as receiver:
        for number, address in enumerate(("127.0.0.2", "127.0.0.3", "::1"), 1):
            if ":" in address and not socket.has_dualstack_ipv6():
                continue
            host = "::1" if ":" in address else "127.0.0.1"
            port = port_of(receiver, "tcp")
            with socket.create_connection((host, port), source_address=(address, 0)) as sock:
                sock.sendall(f"E (1) {number}: x\n".encode())
                messages.wait(number)
    assert [m.source for m in messages.all][:2] == ["127.0.0.2", "127.0.0.3"]
    assert [m.hostname for m in messages.all] == [m.source for m in messages.all]


def test_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    alone, both = certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(alone))
    messages = Messages()
    with SyslogReceiver(listen="tls:127.0.0.1:0", certificate=str(both), callback=messages) as receiver:
        address = "127.0.0.1", port_of(receiver, "tls")
        with socket.create_connection(address) as plain:  # sends nothing: nobody waits for its handshake
            sock = socket.create_connection(address)
            with context.wrap_socket(sock, server_hostname="localhost") as tls:
                tls.sendall(b"".join(LINES) * 2000)
                messages.wait(6000)
            plain.sendall(b"<13>not TLS\n")
            wait_until("a failed handshake", lambda: receiver.counts.failed_handshakes == 1)
    assert messages.texts == TEXTS * 2000
    assert "TLS handshake" in caplog.text


@pytest.mark.parametrize("content", [None, "", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_certificates_that_are_none(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "certificate.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(LocalProtocolError, match="cannot be used"):
        SyslogReceiver(listen="tls:127.0.0.1:0", certificate=str(path))
    with pytest.raises(LocalProtocolError, match="needs a certificate"):
        SyslogReceiver(listen="tls:127.0.0.1:0")


def test_a_port_in_use_and_no_such_address() -> None:
    with SyslogReceiver(listen="tcp:127.0.0.1:0") as receiver:
        second = SyslogReceiver(listen=f"tcp:127.0.0.1:{port_of(receiver, 'tcp')}")
        with pytest.raises(CannotListen, match="in use: choose another port"):
            second.start()
        second.stop()
    with pytest.raises(CannotListen, match="no such address"):
        SyslogReceiver(listen="192.0.2.1:0").start()


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("", [ListenAddress("tcp", "", 1514), ListenAddress("udp", "", 1514)]),
        ("*", [ListenAddress("tcp", "", 1514), ListenAddress("udp", "", 1514)]),
        ("udp:", [ListenAddress("udp", "", 1514)]),
        ("TCP:*:514", [ListenAddress("tcp", "", 514)]),
        (
            "::1, tls:[::1]",
            [ListenAddress("tcp", "::1", 1514), ListenAddress("udp", "::1", 1514), ListenAddress("tls", "::1", 6514)],
        ),
        ("udp:[::1]:99", [ListenAddress("udp", "::1", 99)]),
        ("tls:*", [ListenAddress("tls", "", 6514)]),
    ],
)
def test_places(text: str, places: list[ListenAddress]) -> None:
    assert parse_listen_addresses(text) == places
    assert parse_listen_addresses(",".join(map(str, places))) == places


@pytest.mark.parametrize("text", ["tcp:h:x", "[::1]x", "h:99999", "x:y"])
def test_no_places(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="is not a place to listen"):
        parse_listen_addresses(text)


def test_wrong_arguments() -> None:
    with pytest.raises(LocalProtocolError, match="give one of both"):
        SyslogReceiver()
    with pytest.raises(LocalProtocolError, match="give one of both"):
        SyslogReceiver("pi", listen="*")
    with pytest.raises(LocalProtocolError, match="not a severity"):
        SyslogReceiver("pi", min_severity="loud")


# -- what senders do wrong


def test_bad_input_is_bounded_counted_and_noted(tmp_path: Path) -> None:
    messages = Messages()
    path = tmp_path / "out.pcapng"
    with SyslogReceiver(listen="tcp:127.0.0.1:0", pcap=path, callback=messages) as receiver:
        address = "127.0.0.1", port_of(receiver, "tcp")
        with socket.create_connection(address) as sock:
            for _ in range(8):
                sock.sendall(bytes([120]) * (1 << 20))
            sock.sendall(b"\n1000000000000 <13>count\n\xff\xfe\n" + LINES[0])
            messages.wait(4)
        with socket.create_connection(address) as sock:
            sock.sendall(b"<13>half")
        messages.wait(5)
    assert [m.flaw for m in messages.all] == [TOO_LONG, "its octet count is wrong", "", "", INCOMPLETE]
    assert messages.texts[1:] == ["count", "\ufffd\ufffd", TEXTS[0], "half"]
    counts = receiver.counts
    assert (counts.too_long, counts.wrong_counts, counts.incomplete) == (1, 1, 1)
    assert counts.discarded == (8 << 20) - (64 << 10)
    (interface,) = [item for item in read_items(path) if isinstance(item, CapturedInterface)]
    (note,) = interface.comments
    assert "1 too long and cut" in note
    records = list(read_capture(path))
    assert records[0].comments == [f"usbip-capture: {TOO_LONG}"]
    assert records[0].original_length < 70_000


def _has_accepted(receiver: SyslogReceiver, connections: int) -> bool:
    return receiver.counts.connections == connections


def test_more_connections_than_are_kept(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 10)
    messages = Messages()
    with SyslogReceiver(listen="tcp:127.0.0.1:0", callback=messages) as receiver:
        address = "127.0.0.1", port_of(receiver, "tcp")
        with socket.create_connection(address) as device:
            silent = []
            for number in range(100):
                silent.append(socket.create_connection(address))
                wait_until("accepted", partial(_has_accepted, receiver, number + 2))
                device.sendall(LINES[0])
                messages.wait(number + 1)
            assert receiver.counts.crowded_out == 91
            assert silent[0].recv(1) == b""
            for sock in silent:
                sock.close()
    assert caplog.text.count("senders of logs") == 1


def test_thousands_of_connections_leave_room_for_a_device() -> None:
    messages = Messages()
    held: deque[socket.socket] = deque(maxlen=300)
    with SyslogReceiver(listen="tcp:127.0.0.1:0", callback=messages) as receiver:
        address = "127.0.0.1", port_of(receiver, "tcp")
        for _ in range(3000):
            if len(held) == held.maxlen:
                held[0].close()
            held.append(socket.create_connection(address, 20))
        with socket.create_connection(address) as device:
            device.sendall(LINES[0])
            messages.wait(1)
            assert receiver.counts.connections == 3001
            assert isinstance(receiver._collector, listening.ListeningCollector)
            assert len(receiver._collector._connections) <= listening.MAX_CONNECTIONS
        for sock in held:
            sock.close()


def test_messages_that_nobody_reads_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    monkeypatch.setattr("usbip_capture.collector.delivery.BACKLOG", 10)
    receiver = SyslogReceiver("127.0.0.1", device.port)
    receiver.start()
    with device.accept() as sock:
        sock.sendall(b"".join(b"<13>%d\n" % n for n in range(100)))
        wait_until("all of them", lambda: receiver.counts.messages == 100)
        receiver.stop()
    assert receiver.counts.missed == 90
    assert [m.text for m in receiver] == [str(n) for n in range(90, 100)]


def test_a_flood_of_senders_of_datagrams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_MAX_SENDERS", 5)
    messages = Messages()
    with SyslogReceiver(listen="udp:127.0.0.1:0", callback=messages) as receiver:
        for number in range(20):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"<13>x", ("127.0.0.1", port_of(receiver, "udp")))
                messages.wait(number + 1)
        assert receiver._collector is not None
        assert len(receiver._collector._datagram_senders) == 5  # type: ignore[union-attr]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts what it has dropped")
def test_datagrams_that_the_system_has_dropped_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "log.pcapng"
    monkeypatch.setattr(listening, "_DATAGRAM_BUFFER", 4096)
    held, go_on = threading.Event(), threading.Event()

    def callback(message: object) -> None:
        held.set()
        assert go_on.wait(20)

    with SyslogReceiver(listen="udp:127.0.0.1:0", pcap=target, callback=callback) as receiver:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", port_of(receiver, "udp")))
            sock.send(b"<14>first")
            assert held.wait(20)
            for _ in range(200):
                sock.send(b"<14>" + b"x" * 500)
        go_on.set()
    counts = receiver.counts
    assert counts.dropped > 0
    assert counts.messages + counts.dropped == 201
    assert any(f"{counts.dropped} further ones dropped by the system" in flaw for flaw in counts.flaws())
    interface, *records = read_items(target)
    assert isinstance(interface, CapturedInterface)
    assert (interface.received, interface.dropped, len(records)) == (201, counts.dropped, counts.messages)


def test_connections_are_counted_and_what_cannot_be_called_is_refused(device: Device) -> None:
    with SyslogReceiver("127.0.0.1", device.port) as receiver, device.accept():
        wait_until("the connection", lambda: receiver.counts.connections == 1)
    with pytest.raises(TypeError, match="callback must be a function"):
        SyslogReceiver("127.0.0.1", callback=5)  # type: ignore[arg-type]


def test_messages_that_nobody_reads_take_a_bounded_part_of_memory() -> None:
    delivery = Delivery(None, 7, align_clock=False)
    sender = Sender(Flow("192.0.2.1", 514, "192.0.2.2", 514, UDP))
    tracemalloc.start()
    try:
        for _ in range(2000):
            delivery.deliver(sender, sender.parse([(b"<14>" + "\N{GRINNING FACE}".encode() * 16000, "")], 0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * BACKLOG_BYTES
    delivery.end()
    assert len(list(delivery)) + delivery.counts.missed == 2000
