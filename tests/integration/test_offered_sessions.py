"""Programs that use the library, joined while they run: listed by what they are, captured from any moment on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import usb.core

from tests.fakes.loopback_device import LoopbackServer, loopback_server
from tests.fakes.serial_server import open_port, serial_server
from tests.oracles.pcapng_reader import CapturedRecord, read_capture
from tests.programs.extcap_runs import started
from tests.programs.forked import forked
from tests.programs.usbip_ports import environment
from tests.waiting import wait_until
from usbip_capture import get_backend
from usbip_capture.capture.channel import IN_FLIGHT
from usbip_capture.capture.sinks import FileSink
from usbip_capture.cli.main import main
from usbip_capture.errors import CannotListen, LocalProtocolError, RemoteProtocolError
from usbip_capture.live import joining, registry
from usbip_capture.live.joining import JoinedCapture, JoinedState
from usbip_capture.live.messages import Message
from usbip_capture.live.registry import Entry
from usbip_capture.offering.program import program_name, program_offer
from usbip_capture.pyusb_backend import UsbipBackend
from usbip_capture.serial_port.url import PortUrl
from usbip_capture.sessions.session_capture import DESCRIPTORS_OF_PROGRAM
from usbip_capture.simulated.serial.ftdi import ftdi
from usbip_capture.simulated.serial.line import Loopback

OUT, IN = 0x04, 0x84
PROGRAM = """\
import sys
import usb.core
device = usb.core.find(idVendor=0x1209)
device.set_configuration()
print("ready", flush=True)
for line in sys.stdin:
    device.write(0x04, line.encode())
    print(bytes(device.read(0x84, 64)).decode(), end="", flush=True)
"""


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with loopback_server() as opened:
        yield opened


@pytest.fixture(autouse=True)
def _offers_end_with_their_test() -> Iterator[None]:
    yield
    if registry.running():
        program_offer().close()


def only_entry() -> Entry:
    (found,) = registry.running()
    return found


class Joined:
    """A capture that has joined."""

    def __init__(self, entry: Entry, path: Path, capture_filter: str = "", marked: bool = True) -> None:
        self.path = path
        self.reasons: list[str] = []
        self.capture = JoinedCapture(
            entry, FileSink(str(path)), snaplen=0, capture_filter=capture_filter, max_packets=0,
            on_end=self.reasons.append,
        )  # fmt: skip
        if marked:
            wait_until("it has begun", lambda: b"seen by the program" in path.read_bytes())

    def records(self) -> list[CapturedRecord]:
        self.capture.close()
        return list(read_capture(self.path))


def used(server: LoopbackServer, hindsight: str = "") -> tuple[UsbipBackend, usb.core.Device]:
    backend = get_backend("127.0.0.1", server.port, offer=True, hindsight=hindsight)
    device = usb.core.find(backend=backend, idVendor=0x1209)
    assert isinstance(device, usb.core.Device)
    device.set_configuration()
    return backend, device


def echo(device: usb.core.Device, text: bytes) -> None:
    device.write(OUT, text)
    assert bytes(device.read(IN, 64)) == text


def moved(records: list[CapturedRecord]) -> list[bytes]:
    """Data of bulk transfers, in both directions."""
    return [bytes(r.usb.data) for r in records if r.usb is not None and r.usb.xfer_type == 3 and r.usb.data]


def test_a_program_is_joined_in_the_middle_and_again(server: LoopbackServer, tmp_path: Path) -> None:
    whole = tmp_path / "whole.pcapng"
    with get_backend("127.0.0.1", server.port, pcap=whole, offer=True) as backend:
        assert only_entry().name == f"usbip-session-{os.getpid()}"
        assert only_entry().display == f"USB/IP session: {program_name()} {os.getpid()}"
        device = usb.core.find(backend=backend)
        assert isinstance(device, usb.core.Device)
        device.set_configuration()
        assert only_entry().display.endswith(f"{os.getpid()}, 1-1")
        echo(device, b"before")
        first = Joined(only_entry(), tmp_path / "first.pcapng")
        echo(device, b"both")
        second = Joined(only_entry(), tmp_path / "second.pcapng", "ep == 0x84 or control")
        echo(device, b"all")
        records = first.records()
        echo(device, b"later")
        others = second.records()
        assert only_entry().display.endswith(", 1-1")
    marked = [r for r in records if DESCRIPTORS_OF_PROGRAM in r.comments]
    assert len(marked) >= 2 * 2
    assert records[: len(marked)] == marked
    assert moved(records) == [b"both", b"both", b"all", b"all"]
    assert moved(others) == [b"all", b"later"]
    own = list(read_capture(whole))
    assert moved(own) == [text for text in (b"before", b"both", b"all", b"later") for _ in range(2)]
    assert f"127.0.0.1:{server.port} 1-1 1209:" in records[0].interface.description


def test_what_is_in_flight_and_what_comes_when_the_device_is_opened_again(
    server: LoopbackServer, tmp_path: Path
) -> None:
    backend, device = used(server)
    read: list[bytes] = []
    reading = threading.Thread(target=lambda: read.append(bytes(device.read(IN, 64, 60_000))))
    reading.start()
    wait_until("it reads", lambda: any(s._flying for s in program_offer().sessions.current))
    joined = Joined(only_entry(), tmp_path / "a.pcapng")
    device.write(OUT, b"one")
    reading.join(30)
    assert read == [b"one"]
    backend.close()
    backend, device = used(server)
    echo(device, b"two")
    records = joined.records()
    backend.close()
    assert [r.usb.type for r in records if IN_FLIGHT in r.comments and r.usb] == [ord("S"), ord("C")]
    assert moved(records) == [b"one", b"one", b"two", b"two"]
    comments = [text for r in records for text in r.comments]
    assert any("the program has released the device" in text for text in comments)
    assert any("a further session begins" in text for text in comments)
    assert len({r.interface.name for r in records}) == 1
    assert joined.reasons == []


def test_hindsight_of_a_program(server: LoopbackServer, tmp_path: Path) -> None:
    backend, device = used(server, hindsight="10min,1MiB")
    echo(device, b"fails")
    backend.close()
    joined = Joined(only_entry(), tmp_path / "a.pcapng", marked=False)
    wait_until("it has what was kept", lambda: b"fails" in joined.path.read_bytes())
    backend, device = used(server)
    echo(device, b"again")
    backend.close()
    records = joined.records()
    assert moved(records) == [b"fails", b"fails", b"again", b"again"]
    assert any("kept by the program" in text for r in records for text in r.comments)


def test_hindsight_is_for_those_who_join(server: LoopbackServer, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LocalProtocolError, match="add offer"):
        get_backend("127.0.0.1", server.port, hindsight="30s")
    with pytest.raises(LocalProtocolError, match="add offer"):
        PortUrl.parse("usbip://pi/1-1?hindsight=30s")
    assert PortUrl.parse("usbip://pi/1-1?offer=1&hindsight=30s,1MiB").hindsight == "30s,1MiB"
    for command in (["use", f"127.0.0.1:{server.port}", "--hindsight", "30s", "--", sys.executable],):
        assert main(command) == 2
        assert "add offer" in capsys.readouterr().err


def test_its_state_is_shown_and_it_is_not_ended_from_outside(server: LoopbackServer) -> None:
    backend, _ = used(server)
    states: list[Message] = []
    state = JoinedState(only_entry(), states.append)
    name = f"{program_name()} {os.getpid()}"
    wait_until("it uses the device", lambda: states and states[-1]["activity"] == f"{name} uses 1-1")
    backend.close()
    wait_until("it does not", lambda: states[-1]["activity"] == f"{name} uses no device")
    state.close()
    with pytest.raises(RemoteProtocolError, match="is a program of its own: end it as it is usually ended"):
        joining.stop(only_entry())
    assert main(["relay", "--stop"]) != 0  # it is not a relay
    assert registry.running()


def test_a_forked_child_leaves_all_to_its_parent(server: LoopbackServer, tmp_path: Path) -> None:
    backend, device = used(server)
    joined = Joined(only_entry(), tmp_path / "a.pcapng")

    def child() -> None:
        backend.close()
        program_offer().close()

    assert forked(child) == 0
    echo(device, b"still")
    assert moved(joined.records()) == [b"still", b"still"]
    backend.close()
    assert only_entry().pid == os.getpid()


def test_where_it_cannot_be_listed(server: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(CannotListen, match="cannot be offered"):
        get_backend("127.0.0.1", server.port, offer=True)


def test_a_program_run_by_use_is_in_wiresharks_list(extcap: Path, server: LoopbackServer, tmp_path: Path) -> None:
    (tmp_path / "echoes.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "usbip_capture.cli.main", "use", f"127.0.0.1:{server.port}", "--offer", "--"]
    pipe = subprocess.PIPE
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [*command, sys.executable, "echoes.py"], cwd=tmp_path, stdin=pipe, stdout=pipe, text=True, bufsize=1,
        env={**os.environ, "PYTHONPATH": root},
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        listed = subprocess.run([str(extcap), "--extcap-interfaces"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"{value=(usbip-session-(\d+))}{display=USB/IP session: echoes (\d+), 1-1}", listed)
        assert found
        target = tmp_path / "joined.pcapng"
        with started(extcap, "--extcap-interface", found[1], "--fifo", str(target), "--count", "30") as capture:
            while capture.poll() is None:
                process.stdin.write("hello\n")
                assert process.stdout.readline() == "hello\n"
            assert capture.communicate()[1] == b""
        assert len(list(read_capture(target))) == 30
        assert b"hello\n" in moved(list(read_capture(target)))
        process.stdin.close()
        assert process.wait(30) == 0
    assert not registry.running()


def test_a_viewer_that_stalls_costs_the_program_nothing(server: LoopbackServer) -> None:
    backend, device = used(server)
    sock, _, _ = joining.connect(only_entry(), "capture", snaplen=0, capture_filter="", max_packets=0)
    with sock:
        for number in range(2000):  # far more than a socket holds
            echo(device, number.to_bytes(2, "big") * 32)
        backend.close()
        program_offer().close()


def test_a_serial_port_of_pyserial(tmp_path: Path) -> None:
    with serial_server() as server:
        port = open_port(server, "offer=1")
        joined = Joined(only_entry(), tmp_path / "a.pcapng")
        port.write(b"hello")
        assert port.read(5) == b"hello"
        port.close()
        port.open()  # as programs that reset their board do
        port.write(b"again")
        assert port.read(5) == b"again"
        records = joined.records()
        port.close()
    data = b"".join(moved(records))
    assert data.count(b"hello") == data.count(b"again") == 2


def test_a_second_port_of_a_device_that_is_not_offered() -> None:
    serial = pytest.importorskip("serial", reason="pyserial, of the extra `serial`, is not installed")
    with serial_server(ftdi([Loopback(), Loopback()], "FT2232H")) as server:
        port = open_port(server)
        with pytest.raises(serial.SerialException, match="not offered: give offer=1"):
            open_port(server, "offer=1")
        port.close()


def test_the_serial_command(tmp_path: Path) -> None:
    with serial_server() as server:
        command = [sys.executable, "-m", "usbip_capture.cli.main", "serial", f"127.0.0.1:{server.port}", "--offer"]
        link = tmp_path / "tty"
        with subprocess.Popen(
            [*command, "--pty", str(link)], stderr=subprocess.PIPE, text=True, env=environment(tmp_path)
        ) as process:
            assert process.stderr is not None
            assert "until Ctrl-C" in process.stderr.readline()
            joined = Joined(only_entry(), tmp_path / "a.pcapng")
            fd = os.open(link, os.O_RDWR | os.O_NOCTTY)
            os.write(fd, b"typed\n")
            wait_until("it has come", lambda: b"typed" in os.read(fd, 100))
            os.close(fd)
            process.terminate()
            process.wait(30)
        wait_until("the capture is complete", lambda: joined.reasons)
        assert joined.reasons == [joining.OVER]
        assert b"typed\n" in b"".join(moved(joined.records()))


@pytest.mark.parametrize(("text", "offered"), [("1", True), ("yes", True), ("0", False), ("off", False)])
def test_the_parameter_of_a_url(text: str, offered: bool) -> None:
    assert PortUrl.parse(f"usbip://pi/1-1?offer={text}").offer is offered


def test_a_parameter_that_cannot_be_meant() -> None:
    with pytest.raises(LocalProtocolError, match="offer=maybe in the URL is neither 1 nor 0"):
        PortUrl.parse("usbip://pi/1-1?offer=maybe")
