"""Errors, claims, settings: what PyUSB programs get from us is what libusb's backend gives them."""

from __future__ import annotations

import errno
import gc
import threading
import tracemalloc
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import usb.core
import usb.util

from tests.fakes.loopback_device import LoopbackServer, loopback_server
from tests.fakes.scripted_server import ScriptedServer, answer_devlist
from tests.oracles.pcapng_reader import read_capture
from tests.waiting import wait_until
from usbip_capture import get_backend
from usbip_capture.demo.device import BULK_IN, BULK_OUT, ISO_IN
from usbip_capture.errors import LocalProtocolError
from usbip_capture.pyusb_backend import UsbipBackend
from usbip_capture.usb.status import EPROTO
from usbip_capture.usb.urb import Completion


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with loopback_server() as opened:
        yield opened


@pytest.fixture
def backend(server: LoopbackServer) -> Iterator[UsbipBackend]:
    with get_backend("127.0.0.1", server.port) as opened:
        yield opened


@pytest.fixture
def dev(backend: UsbipBackend) -> usb.core.Device:
    found: usb.core.Device = usb.core.find(backend=backend)
    return found


def libusb_error(caught: pytest.ExceptionInfo[usb.core.USBError]) -> tuple[int | None, int | None]:
    return caught.value.backend_error_code, caught.value.errno


NOT_FOUND, BUSY, INVALID = (-5, errno.ENOENT), (-6, errno.EBUSY), (-2, errno.EINVAL)
NO_DEVICE, IO = (-4, errno.ENODEV), (-1, errno.EIO)


def test_programs_that_never_set_a_configuration_find_it_set(dev: usb.core.Device, server: LoopbackServer) -> None:
    assert dev.get_active_configuration().bConfigurationValue == 1
    assert dev.write(BULK_OUT, b"hello") == 5
    assert bytes(dev.read(BULK_IN, 64)) == b"hello"
    assert [setup for setup in server.devices[-1].requests if setup.bRequest == 9] == [(0, 9, 1, 0, 0)]


def test_the_unconfigured_state_can_be_had(dev: usb.core.Device) -> None:
    dev.set_configuration(0)
    with pytest.raises(usb.core.USBError, match="Configuration not set"):
        dev.get_active_configuration()


def test_indices_past_the_end(backend: UsbipBackend, dev: usb.core.Device) -> None:
    """A configuration that is missing is libusb's to find; the rest PyUSB's own backend looks up by itself."""
    (device,) = backend.enumerate_devices()
    for index in (1, -1):
        with pytest.raises(usb.core.USBError) as caught:
            backend.get_configuration_descriptor(device, index)
        assert (caught.value.errno, caught.value.backend_error_code) == (errno.ENOENT, -5)
    for call in (
        lambda: backend.get_interface_descriptor(device, 4, 0, 0),
        lambda: backend.get_interface_descriptor(device, 3, 2, 0),
        lambda: backend.get_endpoint_descriptor(device, 2, 3, 0, 0),
        lambda: backend.get_endpoint_descriptor(device, -1, 3, 0, 0),
    ):
        with pytest.raises(IndexError):
            call()


class TestClaims:
    """Interfaces belong to one opening of a device."""

    @pytest.fixture
    def handles(self, backend: UsbipBackend) -> list[Any]:
        (device,) = backend.enumerate_devices()
        return [backend.open_device(device), backend.open_device(device)]

    def test_one_at_a_time(self, backend: UsbipBackend, handles: list[Any]) -> None:
        first, second = handles
        backend.claim_interface(first, 3)
        backend.claim_interface(first, 3)
        with pytest.raises(usb.core.USBError, match="interface 3 of device 1-1") as caught:
            backend.claim_interface(second, 3)
        assert libusb_error(caught) == BUSY
        with pytest.raises(usb.core.USBError) as caught:
            backend.bulk_write(second, BULK_OUT, 3, array("B", b"x"), 100)
        assert libusb_error(caught) == BUSY
        backend.release_interface(first, 3)
        backend.claim_interface(second, 3)

    def test_closing_releases(self, backend: UsbipBackend, handles: list[Any]) -> None:
        first, second = handles
        backend.claim_interface(first, 0)
        backend.close_device(first)
        backend.claim_interface(second, 0)

    @pytest.mark.parametrize(("number", "expected"), [(9, NOT_FOUND), (32, INVALID), (-1, INVALID)])
    def test_of_no_interface(
        self, backend: UsbipBackend, handles: list[Any], number: int, expected: tuple[int, int]
    ) -> None:
        with pytest.raises(usb.core.USBError) as caught:
            backend.claim_interface(handles[0], number)
        assert libusb_error(caught) == expected

    def test_releasing_what_is_not_claimed(self, backend: UsbipBackend, handles: list[Any]) -> None:
        with pytest.raises(usb.core.USBError) as caught:
            backend.release_interface(handles[0], 0)
        assert libusb_error(caught) == NOT_FOUND

    def test_release_goes_back_to_alternate_setting_0(
        self, backend: UsbipBackend, handles: list[Any], server: LoopbackServer
    ) -> None:
        backend.claim_interface(handles[0], 3)
        backend.set_interface_altsetting(handles[0], 3, 1)
        backend.release_interface(handles[0], 3)
        assert [tuple(r) for r in server.devices[-1].requests[-2:]] == [(1, 11, 1, 3, 0), (1, 11, 0, 3, 0)]

    def test_alternate_settings_need_a_claim_and_must_exist(self, backend: UsbipBackend, handles: list[Any]) -> None:
        with pytest.raises(usb.core.USBError) as caught:
            backend.set_interface_altsetting(handles[0], 3, 1)
        assert libusb_error(caught) == NOT_FOUND
        backend.claim_interface(handles[0], 3)
        with pytest.raises(usb.core.USBError) as caught:
            backend.set_interface_altsetting(handles[0], 3, 7)
        assert libusb_error(caught) == NOT_FOUND
        with pytest.raises(usb.core.USBError) as caught:
            backend.set_interface_altsetting(handles[0], 3, 256)
        assert libusb_error(caught) == INVALID

    def test_a_configuration_cannot_be_set_meanwhile(self, backend: UsbipBackend, handles: list[Any]) -> None:
        backend.claim_interface(handles[0], 3)
        with pytest.raises(usb.core.USBError) as caught:
            backend.set_configuration(handles[1], 1)
        assert libusb_error(caught) == BUSY
        backend.close_device(handles[0])
        with pytest.raises(usb.core.USBError) as caught:
            backend.set_configuration(handles[1], 9)
        assert libusb_error(caught) == NOT_FOUND

    def test_kernel_drivers_are_not_there(self, backend: UsbipBackend, handles: list[Any]) -> None:
        assert backend.is_kernel_driver_active(handles[0], 0) is False
        for call in (backend.detach_kernel_driver, backend.attach_kernel_driver):
            with pytest.raises(usb.core.USBError) as caught:
                call(handles[0], 0)
            assert libusb_error(caught) == NOT_FOUND
            with pytest.raises(usb.core.USBError) as caught:
                call(handles[0], 9)
            assert libusb_error(caught) == INVALID
        backend.claim_interface(handles[0], 0)
        with pytest.raises(usb.core.USBError) as caught:
            backend.attach_kernel_driver(handles[0], 0)
        assert libusb_error(caught) == BUSY


class TestTransfers:
    """What goes wrong with them."""

    @pytest.mark.parametrize("endpoint", [0x0C, 0x8C])
    def test_endpoints_that_are_not_there(self, backend: UsbipBackend, endpoint: int) -> None:
        (device,) = backend.enumerate_devices()
        handle = backend.open_device(device)
        transfer = backend.bulk_read if endpoint & 0x80 else backend.bulk_write
        with pytest.raises(usb.core.USBError, match=f"{endpoint:#04x}") as caught:
            transfer(handle, endpoint, 0, array("B", b"12345678"), 100)
        assert libusb_error(caught) == NOT_FOUND

    def test_the_wrong_direction(self, backend: UsbipBackend) -> None:
        (device,) = backend.enumerate_devices()
        handle = backend.open_device(device)
        for transfer, endpoint in ((backend.bulk_read, BULK_OUT), (backend.bulk_write, BULK_IN)):
            with pytest.raises(usb.core.USBError) as caught:
                transfer(handle, endpoint, 3, array("B", b"x"), 100)
            assert libusb_error(caught) == INVALID

    def test_babble(self, dev: usb.core.Device, server: LoopbackServer) -> None:
        dev.get_active_configuration()
        server.devices[-1].feed(0x83, bytes(8))
        with pytest.raises(usb.core.USBError) as caught:
            dev.read(0x83, 4)  # less than the packet that comes
        assert libusb_error(caught) == (-8, errno.EOVERFLOW)

    def test_stall_and_what_cannot_be_distinguished(self, dev: usb.core.Device, server: LoopbackServer) -> None:
        dev.get_active_configuration()
        server.devices[-1].stall(BULK_IN)
        with pytest.raises(usb.core.USBError, match="endpoint 0x84 of device 1-1") as caught:
            dev.read(BULK_IN, 8)
        assert libusb_error(caught) == (-9, errno.EPIPE)
        dev.clear_halt(BULK_IN)

        def fail(transfer: Any) -> None:
            transfer.finish(Completion(statuses[-1]))

        server.devices[-1].submit = fail  # type: ignore[method-assign]
        statuses: list[int] = []
        for status, expected in ((-EPROTO, IO), (-12, (-11, errno.ENOMEM)), (-13, (-3, errno.EACCES)), (-199, IO)):
            statuses.append(status)
            with pytest.raises(usb.core.USBError) as caught:
                dev.read(BULK_IN, 8)
            assert libusb_error(caught) == expected

    def test_numbers_too_large_are_cut_as_in_c(self, dev: usb.core.Device, server: LoopbackServer) -> None:
        with pytest.raises(usb.core.USBError):
            dev.ctrl_transfer(0x40, 0x77, -1, 0x10002, b"")
        assert server.devices[-1].requests[-1] == (0x40, 0x77, 0xFFFF, 2, 0)
        with pytest.raises(usb.core.USBError) as caught:
            dev.ctrl_transfer(0x40, 0x77, 0, 0, bytes(0x10000))
        assert libusb_error(caught) == INVALID

    def test_buffers_of_other_item_sizes(self, backend: UsbipBackend) -> None:
        (device,) = backend.enumerate_devices()
        handle = backend.open_device(device)
        assert backend.bulk_write(handle, BULK_OUT, 3, array("H", [1, 2, 3]), 1000) == 6
        buffer = array("I", [0, 0])
        assert backend.bulk_read(handle, BULK_IN, 3, buffer, 1000) == 6
        assert buffer.tobytes() == bytes.fromhex("0100 0200 0300 0000")
        big = array("H", range(20_000))
        assert backend.bulk_write(handle, BULK_OUT, 3, big, 1000) == 40_000
        back = array("H", bytes(40_000))
        assert backend.bulk_read(handle, BULK_IN, 3, back, 1000) == 40_000
        assert back == big

    @pytest.mark.parametrize("size", [1, 512, 16 << 10, (16 << 10) + 1, 300_000, 4 << 20, (4 << 20) + 7])
    def test_large_transfers_arrive_whole(self, dev: usb.core.Device, size: int) -> None:
        data = array("B", (bytes(range(251)) * (size // 251 + 1))[:size])
        buffer = array("B", bytes(size))
        # At once, as the device takes no more while too much of it is unread.
        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(dev.write, BULK_OUT, data, 20_000)
            self._read_back(dev, buffer)
            assert written.result(30) == size
        assert buffer == data

    def _read_back(self, dev: usb.core.Device, buffer: array[int]) -> None:
        got, size = 0, len(buffer)
        while got < size:  # what is longer than one URB comes back as several messages
            piece = dev.read(BULK_IN, size - got, 20_000)
            buffer[got : got + len(piece)] = piece
            got += len(piece)

    def test_data_is_put_into_the_buffer_at_its_start(self, dev: usb.core.Device) -> None:
        dev.write(BULK_OUT, b"\x11" * 20_000)
        buffer = array("B", b"\xee" * 30_000)
        assert dev.read(BULK_IN, buffer) == 20_000
        assert buffer.tobytes() == b"\x11" * 20_000 + b"\xee" * 10_000

    def test_isochronous_transfers_of_many_urbs(self, dev: usb.core.Device) -> None:
        dev.set_interface_altsetting(3, 1)
        data = bytes(i & 0xFF for i in range(64 * 600))
        assert dev.write(0x05, data, 5000) == len(data)
        assert bytes(dev.read(ISO_IN, len(data), 5000)) == data

    def test_servers_that_take_less(self, dev: usb.core.Device, server: LoopbackServer) -> None:
        dev.get_active_configuration()
        device = server.devices[-1]
        device.limit = 4096
        data = bytes(range(256)) * 50
        assert dev.write(BULK_OUT, data) == len(data)
        assert bytes(dev.read(BULK_IN, len(data))) == data
        assert device.largest == 4096

    def test_a_limit_from_the_start(self, server: LoopbackServer) -> None:
        with get_backend("127.0.0.1", server.port, max_transfer=1000) as backend:
            dev = usb.core.find(backend=backend)
            assert dev.write(BULK_OUT, bytes(3000)) == 3000
            assert server.devices[-1].largest == 512  # whole packets

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("max_transfer", [0, 5 << 20, "x"]),
            ("reconnect", [-1, float("nan"), "x", None]),
            ("timeout", [-1, 0, float("inf"), "x"]),
            ("device", ["zz:1"]),
        ],
    )
    def test_arguments_that_cannot_be(self, name: str, values: list[Any]) -> None:
        for value in values:
            with pytest.raises(LocalProtocolError):
                get_backend("127.0.0.1", **{name: value})

    def test_a_short_piece_ends_a_long_read(self, dev: usb.core.Device, server: LoopbackServer) -> None:
        dev.get_active_configuration()
        server.devices[-1].limit = 1024
        dev.write(BULK_OUT, bytes(100))
        assert len(dev.read(BULK_IN, 8192)) == 100

    def test_a_time_out_keeps_what_has_come(self, dev: usb.core.Device, server: LoopbackServer) -> None:
        dev.get_active_configuration()
        server.devices[-1].limit = 1024
        dev.write(BULK_OUT, bytes(1024))
        assert len(dev.read(BULK_IN, 8192, 50)) == 1024
        with pytest.raises(usb.core.USBTimeoutError):
            dev.read(BULK_IN, 8192, 20)

    def test_an_endless_wait_is_ended_by_unplugging(self, dev: usb.core.Device, server: LoopbackServer) -> None:
        dev.get_active_configuration()
        failures: list[usb.core.USBError] = []

        def wait() -> None:
            with pytest.raises(usb.core.USBError) as caught:
                dev.read(BULK_IN, 64, 0)
            failures.append(caught.value)

        threads = [threading.Thread(target=wait) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until("all wait", lambda: len(server.devices[-1]._waiting.get(BULK_IN, ())) == 4)
        server.devices[-1].unplug()
        for thread in threads:
            thread.join(20)
        assert [(e.backend_error_code, e.errno) for e in failures] == [NO_DEVICE] * 4
        with pytest.raises(usb.core.USBError) as caught:
            dev.read(BULK_IN, 64)
        assert libusb_error(caught) == NO_DEVICE


def test_a_lost_server_leaves_the_capture_valid(tmp_path: Path) -> None:
    with loopback_server() as server, get_backend("127.0.0.1", server.port, pcap=tmp_path / "x.pcapng") as backend:
        dev = usb.core.find(backend=backend)
        dev.write(BULK_OUT, b"last words")
        server.server.close()
        with pytest.raises(usb.core.USBError) as caught:
            dev.read(BULK_IN, 64)
        assert libusb_error(caught) == NO_DEVICE
    packets = list(read_capture(tmp_path / "x.pcapng"))
    assert any(packet.data.endswith(b"last words") for packet in packets)


def test_devices_of_a_refusing_server_have_what_is_in_its_list() -> None:
    def refuse(sock: Any) -> None:
        sock.recv(40)
        sock.sendall(bytes.fromhex("0111 0003 00000001"))

    with ScriptedServer(answer_devlist, refuse) as server, get_backend("127.0.0.1", server.port) as backend:
        dev = usb.core.find(backend=backend)
        assert (dev.idVendor, dev.idProduct, dev.bus, dev.address) == (0x1209, 0x0001, 1, 2)
        with pytest.raises(usb.core.USBError) as caught:
            dev.get_active_configuration()
        assert libusb_error(caught) == BUSY


def test_only_what_was_chosen_is_seen(server: LoopbackServer) -> None:
    for device, count in (("1-1", 1), ("1209:0001", 1), ("1209:9999", 0), ("1-2,1-1", 1)):
        with get_backend("127.0.0.1", server.port, device=device) as backend:
            assert len(list(usb.core.find(find_all=True, backend=backend))) == count


def test_a_known_device_is_not_imported_only_to_be_listed(backend: UsbipBackend, server: LoopbackServer) -> None:
    for _ in range(5):
        assert usb.core.find(backend=backend, idVendor=1) is None
    assert len(server.devices) == 1


@pytest.mark.parametrize("times", [150, pytest.param(900, marks=pytest.mark.long)])
def test_openings_leave_nothing_behind(times: int, server: LoopbackServer) -> None:
    def opened() -> None:
        with get_backend("127.0.0.1", server.port) as backend:
            dev = usb.core.find(backend=backend)
            assert dev.write(BULK_OUT, b"x") == 1
            usb.util.dispose_resources(dev)
        server.devices.clear()

    def held() -> tuple[int, int]:
        """Open files and threads, of both sides."""
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    def traced_memory() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    opened()
    before = held()
    for _ in range(100):
        opened()
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(50):  # what tracing itself keeps, too
            opened()
        first = traced_memory()
        for _ in range(times):
            opened()
        wait_until("the server's side is closed", lambda: held() <= before)
        grown = traced_memory() - first
    finally:
        tracemalloc.stop()
    assert grown < 300 * times  # the receive buffer of a single connection alone has 256 KiB
