"""usbip:// as a port of pyserial: what its documentation promises of ports, and what goes wrong."""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pcapng_reader import read_capture
from tests.scripted_server import ScriptedServer, answer_import
from tests.serial_server import SerialServer, serial_server
from tests.waiting import wait_until
from usbip_capture.demo import DemoServer
from usbip_capture.devices.serial.acm import acm
from usbip_capture.devices.serial.ch34x import ch34x
from usbip_capture.devices.serial.cp210x import cp210x
from usbip_capture.devices.serial.ftdi import ftdi
from usbip_capture.devices.serial.line import Loopback, Notebook
from usbip_capture.uart.settings import LineErrors, LineSettings

termios = pytest.importorskip("termios", reason="there are no terminals on Windows")
serial = pytest.importorskip("serial", reason="pyserial, of the extra `serial`, is not installed")
rs485 = pytest.importorskip("serial.rs485")
threaded = pytest.importorskip("serial.threaded")
from usbip_capture.urlhandler import registration  # noqa: E402  after the skip

registration.register(serial)
OUT = 0x02


@pytest.fixture
def server() -> Iterator[SerialServer]:
    with serial_server() as running:
        yield running


def open_port(server: SerialServer, query: str = "", device: str = "1-1", **settings: Any) -> Any:
    return serial.serial_for_url(server.url(device, query), **{"timeout": 10, **settings})


# -- reading and writing


def test_what_is_written_comes_back(server: SerialServer) -> None:
    data = bytes(range(256)) * 300
    with open_port(server) as port:
        assert port.write(data) == len(data)
        assert port.read(len(data)) == data
        assert port.in_waiting == 0
        assert port.out_waiting == 0


@pytest.mark.parametrize(
    ("settings", "size", "expected"),
    [
        ({"timeout": 0}, 5, b"abc"),
        ({"timeout": 0.01}, 5, b"abc"),
        ({"timeout": 0.01}, 2, b"ab"),
        ({"timeout": None, "inter_byte_timeout": 0.01}, 5, b"abc"),
        ({"timeout": None}, 3, b"abc"),
    ],
)
def test_a_read_ends_by_size_or_time(
    server: SerialServer, settings: dict[str, Any], size: int, expected: bytes
) -> None:
    with open_port(server, **settings) as port:
        port.write(b"abc")
        wait_until("it is back", lambda: port.in_waiting == 3)
        assert port.read(size) == expected


def test_lines_are_read_as_of_any_file(server: SerialServer) -> None:
    with open_port(server) as port:
        port.write(b"one\ntwo\nthree")
        assert port.readline() == b"one\n"
        assert port.read_until(b"o") == b"two"
        assert port.read_until(b"e", 2) == b"\nt"


def test_a_write_that_the_device_does_not_take_ends_by_time(server: SerialServer) -> None:
    with open_port(server, write_timeout=0.05) as port:
        server.device.hold(OUT, True)
        with pytest.raises(serial.SerialTimeoutException):
            port.write(bytes(200_000))
        port.write_timeout = 0
        assert port.write(b"x") == 0
        port.reset_output_buffer()
        server.device.hold(OUT, False)
        wait_until("nothing waits", lambda: port.out_waiting == 0)
        port.reset_input_buffer()
        port.write(b"after")
        assert port.read_until(b"after").endswith(b"after")


def test_reads_and_writes_that_wait_can_be_cancelled(server: SerialServer) -> None:
    with open_port(server, timeout=None) as port:
        got: list[object] = []
        reader = threading.Thread(target=lambda: got.append(port.read(5)))
        reader.start()
        port.cancel_read()
        reader.join(10)
        assert got == [b""]
        server.device.hold(OUT, True)
        writer = threading.Thread(target=lambda: got.append(port.write(bytes(200_000))))
        writer.start()
        wait_until("the write waits", lambda: port.out_waiting >= 65536)
        port.cancel_write()
        writer.join(10)
        assert got[1:] == [65536]
        port.reset_output_buffer()


def test_flush_waits_for_the_device(server: SerialServer) -> None:
    notebook = Notebook()
    with serial_server(acm(notebook)) as noting, open_port(noting) as port:
        port.write(bytes(100_000))
        port.flush()
        assert port.out_waiting == 0
        wait_until("the far end has heard of the rest", lambda: len(notebook.written) == 100_000)


def test_what_was_written_before_close_arrives() -> None:
    notebook = Notebook()
    with serial_server(acm(notebook)) as server:
        with open_port(server) as port:
            port.write(b"last words" * 1000)
        wait_until("they are there", lambda: notebook.written == b"last words" * 1000)


def test_nothing_is_lost_while_nobody_reads() -> None:
    data = bytes(range(256)) * 8192         # more than the port keeps: the device has to wait
    notebook = Notebook()
    with serial_server(acm(notebook)) as server, open_port(server) as port:
        server.line.send(data)
        wait_until("the port is full", lambda: port.in_waiting >= 1 << 20)
        assert port.read(len(data)) == data


def test_select_tells_of_data(server: SerialServer) -> None:
    with open_port(server) as port:
        assert select.select([port], [], [], 0)[0] == []
        port.write(b"x")
        assert select.select([port], [], [], 10)[0] == [port]
        port.read(1)
        assert select.select([port], [], [], 0)[0] == []
        with pytest.raises(termios.error) as caught:
            termios.tcgetattr(port.fileno())
        assert caught.value.args[0] == errno.ENOTTY


def test_the_reader_thread_of_pyserial(server: SerialServer) -> None:
    lines: list[str] = []
    seen = threading.Event()

    class Lines(threaded.LineReader):  # type: ignore[misc, name-defined]
        def handle_line(self, data: str) -> None:
            lines.append(data)
            seen.set()

    with threaded.ReaderThread(open_port(server, timeout=None), Lines) as protocol:
        protocol.write_line("hello")
        assert seen.wait(10)
    assert lines == ["hello"]


# -- settings and lines


def test_settings_are_sent_when_they_change_only() -> None:
    notebook = Notebook()
    with serial_server(acm(notebook)) as server, open_port(server, baudrate=115200) as port:
        notebook.events.clear()
        port.timeout = 1
        port.baudrate = 115200
        port.write_timeout = 2
        assert notebook.events == []
        port.apply_settings({"baudrate": 921600, "parity": "E", "stopbits": 2, "bytesize": 7})
        wanted = LineSettings(921600, 7, "E", 2)
        wait_until("the device has them", lambda: notebook.events[-1:] == [("settings", wanted)])


def test_what_a_chip_cannot_do_is_a_value_error() -> None:
    with serial_server(ftdi([Loopback()])) as server, open_port(server) as port:
        with pytest.raises(ValueError, match="5"):
            port.bytesize = 5
        with pytest.raises(ValueError, match="RS-485"):
            port.rs485_mode = rs485.RS485Settings()


def test_dtr_and_rts_change_together() -> None:
    notebook = Notebook()
    with serial_server(acm(notebook)) as server, open_port(server) as port:
        wait_until("the lines are on", lambda: notebook.events[-1:] == [("lines", (True, True))])
        notebook.events.clear()
        port.dtr = False
        port.rts = False
        port.dtr = True
        port.rts = True
        wait_until("the lines are on again", lambda: notebook.events[-1:] == [("lines", (True, True))])
        assert notebook.events == [("lines", (False, False)), ("lines", (True, True))]


def test_a_line_alone_changes_soon_and_before_what_is_written_next() -> None:
    notebook = Notebook()
    with serial_server(acm(notebook)) as server, open_port(server) as port:
        port.dtr = False
        wait_until("DTR is off", lambda: notebook.events[-1:] == [("lines", (False, True))])
        port.rts = False
        port.write(b"x")
        wait_until("the byte is there", lambda: bool(notebook.written))
        assert notebook.events[-1] == ("lines", (False, False))


@pytest.mark.parametrize("chip", ["FTDI", "CP210x"])
def test_modem_lines_follow(chip: str) -> None:
    adapter = ftdi([Loopback()]) if chip == "FTDI" else cp210x([Loopback()])
    with serial_server(adapter) as server, open_port(server) as port:
        wait_until("CTS is on", lambda: port.cts)
        assert port.dsr
        assert port.cd
        port.rts = False
        wait_until("CTS follows RTS", lambda: not port.cts)
        port.dtr = False
        wait_until("DSR follows DTR", lambda: not port.dsr)
        server.line.set_modem(ri=True)
        wait_until("the telephone rings", lambda: port.ri)


@pytest.mark.parametrize("make", [lambda: ftdi([Loopback()]), lambda: cp210x([Loopback()]), lambda: ch34x(Loopback())])
def test_a_line_that_was_just_driven_is_read_back_through_a_loop(make: Any) -> None:
    with serial_server(make()) as server, open_port(server) as port:
        for state in (False, True) * 3:
            port.rts = state
            assert port.cts == state
            port.dtr = state
            assert port.dsr == state


def test_errors_of_the_wire_are_counted(server: SerialServer) -> None:
    with open_port(server) as port:
        server.line.report(LineErrors(framing=1, parity=1))
        wait_until("they are counted", lambda: port.line_errors.framing == port.line_errors.parity == 1)
        port.send_break(0.001)
        wait_until("the break has come back", lambda: port.line_errors.breaks == 1)


def test_xoff_stops_and_xon_goes_on() -> None:
    notebook = Notebook()
    with serial_server(acm(notebook)) as server, open_port(server, xonxoff=True, write_timeout=0.05) as port:
        server.line.send(b"a\x13b")
        assert port.read(2) == b"ab"
        with pytest.raises(serial.SerialTimeoutException):
            port.write(b"waits")
        port.write_timeout = None
        threading.Timer(0.05, server.line.send, [b"\x11"]).start()
        port.write(b"goes")
        port.flush()
        wait_until("XON let it go", lambda: bytes(notebook.written) == b"goes")


# -- which port


def test_devices_are_told_apart() -> None:
    one, two, three = Notebook(), Notebook(), Notebook()
    adapters = (acm(one, "1-1", serial="A"), acm(two, "1-2", serial="B"), ftdi([three], busid="1-10", serial="C"))
    with serial_server(*adapters) as server:
        for device, query, peer in (
            ("1-2", "", two),
            ("0403:6001", "", three),
            ("1209:0001", "serial=B", two),
            ("", "serial=C", three),
            ("1209:1", "instance=1", two),
            ("1209:1", "instance=0", one),
        ):
            with open_port(server, query, device) as port:
                port.write(f"{device} {query}".encode())
                port.flush()
            assert peer.taken.wait(10)
            assert peer.written == f"{device} {query}".encode()
            peer.written.clear()
            peer.taken.clear()


def test_ports_of_one_device_are_opened_one_by_one() -> None:
    peers = [Notebook(), Loopback()]
    with serial_server(ftdi(peers, "FT2232H")) as server:
        first, second = open_port(server), open_port(server, "interface=1")
        with pytest.raises(serial.SerialException, match="in use by this program"):
            open_port(server)
        with pytest.raises(serial.SerialException, match="no serial port at interface 7"):
            open_port(server, "interface=7")
        second.write(b"second")
        assert second.read(6) == b"second"
        first.close()
        second.write(b"still")
        assert second.read(5) == b"still"
        second.close()
        open_port(server, "interface=0").close()


# -- what goes wrong


def wrong(url: str) -> str:
    """The sentence that opening says, at once."""
    with pytest.raises(serial.SerialException) as caught:
        serial.serial_for_url(url)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_wrong_urls_and_devices_are_said(server: SerialServer) -> None:
    port = server.port
    assert "unknown parameter 'speed'" in wrong(server.url(query="speed=1"))
    assert "no address" in wrong("usbip://127.0.0.1:99999/1-1")
    assert "VID:PID" in wrong(f"usbip://127.0.0.1:{port}/zz:11")
    assert "exports 1-1 (1209:0001)" in wrong(server.url("2-2"))
    assert "exports 1-1 (1209:0001)" in wrong(server.url("ffff:1"))
    assert "no instance 3" in wrong(server.url("1209:1", "instance=3"))
    assert "serial number X" in wrong(server.url("", "serial=X"))
    assert "interface 5" in wrong(server.url(query="interface=5"))
    assert "nofolder" in wrong(server.url(query="pcap=/nofolder/x.pcapng"))


def test_a_server_that_is_not_there_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "nothing listens" in wrong(f"usbip://127.0.0.1:{port}/1-1")


def test_a_device_that_is_not_serial_is_said() -> None:
    from tests.pyusb_test_device import BUSID, pyusb_test_server

    server = pyusb_test_server()
    try:
        port = server.listen("127.0.0.1", 0)[1]
        assert "interface 0 is" in wrong(f"usbip://127.0.0.1:{port}/{BUSID}")
    finally:
        server.close()


def test_a_device_that_is_in_use_is_said(server: SerialServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as other:
        other.sendall(b"\x01\x11\x80\x03\0\0\0\0" + b"1-1".ljust(32, b"\0"))
        assert other.recv(1)
        assert "in use by another client" in wrong(server.url())


def test_a_server_that_dies_while_the_port_is_opened_is_said() -> None:
    with ScriptedServer(answer_import) as scripted:
        assert "cannot be read" in wrong(f"usbip://127.0.0.1:{scripted.port}/1-1")


def test_unplugged_while_reading(server: SerialServer, tmp_path: Path) -> None:
    capture = tmp_path / "lost.pcapng"
    port = open_port(server, f"pcap={capture}", timeout=None)
    port.write(b"x")
    assert port.read(1) == b"x"
    caught: list[BaseException] = []

    def read() -> None:
        try:
            port.read(1)
        except serial.SerialException as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    server.device.unplug()
    reader.join(10)
    assert "1-1 (1209:0001)" in str(caught[0])
    assert "\n" not in str(caught[0])
    with pytest.raises(serial.SerialException):
        port.write(b"x")
    with pytest.raises(serial.SerialException):
        _ = port.in_waiting
    port.close()
    assert any(packet.usb and packet.usb.data == b"x" for packet in read_capture(capture))


def test_unplugged_while_writing(server: SerialServer) -> None:
    port = open_port(server, write_timeout=None)
    server.device.hold(OUT, True)
    caught: list[BaseException] = []

    def write() -> None:
        try:
            port.write(bytes(200_000))
        except serial.SerialException as error:
            caught.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    wait_until("the write waits", lambda: port.out_waiting >= 65536)
    server.device.unplug()
    writer.join(10)
    assert "1-1 (1209:0001)" in str(caught[0])
    port.close()


def test_flush_fails_as_on_a_local_port_that_is_unplugged(server: SerialServer) -> None:
    with open_port(server, timeout=None) as port:
        server.device.unplug()
        with pytest.raises(serial.SerialException):
            port.read(1)
        with pytest.raises(termios.error, match="1-1"):     # which pyserial-asyncio waits for
            port.flush()
        with pytest.raises(serial.SerialException, match="1-1"):
            port.flush()


def test_a_stalled_endpoint_goes_on(server: SerialServer) -> None:
    with open_port(server) as port:
        server.device.stall(0x82)
        port.write(b"after the stall")
        assert port.read(15) == b"after the stall"


# -- coming back


def test_a_device_that_resets_comes_back_under_the_same_port(server: SerialServer, tmp_path: Path) -> None:
    capture = tmp_path / "back.pcapng"
    with open_port(server, f"reconnect=10&pcap={capture}", baudrate=57600) as port:
        port.write(b"one")
        assert port.read(3) == b"one"
        before = server.device
        before.unplug()
        wait_until("it is imported again", lambda: server.device is not before)
        port.write(b"two")
        assert port.read(3) == b"two"
        assert server.line.settings.baudrate == 57600
        assert server.line.dtr
    data = {bytes(packet.usb.data) for packet in read_capture(capture) if packet.usb}
    assert {b"one", b"two"} <= data


def test_a_device_that_becomes_another_comes_back_under_the_same_port(server: SerialServer) -> None:
    with open_port(server, "reconnect=10") as port:
        before = server.device
        server.replace(cp210x([Loopback()]))
        before.unplug()
        wait_until("the other one is imported", lambda: server.adapters[0].device is not None)
        port.write(b"as CP210x")
        assert port.read(9) == b"as CP210x"


def test_a_neighbour_of_the_same_kind_is_not_taken_for_the_one_that_is_lost() -> None:
    mine, other = Notebook(), Notebook()
    with serial_server(acm(mine, "1-1", serial="A"), acm(other, "1-2", serial="B")) as server:
        port = open_port(server, "reconnect=0.5", timeout=None)
        device = server.device
        server.server.remove("1-1")
        device.unplug()
        with contextlib.suppress(serial.SerialException):
            port.write(b"not for you")
        with pytest.raises(serial.SerialException, match=r"did not come back within 0\.5 s"):
            port.read(1)
        port.close()
        assert not other.written


def test_a_device_that_is_plugged_in_elsewhere_is_found_by_its_serial_number() -> None:
    adapters = (acm(Loopback(), "1-1", serial="A"), acm(Notebook(), "1-2", serial="B"))
    with serial_server(*adapters) as server, open_port(server, "reconnect=10") as port:
        before = server.device
        server.replace(acm(Loopback(), "1-3", serial="A"))
        before.unplug()
        wait_until("it is imported", lambda: server.adapters[0].device is not None)
        port.write(b"here")
        assert port.read(4) == b"here"


def test_a_port_that_is_closed_while_its_device_is_away_leaves_the_other_one() -> None:
    with serial_server(ftdi([Loopback(), Loopback()], "FT2232H")) as server:
        one, two = (open_port(server, f"reconnect=10&interface={number}") for number in (0, 1))
        before = server.device
        server.server.remove("1-1")
        before.unplug()
        wait_until("it is away", lambda: not one.cts and not two.cts)
        one.close()
        server.server.add(server.adapters[0].info, server.adapters[0].open)
        two.write(b"still there")
        assert two.read(11) == b"still there"
        two.close()


def test_a_device_that_does_not_come_back_is_said(server: SerialServer) -> None:
    port = open_port(server, "reconnect=0.2", timeout=None)
    device = server.device
    server.server.remove("1-1")
    device.unplug()
    with pytest.raises(serial.SerialException, match=r"did not come back within 0\.2 s"):
        port.read(1)
    port.close()


# -- captures and logs


def test_a_port_that_is_opened_again_adds_to_its_capture(server: SerialServer, tmp_path: Path) -> None:
    capture = tmp_path / "twice.pcapng"
    for text in (b"first", b"second"):
        with open_port(server, f"pcap={capture}") as port:
            port.write(text)
            port.read(len(text))
    raw = capture.read_bytes()
    assert raw.count(b"\x0a\x0d\x0d\x0a") == 2
    assert b"first" in raw
    assert b"second" in raw


def test_the_log_of_the_device_is_captured_beside(tmp_path: Path) -> None:
    capture = tmp_path / "log.pcapng"
    server = DemoServer()
    try:
        usb = server.listen("127.0.0.1", 0)[1]
        log = server.listen_log("127.0.0.1", 0)[1]
        with serial.serial_for_url(f"usbip://127.0.0.1:{usb}/1-1?syslog={log}&pcap={capture}", timeout=10) as port:

            def logged() -> bool:
                port.dtr = not port.dtr         # each time, the device has something to say
                return b"DTR on" in capture.read_bytes()

            wait_until("the log is captured", logged)
    finally:
        server.close()


def test_logging_is_switched_on_by_the_url(server: SerialServer) -> None:
    logger = logging.getLogger("usbip_capture.serial_port")
    before = logger.level
    try:
        open_port(server, "logging=debug").close()
        assert logger.level == logging.DEBUG
    finally:
        logger.setLevel(before)


def test_timeouts_are_never_early() -> None:
    """How late they are, `bench/serial_port.py` says."""
    with serial_server() as server, open_port(server, timeout=0.05) as port:
        started = time.monotonic()
        assert port.read(1) == b""
        assert time.monotonic() - started >= 0.05
