"""usbip:// ports of pyserial: what goes wrong, devices that come back, captures and logs beside."""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.scripted_server import ScriptedServer, answer_import
from tests.fakes.serial_server import SerialServer, open_port, serial_server
from tests.oracles.pcapng_reader import read_capture
from tests.waiting import wait_until
from usbip_capture.demo.device import DemoServer
from usbip_capture.simulated.serial.acm import acm
from usbip_capture.simulated.serial.cp210x import cp210x
from usbip_capture.simulated.serial.ftdi import ftdi
from usbip_capture.simulated.serial.line import Loopback, Notebook

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


# -- what goes wrong


def wrong(url: str) -> str:
    """The sentence that opening raises, at once."""
    with pytest.raises(serial.SerialException) as caught:
        serial.serial_for_url(url)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_wrong_urls_and_devices_are_reported(server: SerialServer) -> None:
    port = server.port
    assert "unknown parameter 'speed'" in wrong(server.url(query="speed=1"))
    assert "99999 is not a TCP port" in wrong("usbip://127.0.0.1:99999/1-1")
    assert "VID:PID" in wrong(f"usbip://127.0.0.1:{port}/zz:11")
    assert "exports 1-1 (1209:0001)" in wrong(server.url("2-2"))
    assert "exports 1-1 (1209:0001)" in wrong(server.url("ffff:1"))
    assert "no instance 3" in wrong(server.url("1209:1", "instance=3"))
    assert "serial number X" in wrong(server.url("", "serial=X"))
    assert "interface 5" in wrong(server.url(query="interface=5"))
    assert "nofolder" in wrong(server.url(query="pcap=/nofolder/x.pcapng"))


def test_a_server_that_is_not_there_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "nothing listens" in wrong(f"usbip://127.0.0.1:{port}/1-1")


def test_a_device_that_is_not_serial_is_reported() -> None:
    from tests.fakes.pyusb_test_device import BUSID, pyusb_test_server

    server = pyusb_test_server()
    try:
        port = server.listen("127.0.0.1", 0)[1]
        assert "interface 0 is" in wrong(f"usbip://127.0.0.1:{port}/{BUSID}")
    finally:
        server.close()


def test_a_device_that_is_in_use_is_reported(server: SerialServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as other:
        other.sendall(b"\x01\x11\x80\x03\0\0\0\0" + b"1-1".ljust(32, b"\0"))
        assert other.recv(1)
        assert "in use by another client" in wrong(server.url())


def test_a_server_that_dies_while_the_port_is_opened_is_reported() -> None:
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
        with pytest.raises(termios.error, match="1-1"):  # which pyserial-asyncio waits for
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


def test_a_port_that_is_closed_while_its_device_is_disconnected_leaves_the_other_one() -> None:
    with serial_server(ftdi([Loopback(), Loopback()], "FT2232H")) as server:
        one, two = (open_port(server, f"reconnect=10&interface={number}") for number in (0, 1))
        before = server.device
        server.server.remove("1-1")
        before.unplug()
        wait_until("it is disconnected", lambda: not one.cts and not two.cts)
        one.close()
        server.server.add(server.adapters[0].info, server.adapters[0].open)
        two.write(b"still there")
        assert two.read(11) == b"still there"
        two.close()


def test_a_device_that_does_not_come_back_is_reported(server: SerialServer) -> None:
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
                port.dtr = not port.dtr  # each time, the device has something to notify
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


#: Opens a port whose reader is in the middle of a submission when the program ends. A daemon thread is stopped there by
#: the interpreter, and never releases its lock. What is patched refers to nothing of the program, which is freed so.
LEFT_OPEN = """
import serial, sys
patched = {}
exec('''
import threading, time
from usbip_capture.net.transport import SocketTransport

original, sending = SocketTransport.send, threading.Event()

def send(transport, parts):
    original(transport, parts)
    if threading.current_thread().name.startswith("usbip-reader"):
        sending.set()
        time.sleep(0.5)

SocketTransport.send = send
''', patched)
port = serial.serial_for_url(sys.argv[1], timeout=10)
port.write(b"hello")
patched["sending"].wait(10)
"""


def test_a_port_that_a_program_leaves_open_is_closed_as_it_ends(server: SerialServer, tmp_path: Path) -> None:
    capture = tmp_path / "left.pcapng"
    url = server.url(query=f"pcap={capture}")
    # Not shared with this process: in it, a thread that is stopped for ever would be a hang of the program.
    command = [sys.executable, "-c", LEFT_OPEN, url]
    program = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert (program.returncode, program.stdout, program.stderr) == (0, "", "")
    assert list(read_capture(capture))[-1].interface.received is not None, "complete, with its statistics"
