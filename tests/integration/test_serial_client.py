"""SerialClient, and the names of serial-usbipclient."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.fakes.scripted_server import ScriptedServer, answer_devlist, read_exactly
from tests.fakes.serial_server import SerialServer, serial_server
from tests.waiting import wait_until
from usbip_capture import SerialClient
from usbip_capture.errors import DeviceNotFound, ImportRefused, ResponseTimeout, ServerLost, ServerUnreachable
from usbip_capture.simulated.serial.acm import acm
from usbip_capture.simulated.serial.line import Loopback, Notebook
from usbip_capture.uart.settings import LineSettings
from usbip_capture.usbip_client import (
    HardwareID,
    USBAttachError,
    USBConnectionLostError,
    USBIP_Connection,
    USBIPClient,
    USBIPConnectionError,
    USBIPResponseTimeoutError,
    USBIPValueError,
)
from usbip_capture.wire import structs


@pytest.fixture
def server() -> Iterator[SerialServer]:
    with serial_server(
        acm(Loopback(), "1-1", serial="A"), acm(Loopback(), "1-2", serial="B"), acm(Notebook(), "1-10", serial="C")
    ) as running:
        yield running


def test_identical_devices_are_distinguished(server: SerialServer) -> None:
    with SerialClient("127.0.0.1", server.port) as client:
        first = client.attach("1-1", settings=LineSettings(115200))
        second = client.attach(serial="B")
        assert [first.busid, second.busid] == ["1-1", "1-2"]
        assert [first.serial_number, second.serial_number] == ["A", "B"]
        first.sendall(b"one\r\n")
        second.sendall(b"two\r\n")
        assert [second.response_data(), first.response_data()] == [b"two\r\n", b"one\r\n"]
        assert client.connections == [first, second]
        assert server.line.settings.baudrate == 115200
    assert client.connections == []
    wait_until("all devices are back", lambda: len(client.devices()) == 3)


def test_all_of_a_kind_are_attached_in_order(server: SerialServer) -> None:
    with SerialClient("127.0.0.1", server.port) as client:
        assert [each.busid for each in client.attach_all("1209:0001")] == ["1-1", "1-2", "1-10"]
        with pytest.raises(DeviceNotFound):
            client.attach_all("1209:0001")
        with pytest.raises(ImportRefused, match="in use by this program"):
            client.attach("1-1")


def test_answers_are_read_by_size_or_delimiter(server: SerialServer) -> None:
    with SerialClient("127.0.0.1", server.port) as client:
        device = client.attach("1-1")
        device.delimiter = b";"
        device.sendall(b"12345;abc")
        assert device.response_data(3) == b"123"
        assert device.response_data() == b"45;"
        with pytest.raises(ResponseTimeout, match="3 bytes within") as caught:
            device.response_data(timeout=0.05)
        assert caught.value.partial == b"abc"
        device.sendall(b"old")
        assert device.response_data(3) == b"old"
        device.discard()


def test_a_lost_device_is_restored(server: SerialServer) -> None:
    with SerialClient("127.0.0.1", server.port) as client:
        device = client.attach("1-1", settings=LineSettings(57600))
        server.device.unplug()
        with pytest.raises(ServerLost):
            device.response_data(1, 10)
        device.restore()
        device.sendall(b"back\r\n")
        assert device.response_data() == b"back\r\n"
        assert server.line.settings.baudrate == 57600


def test_a_device_comes_back_by_itself_when_asked(server: SerialServer) -> None:
    with SerialClient("127.0.0.1", server.port, reconnect=10) as client:
        device = client.attach("1-1")
        server.device.unplug()
        device.sendall(b"")
        while True:
            try:
                device.sendall(b"back\r\n")
                if device.response_data() == b"back\r\n":
                    break
            except ResponseTimeout:  # it was not back yet
                continue


def test_a_server_that_is_not_there_is_reported() -> None:
    with SerialClient("127.0.0.1", 1) as client, pytest.raises(ServerUnreachable):
        client.attach("1-1")


# -- serial-usbipclient's names


def test_the_readme_example_of_serial_usbipclient(server: SerialServer) -> None:
    target: HardwareID = HardwareID(vid=0x1209, pid=0x0001)
    client: USBIPClient = USBIPClient(remote=("127.0.0.1", server.port))
    client.connect_server()
    client.attach(devices=[target])
    connections: list[USBIP_Connection] = client.get_connection(device=target)
    assert len(connections) == 3
    connections[0].sendall(data=b"\x01\x02\x03\x04\n")
    connections[0].delimiter = b"\n"
    assert connections[0].response_data(size=0) == b"\x01\x02\x03\x04\n"
    client.send(connections[0], "a line\n")
    assert client.readline(connections[0]) == "a line"
    connections[0].sendall(b"abc")
    assert connections[0].response_data(size=9) == b"abc"
    with pytest.raises(USBIPResponseTimeoutError) as caught:
        connections[0].response_data(size=9, timeout=0.01)
    assert (caught.value.size, caught.value.timeout) == (9, 0.01)
    client.shutdown()
    wait_until("all devices are back", lambda: len(client.list_published().paths) == 3)


def test_a_lost_connection_is_restored_under_the_old_names(server: SerialServer) -> None:
    target = HardwareID(0x1209, 1)
    client = USBIPClient(("127.0.0.1", server.port))
    client.attach([target])
    lost = client.get_connection(target)[0]
    server.device.unplug()
    with pytest.raises(USBConnectionLostError) as caught:
        lost.response_data(timeout=10, size=1)
    assert caught.value.connection is lost
    restored = client.restore_connection(lost)
    assert restored is not None
    restored.sendall(b"back\r\n")
    assert restored.response_data() == b"back\r\n"
    client.shutdown()


@pytest.mark.parametrize(("status", "errno"), [(1, 2), (2, 16), (4, 19), (19, 19), (-110, 110)])
def test_a_refusal_with_any_status_is_an_attach_error(status: int, errno: int) -> None:
    def refuse(sock: socket.socket) -> None:
        read_exactly(sock, 40)
        sock.sendall(structs.OP_COMMON.pack(0x0111, structs.OP_REP_IMPORT, status & 0xFFFFFFFF))

    with ScriptedServer(answer_devlist, refuse) as scripted:
        client = USBIPClient(("127.0.0.1", scripted.port))
        with pytest.raises(USBAttachError) as caught:
            client.attach([HardwareID(0x1209, 1)])
        assert caught.value.errno == errno


def test_what_programs_of_serial_usbipclient_do(server: SerialServer) -> None:
    """Each as that package has it: mutable ids, static readline, data that ends with the delimiter, descriptors."""
    target = HardwareID()
    target.vid, target.pid = 0x1209, 1
    client = USBIPClient(("127.0.0.1", server.port))
    client.attach([target])
    first, *_ = client.get_connection(target)
    client.queue_urbs(first)
    first.delimiter = b"\n"
    first.sendall(b"one\ntwo\n")
    wait_until("all is here", lambda: first.connection.port.in_waiting == 8)
    assert first.response_data(timeout=10) == b"one\ntwo\n"
    first.sendall(b"three\nfo")
    assert first.response_data(timeout=0.2) in (b"three\n", b"three\nfo")
    first.connection.discard()
    first.sendall(b"line\n")
    assert USBIPClient.readline(first) == "line"
    assert (first.device_desc.idVendor, first.device_desc.bNumConfigurations) == (0x1209, 1)
    assert first.configuration.bConfigurationValue == 1
    assert first.configuration.interfaces
    client.shutdown()


def test_errors_have_the_old_names(server: SerialServer) -> None:
    client = USBIPClient(("127.0.0.1", server.port))
    with pytest.raises(USBIPValueError, match="vid: 0x0001"):
        client.attach([HardwareID(1, 2)])
    published = client.list_published()
    with SerialClient("127.0.0.1", server.port) as other:
        other.attach_all()
        with pytest.raises(USBAttachError) as caught:
            client.attach([HardwareID(0x1209, 1)], published)
        assert caught.value.errno == 16
    assert "no 9 bytes within 0.5 s" in str(USBIPResponseTimeoutError(timeout=0.5, request=b"?", size=9))
    with pytest.raises(USBIPConnectionError):
        USBIPClient(("127.0.0.1", 1)).connect_server()
