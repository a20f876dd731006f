"""usbip:// as a port of pyserial: what its documentation promises of ports, and what goes wrong."""

from __future__ import annotations

import errno
import select
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.serial_server import SerialServer, open_port, serial_server
from tests.waiting import wait_until
from usbip_capture.simulated.serial.acm import acm
from usbip_capture.simulated.serial.ch34x import ch34x
from usbip_capture.simulated.serial.cp210x import cp210x
from usbip_capture.simulated.serial.ftdi import ftdi
from usbip_capture.simulated.serial.line import Loopback, Notebook
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
    data = bytes(range(256)) * 8192  # more than the port keeps: the device has to wait
    notebook = Notebook()
    with serial_server(acm(notebook)) as server, open_port(server) as port:
        server.line.send(data)
        wait_until("the port is full", lambda: port.in_waiting >= 1 << 20)
        assert port.read(len(data)) == data


def test_select_reports_data(server: SerialServer) -> None:
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


def test_devices_are_distinguished() -> None:
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


def test_timeouts_are_never_early() -> None:
    """How late they are, `bench/serial_port.py` measures."""
    with serial_server() as server, open_port(server, timeout=0.05) as port:
        started = time.monotonic()
        assert port.read(1) == b""
        assert time.monotonic() - started >= 0.05
