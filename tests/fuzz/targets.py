"""What is fuzzed: every parser of what strangers send, and of files and texts. Each target takes any bytes.

A target raises nothing but for a bug of ours: what the parser raises about bad input (`UsbipError`) is caught here, and
whatever must hold of good input is asserted.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from tests.builders.conversion import convert as convert_recording
from tests.builders.local_usb import local_usb
from tests.fakes import simulated_transfers
from tests.fakes.local_bus import FakeBus
from tests.fuzz.choices import Choices
from usbip_capture import serve
from usbip_capture.collector.display import line
from usbip_capture.collector.listen_addresses import parse_listen_addresses
from usbip_capture.control_socket.serving import ControlSocket
from usbip_capture.convert.fragments import Fragments
from usbip_capture.convert.reassembly import Direction, connect
from usbip_capture.describe.reading import Description
from usbip_capture.describe.verbose import verbose
from usbip_capture.errors import UsbipError
from usbip_capture.filters.language import Facts, FilterError, parse
from usbip_capture.live.messages import Lines
from usbip_capture.net.address import parse_address
from usbip_capture.net.networks import listen_address, parse_networks
from usbip_capture.net.transport import SocketTransport
from usbip_capture.report.data import as_data
from usbip_capture.report.html import html_page
from usbip_capture.report.measure import measure
from usbip_capture.report.text import text_report
from usbip_capture.serial_port.url import PortUrl
from usbip_capture.server.session import Session
from usbip_capture.servers.address import Selector, ServerAddress, parse_selection
from usbip_capture.servers.syslog_target import SyslogTarget
from usbip_capture.serving import control as serving_control
from usbip_capture.serving.control import handlers_for
from usbip_capture.simulated.lsusb import parse_lsusb
from usbip_capture.syslog.framing import Framer, datagram_frames
from usbip_capture.syslog.message import MessageParser
from usbip_capture.usb.bos import parse_bos
from usbip_capture.usb.descriptors import DeviceDescriptor, parse_configuration
from usbip_capture.usb.endpoints import EndpointMap
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.strings import parse_langids, parse_string
from usbip_capture.usb.urb import Completion, IsoPacket, TransferType, Urb
from usbip_capture.wire import structs
from usbip_capture.wire.client import ClientConnection
from usbip_capture.wire.observed import Completed, Submitted
from usbip_capture.wire.observer import Observer
from usbip_capture.wire.operations import DevlistExchange, Exchange, ImportExchange
from usbip_capture.wire.server import (
    DevlistRequested,
    ImportRequested,
    ServerConnection,
    UnlinkRequested,
    UrbRefused,
    UrbSubmitted,
)

_INFO = DeviceInfo("1-1", 1, 2, Speed.HIGH, 0x1209, 1, path="/x")
_DEVICE = DeviceDescriptor.parse(bytes.fromhex("1201 1002 ef 02 01 40 0912 0100 0001 01 02 03 01"))
_KINDS = {0x81: TransferType.INTERRUPT, 0x02: TransferType.BULK, 0x85: TransferType.ISOCHRONOUS}
_SETUPS = tuple(
    bytes.fromhex(text)
    for text in (
        "8006000100001200", "0009000000000000", "0009010000000000", "010b000003000000", "010b010003000000",
        "0201000084000000", "2303040001000000", "4010000000000300", "c010000000004000",
    )
)  # fmt: skip
#: Of the control socket; those that a server knows are added.
_REQUESTS = ["", "unknown"]
_FIELDS = ("busid", "action", "rules", "add", "remove", "always", "after", "last", "mode", "client", "seconds")
_FILE = os.path.join(tempfile.mkdtemp(prefix="usbip-fuzz-"), "input")


def client(data: bytes) -> None:
    """The client's side of the wire: each URB completes once at most."""
    choices = Choices(data)
    exchanges: tuple[Exchange, ...] = (DevlistExchange(), ImportExchange("1-1"))
    exchange = choices.pick(exchanges)
    with suppress(UsbipError):
        while exchange.wanted and choices:
            exchange.receive(choices.data(exchange.wanted))
    connection: ClientConnection = ClientConnection(0x10002)
    contexts: list[object] = []
    for _ in range(choices.number(1, 8)):
        kind = TransferType(choices.number(0, 3))
        address = choices.pick((0x00, 0x80, 0x81, 0x02, 0x83))
        iso = kind == TransferType.ISOCHRONOUS
        packets = [IsoPacket(8 * at, 8, 0, 0) for at in range(choices.number(1, 4))] if iso else []
        length = 8 * len(packets) if iso else choices.number(0, 40000)
        out = b"" if address & 0x80 else bytes(length)
        urb = Urb(kind, address, length, out, bytes(8), 0, 0, 0, packets)
        context = object()
        contexts.append(context)
        connection.submit(urb, context, memoryview(bytearray(length)) if choices.flag() else None)
        if choices.flag():
            connection.unlink(context)
        if choices.flag():
            connection.forget(context)
    with suppress(UsbipError):
        while choices:
            connection.receive_data(choices.chunk(500))
    connection.take_pending()


def server(data: bytes) -> None:
    """The server's side: whatever a client sends, what is answered can be packed."""
    choices = Choices(data)
    connection = ServerConnection()
    with suppress(UsbipError):
        while choices:
            for event in connection.receive_data(choices.chunk(300)):
                if isinstance(event, ImportRequested):
                    connection.import_reply(_INFO, _KINDS.get)
                elif isinstance(event, UrbSubmitted) and choices.flag():
                    connection.complete(event.seqnum, Completion(0, 0, b"", packets=event.urb.packets))
                elif isinstance(event, UrbRefused):
                    connection.complete(event.seqnum, event.completion)
                elif isinstance(event, UnlinkRequested):
                    connection.unlinked(event.target)
                elif isinstance(event, DevlistRequested):
                    connection.devlist([_INFO])


def local_device(data: bytes) -> None:
    """A client of a server with a device by libusb: whatever it sends, nothing stays claimed, pending or in memory."""
    choices = Choices(data)
    with local_usb() as usb:
        ours, theirs = socket.socketpair()
        device = usb.open()
        conn = ServerConnection()
        conn.receive_data(structs.OP_COMMON.pack(0x111, structs.OP_REQ_IMPORT, 0) + structs.pack_busid("1-1"))
        session = Session(SocketTransport(theirs, "the client"), conn, device, lambda reason: None)
        session.start(device.info)
        with suppress(UsbipError):
            while choices:
                session.receive(_message(choices, device.info.devid))
                if choices.number(0, 15) == 0:
                    usb.raw.before_submit = choices.pick((lambda: None, _no_memory))
        for sock in (ours, theirs):
            sock.close()
        session.close()
        assert usb.module.used == 0
        assert usb.raw.claimed == {}


def _message(choices: Choices, devid: int) -> bytes:
    """What a client might send."""
    what = choices.number(0, 9)
    if what == 0:
        return choices.chunk(60)
    seqnum = choices.number(0, 40)
    if what == 1:
        return structs.CMD_UNLINK.pack(2, 1000 + seqnum, devid, 0, 0, seqnum)
    direction, ep = choices.flag(), choices.pick((0, 0, 1, 2, 4, 5, 9))
    length, count = choices.number(0, 600), choices.pick((0, 1, 3, -1))
    setup = choices.pick(_SETUPS) if choices.flag() else choices.data(8).ljust(8, b"\0")
    if ep == 0:
        length = choices.pick((setup[6] | setup[7] << 8, length))
    header = structs.CMD_SUBMIT.pack(
        1, seqnum, devid, direction, ep, choices.number(0, 0x3FF), length, 0, count, 8, setup
    )
    packets = [IsoPacket(choices.number(0, 600), choices.number(0, 80)) for _ in range(max(count, 0))]
    return header + (b"" if direction else bytes(length)) + (structs.pack_iso(packets) if ep == 5 else b"")


def _no_memory() -> None:
    raise simulated_transfers.error("NoMem")


def observer(data: bytes) -> None:
    """Somebody else's session: each URB is completed once at most, after its submission."""
    choices = Choices(data)
    seen = Observer(from_start=choices.flag())
    pending: set[int] = set()
    stamp = 0
    while choices:
        stamp += 1
        what = choices.number(0, 9)
        if what == 0:
            events = seen.client_gap(choices.number(0, 1 << 20), stamp)
        elif what == 1:
            events = seen.server_gap(choices.number(0, 1 << 20), stamp)
        else:
            events = (seen.client if what & 1 else seen.server)(choices.chunk(400), stamp)
        for event in events:
            if isinstance(event, Submitted):
                pending.add(event.seqnum)
            elif isinstance(event, Completed):
                assert event.seqnum in pending
                pending.remove(event.seqnum)
    seen.closed(stamp)


def convert(data: bytes) -> None:
    """A recording of TCP, pcap or pcapng: what is written can be read again."""
    with suppress(UsbipError):
        converted = convert_recording(data, record_unlinks=len(data) % 2 == 0)
        assert len(converted.records) >= converted.converter.urbs


def report(data: bytes) -> None:
    """A capture of any program: text, page and JSON of whatever could be read."""
    with open(_FILE, "wb") as file:
        file.write(data)
    with suppress(UsbipError):
        measured = measure(_FILE, "ep == 0x81 or class == hid or error or device == 1-1" if len(data) % 5 == 0 else "")
        for text in text_report(measured.statistics):
            assert text.isprintable(), text
        html_page(measured)
        json.dumps(as_data(measured), allow_nan=False)


def reassembly(data: bytes) -> None:
    """Segments of TCP in any order: no byte twice, nothing held at the end."""
    choices = Choices(data)
    base = 0xFFFFFF00
    out: list[int] = []
    one, other = (Direction(lambda part, t: out.append(len(part)), lambda n, t: None, lambda t: None) for _ in "ab")
    connect(one, other)
    one.following = base
    stamp = sent = 0
    while choices:
        direction = one if choices.flag() else other
        stamp += choices.number(0, 1 << 29)
        sequence = base + choices.number(0, 400000) if choices.flag() else choices.number(0, 0xFFFFFFFF)
        payload = choices.chunk(20)
        sent += len(payload)
        acknowledged = (base + choices.number(0, 400000)) & 0xFFFFFFFF
        flags, missing = choices.number(0, 31), choices.number(0, 3)
        direction.segment(stamp, sequence & 0xFFFFFFFF, acknowledged, flags, payload, missing)
    one.flush()
    other.flush()
    assert sum(out) <= sent


def fragments(data: bytes) -> None:
    """Fragments of IP datagrams, in any order."""
    choices = Choices(data)
    waiting = Fragments()
    stamp = 0
    while choices:
        stamp += choices.number(0, 1 << 34)
        version = choices.pick((0x45, 0x46, 0x60, 0x4F))
        packet = bytes((version,)) + choices.chunk(200)
        whole = waiting.add(stamp, packet, 0, len(packet))
        assert whole is None or len(whole) <= 65575


def syslog(data: bytes) -> None:
    """Messages of a log, by TCP and UDP: nothing is lost or reaches a terminal raw, however TCP cuts."""
    choices = Choices(data)
    framer = Framer(choices.pick((64, 512, 65536)))
    parser = MessageParser("host", "host")
    datagrams = choices.flag()
    frames: list[Any] = []
    while choices:
        chunk = choices.chunk(300)
        frames += datagram_frames(chunk) if datagrams else framer.feed(chunk)
    if not datagrams:
        frames += framer.end()
    for frame, flaw in frames:
        message = parser.parse(frame, 1, flaw)
        shown = line(message)
        assert shown.replace("\n", "").replace("\t", "").isprintable(), shown
        assert 0 <= message.severity <= 7
        assert len(message.record) < 70000


def control_socket(data: bytes) -> None:
    """Whoever can open a server's control socket, with its token or without: one answer, of a kind that is known."""
    choices = Choices(data)
    control = _control()
    request: dict[str, object] = {"token": control._token if choices.flag() else choices.data(4).hex(), "version": 1}
    if choices.flag():
        request["request"] = choices.pick(_REQUESTS)
        for name in _FIELDS:
            if choices.flag():
                request[name] = _json_value(choices)
        sent = json.dumps(request).encode() + b"\n"
    else:
        sent = choices.data(choices.number(0, 2000))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(sent)
        ours.shutdown(socket.SHUT_WR)
        with suppress(ConnectionAbortedError):  # it left without a request
            answer = control._answer(theirs)
            assert "it failed in the server" not in str(answer.get("error")), answer
            assert answer.get("ok") is True or isinstance(answer["error"], str), answer
            lines = Lines(4 << 20)
            line = json.dumps(answer).encode() + b"\n"
            assert lines.feed(line[: len(line) // 2]) + lines.feed(line[len(line) // 2 :]) == [answer]


def _json_value(choices: Choices) -> object:
    values: tuple[Callable[[], object], ...] = (
        lambda: choices.number(0, 1 << 40), lambda: 1 << 100, lambda: -1, lambda: 7200, lambda: None,
        choices.flag, lambda: 1.5,
        lambda: choices.pick(("1-1", "all", "class:03", "deny any all", "closed", "cycle")),
        lambda: choices.chunk(40).decode("utf-8", "replace"), lambda: [_json_value(choices), 3, "1-1"],
        lambda: ["1-1"], lambda: {"a": choices.flag()},
    )  # fmt: skip
    return choices.pick(values)()


@cache
def _control() -> ControlSocket:
    """That of a server whose machine has one device."""
    os.environ["XDG_RUNTIME_DIR"] = os.environ["XDG_CONFIG_HOME"] = os.path.dirname(_FILE)
    bus = FakeBus()
    bus.plug("1-1")
    server = serve(["1-1"], unix=_FILE + ".socket", bus=bus)
    handlers = dict(handlers_for(server, server._lender, server._ports))
    _REQUESTS.extend(handlers)
    serving_control._WAIT = 0.0
    control = ControlSocket("fuzzed", handlers)
    for made in (server, control):
        atexit.register(made.close)
    return control


def filters(data: bytes) -> None:
    """The language of capture filters."""
    try:
        found = parse(data.decode("utf-8", "replace"))
    except FilterError:
        return
    if found is not None:
        found.test(Facts())
        found.test(Facts(device="1-1", vid=1, pid=2, ep=0x81, type=3, interface_class=3, status=-32, length=4))


def descriptors(data: bytes) -> None:
    """What a device reports about itself, read and printed as lsusb does."""
    with suppress(UsbipError):
        DeviceDescriptor.parse(data)
    with suppress(UsbipError):
        parse_bos(data)
    with suppress(UsbipError):
        parse_string(data)
        parse_langids(data)
    with_head = b"\x09\x02" + (len(data) & 0xFFFF).to_bytes(2, "little") + data[4:]
    for raw in (data, with_head):
        with suppress(UsbipError):
            configuration = parse_configuration(raw)
            endpoints = EndpointMap(None, Speed.HIGH)
            endpoints.add_configuration(configuration)
            for address in range(256):
                endpoints.find(address)
            found = Description(
                _INFO, _DEVICE, [configuration], 1, {1: "a", 2: "b"},
                bos=data, qualifier=data[:10], reports={0: data[:60]},
            )  # fmt: skip
            for text in verbose(found):
                assert text.isprintable(), text


def lsusb(data: bytes) -> None:
    """The text of `lsusb -v` as a simulated device."""
    with suppress(UsbipError):
        parse_lsusb(data.decode("utf-8", "replace"))


def texts(data: bytes) -> None:
    """URLs, addresses, networks and selections that people type."""
    text = data.decode("utf-8", "replace")
    parsers: tuple[Callable[[str], object], ...] = (
        PortUrl.parse, lambda t: PortUrl.parse("usbip://" + t), parse_address, ServerAddress.parse, Selector.parse,
        parse_selection, parse_listen_addresses, parse_networks, listen_address,
        lambda t: SyslogTarget.parse(str(SyslogTarget.parse(t))),
    )  # fmt: skip
    for parser in parsers:
        with suppress(UsbipError):
            parser(text)


#: Name -> target.
TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        client, server, local_device, observer, convert, report, reassembly, fragments, syslog, control_socket, filters,
        descriptors, lsusb, texts,
    )
}  # fmt: skip
