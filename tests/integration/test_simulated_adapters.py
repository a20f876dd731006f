"""Simulated serial adapters, driven by the drivers for the real ones: in this process, and through a server."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.serial_host import SerialHost
from tests.waiting import wait_until
from usbip_capture.devices.devlist import list_devices
from usbip_capture.devices.remote import import_device
from usbip_capture.errors import LocalProtocolError
from usbip_capture.net.transport import SocketTransport
from usbip_capture.server import Server
from usbip_capture.simulated.serial.acm import USB_SERIAL_JTAG, acm
from usbip_capture.simulated.serial.ch34x import ch34x
from usbip_capture.simulated.serial.cp210x import cp210x
from usbip_capture.simulated.serial.exported import Adapter
from usbip_capture.simulated.serial.ftdi import ftdi
from usbip_capture.simulated.serial.line import Loopback, Notebook, NullModem, Peer
from usbip_capture.uart.settings import LineErrors, LineSettings, ModemLines
from usbip_capture.usb.status import EPIPE
from usbip_capture.usb.urb import Urb

Make = Callable[[Peer], Adapter]
KINDS = [0x21, 0xA1, 0x40, 0xC0, 0x41, 0xC1]  # bmRequestType
ONE_LINE: dict[str, Make] = {
    "acm": acm,
    "FT232R": lambda peer: ftdi([peer]),
    "FT230X": lambda peer: ftdi([peer], "FT230X"),
    "CP2102": lambda peer: cp210x([peer], "CP2102"),
    "CP2102N": lambda peer: cp210x([peer], "CP2102N"),
    "CH340": ch34x,
}
SEVERAL: dict[str, Callable[[list[Peer]], Adapter]] = {
    "FT2232H": lambda peers: ftdi(peers[:2], "FT2232H"),
    "FT4232H": lambda peers: ftdi(peers, "FT4232H"),
    "CP2105": lambda peers: cp210x(peers[:2], "CP2105"),
    "CP2108": lambda peers: cp210x(peers, "CP2108"),
}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def plug(stack: ExitStack, adapter: Adapter, interface: int | None = None) -> SerialHost:
    device = adapter.open()
    stack.callback(device.close)
    return SerialHost(device, interface)


@pytest.mark.parametrize("kind", ONE_LINE)
@pytest.mark.parametrize("size", [1, 61, 62, 63, 64, 4096, 10_000])
def test_what_is_written_comes_back(kind: str, size: int, stack: ExitStack) -> None:
    host = plug(stack, ONE_LINE[kind](Loopback()))
    data = bytes(n * 7 % 251 for n in range(size))
    host.write(data)
    assert host.read(size) == data


@pytest.mark.parametrize("kind", ONE_LINE)
def test_through_a_server(kind: str, stack: ExitStack) -> None:
    adapter = ONE_LINE[kind](Loopback())
    server = Server()
    stack.callback(server.close)
    server.add(adapter.info, adapter.open)

    def connect() -> SocketTransport:
        ours, theirs = socket.socketpair()
        server.serve_socket(theirs)
        return SocketTransport(ours, "the test's server")

    for _ in range(2):  # each import finds it as new
        wait_until("it is released", lambda: list_devices(connect(), 10))
        device = import_device(connect(), adapter.info.busid, 10)
        host = SerialHost(device)
        host.write(b"again and again" * 100)
        assert host.read(1500) == b"again and again" * 100
        device.close()


@pytest.mark.parametrize("kind", SEVERAL)
def test_each_line_is_its_own(kind: str, stack: ExitStack) -> None:
    notebooks = [Notebook() for _ in range(4)]
    adapter = SEVERAL[kind](list(notebooks))
    device = adapter.open()
    stack.callback(device.close)
    count = len(adapter.peers)
    hosts = [SerialHost(device, interface) for interface in range(count)]
    for number, host in enumerate(hosts):
        host.apply(LineSettings(9600 + 4800 * number, parity="NEOM"[number]))
        host.write(b"line %d" % number)
        notebooks[number].line.send(b"answer %d" % number)
    for number, host in enumerate(hosts):
        assert host.read(8) == b"answer %d" % number
        assert bytes(notebooks[number].written) == b"line %d" % number
        settings = notebooks[number].line.settings
        assert settings.parity == "NEOM"[number]
        assert settings.baudrate == pytest.approx(9600 + 4800 * number, rel=0.001)


@pytest.mark.parametrize("kind", ONE_LINE)
@pytest.mark.parametrize("settings", [
    LineSettings(9600), LineSettings(115200, 7, "E", 2), LineSettings(921600, 8, "O"), LineSettings(460800, 8, "M"),
    LineSettings(57600, 8, "S"), LineSettings(230400, rtscts=True),
])  # fmt: skip
def test_the_far_end_sees_the_settings(kind: str, settings: LineSettings, stack: ExitStack) -> None:
    notebook = Notebook()
    host = plug(stack, ONE_LINE[kind](notebook))
    host.apply(settings)
    seen = notebook.line.settings
    assert seen.frame == settings.frame
    assert seen.baudrate == pytest.approx(settings.baudrate, rel=0.005)
    assert seen.rtscts == (settings.rtscts and "rtscts" in host.driver.in_chip)
    before = list(notebook.events)
    host.apply(replace(settings))
    assert notebook.events == before


@pytest.mark.parametrize("kind", ONE_LINE)
def test_lines_and_breaks(kind: str, stack: ExitStack) -> None:
    notebook = Notebook()
    host = plug(stack, ONE_LINE[kind](notebook))
    assert (notebook.line.dtr, notebook.line.rts) == (True, True)
    notebook.events.clear()
    host.do(host.driver.set_lines(False, True))
    host.do(host.driver.set_lines(True, False))  # both at once: one event
    host.do(host.driver.set_break(True))
    host.do(host.driver.set_break(False))
    assert notebook.events == [
        ("lines", (False, True)),
        ("lines", (True, False)),
        ("break", True),
        ("break", False),
    ]


def hear(host: SerialHost, output: Callable[[], bool]) -> None:
    """Let the driver hear of lines and errors in whichever way its chip reports them."""
    for _ in range(5):
        if output():
            return
        if host.driver.polls:
            host.poll()
        elif host.port.pipes.notify is not None:
            host.notice()
        else:
            host.read_once()


def settle(host: SerialHost, wanted: ModemLines) -> None:
    hear(host, lambda: host.driver.lines == wanted)
    assert host.driver.lines == wanted


@pytest.mark.parametrize("kind", ONE_LINE)
def test_modem_lines(kind: str, stack: ExitStack) -> None:
    notebook = Notebook()
    host = plug(stack, ONE_LINE[kind](notebook))
    has_cts = kind != "acm"
    settle(host, ModemLines(cts=not has_cts))
    notebook.line.set_modem(cts=True, dsr=True)
    settle(host, ModemLines(cts=True, dsr=True))
    notebook.line.set_modem(cts=False, ri=True, cd=True)
    settle(host, ModemLines(not has_cts, True, True, True))


@pytest.mark.parametrize("kind", ONE_LINE)
def test_lines_that_were_there_before(kind: str, stack: ExitStack) -> None:
    host = plug(stack, ONE_LINE[kind](Loopback()))
    settle(host, ModemLines(True, True, False, True))


@pytest.mark.parametrize("kind", ONE_LINE)
def test_errors_on_demand(kind: str, stack: ExitStack) -> None:
    notebook = Notebook()
    host = plug(stack, ONE_LINE[kind](notebook))
    breaks = int(kind != "CH340")  # its notifications have no breaks
    notebook.line.report(LineErrors(overrun=1, breaks=breaks))
    notebook.line.report(LineErrors(parity=1))
    notebook.line.report(LineErrors(framing=1))
    wanted = LineErrors(1, 1, 1, breaks)
    hear(host, lambda: host.driver.errors == wanted)
    assert host.driver.errors == wanted


@pytest.mark.parametrize("kind", ["FT232R", "CP2102N", "CH340"])
def test_without_cts_the_chip_takes_no_data(kind: str, stack: ExitStack) -> None:
    notebook = Notebook()
    host = plug(stack, ONE_LINE[kind](notebook))
    host.apply(LineSettings(115200, rtscts=True))
    assert host.write(b"too early", timeout=0.05).status
    assert not notebook.written
    notebook.line.set_modem(cts=True)
    assert not host.write(b"in time").status
    assert notebook.written == b"in time"


@pytest.mark.parametrize("kind", ["FT232R", "CP2102N"])
def test_xon_and_xoff_stay_in_the_chip(kind: str, stack: ExitStack) -> None:
    notebook = Notebook()
    host = plug(stack, ONE_LINE[kind](notebook))
    host.apply(LineSettings(115200, xonxoff=True))
    notebook.line.send(b"wait\x13")
    assert host.write(b"too early", timeout=0.05).status
    notebook.line.send(b" go\x11")
    assert not host.write(b"in time").status
    assert host.read(7) == b"wait go"


@pytest.mark.parametrize("kind", ["FT232R", "CP2102N"])
def test_purging_drops_what_was_received(kind: str, stack: ExitStack) -> None:
    notebook = Notebook()
    host = plug(stack, ONE_LINE[kind](notebook))
    notebook.line.send(b"old")
    host.do(host.driver.purge(True, True))
    notebook.line.send(b"new")
    assert host.read(3) == b"new"


def test_a_null_modem_between_two_kinds(stack: ExitStack) -> None:
    one, other = NullModem().ends
    left, right = plug(stack, ftdi([one])), plug(stack, cp210x([other]))
    left.write(b"to the right")
    right.write(b"to the left")
    assert right.read(12) == b"to the right"
    assert left.read(11) == b"to the left"
    left.do(left.driver.set_lines(False, True))
    settle(right, ModemLines(cts=True))


def test_chips_that_differ(stack: ExitStack) -> None:
    mute = plug(stack, ch34x(Notebook(), can_break=False))
    with pytest.raises(LocalProtocolError):
        mute.driver.set_break(True)
    broken = plug(stack, cp210x([Notebook()], firmware=bytes([1, 0, 4])))
    with pytest.raises(LocalProtocolError, match="E104"):
        broken.driver.apply(broken.settings, LineSettings(rtscts=True))


def test_identities(stack: ExitStack) -> None:
    jtag = acm(Notebook(), identity=USB_SERIAL_JTAG, serial="aa:bb")
    assert (str(jtag.info), jtag.descriptors.strings[2]) == ("1-1 (303a:1001)", "aa:bb")
    twins = [ftdi([Notebook()], busid=f"1-1.{n}", serial=f"FT{n}") for n in (1, 2)]
    assert [t.info.busid for t in twins] == ["1-1.1", "1-1.2"]
    assert len({t.info.devid for t in twins}) == 2


@pytest.mark.parametrize("kind", ["acm", "FT232R"])
def test_a_longer_way(kind: str, stack: ExitStack) -> None:
    adapter = ONE_LINE[kind](Loopback())
    adapter.latency = 0.002
    host = plug(stack, adapter)
    host.write(b"x" * 500)
    assert host.read(500) == b"x" * 500


def test_unplugged_while_reading(stack: ExitStack) -> None:
    adapter = acm(Notebook())
    host = plug(stack, adapter)
    lost: list[str] = []
    host.device.watch(lost.append)
    assert adapter.device is not None
    adapter.device.timetable.after(0.01, adapter.device.unplug)
    into = host.port.pipes.bulk_in
    assert host.device.run(Urb(into.transfer_type, into.address, 64), 10).status
    wait_until("the loss is reported", lambda: lost)
    assert not host.device.alive


@given(st.sampled_from([*ONE_LINE, *SEVERAL]), st.lists(st.tuples(st.sampled_from(KINDS), *[st.integers(0, 255)] * 6)))
def test_any_request_is_answered_or_stalled(kind: str, setups: list[tuple[int, ...]]) -> None:
    """Requests near those that the chips know: each byte of them may be anything."""
    peers: list[Peer] = [Notebook() for _ in range(4)]
    device = (SEVERAL[kind](peers) if kind in SEVERAL else ONE_LINE[kind](peers[0])).open()
    try:
        for setup in setups:
            raw = bytes([*setup, 0])
            completion = device.run(Urb.control(raw, bytes(raw[6]) if raw[0] < 0x80 else b""), 10)
            assert completion.status in (0, -EPIPE)
    finally:
        device.close()
