"""Transfers in flight as futures, and with asyncio."""

from __future__ import annotations

import asyncio
import errno
import io
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, wait
from types import SimpleNamespace
from typing import Any

import pytest
import usb.core

from tests.fakes.loopback_device import LoopbackServer, loopback_server
from tests.fakes.scripted_server import ScriptedServer, answer_import
from tests.waiting import wait_until
from usbip_capture import AsynchronousDevice, AsyncioDevice, PcapBackendWrapper, get_backend
from usbip_capture.demo.device import BULK_IN, BULK_OUT, ISO_IN, ISO_OUT
from usbip_capture.device import Device
from usbip_capture.devices.remote import RemoteDevice
from usbip_capture.host.handle import DeviceHandle
from usbip_capture.host.opened import OpenDevice
from usbip_capture.servers.address import Selector, ServerAddress

TIMEOUT = 20.0


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with loopback_server() as opened:
        yield opened


@pytest.fixture
def dev(server: LoopbackServer) -> Iterator[usb.core.Device]:
    with get_backend("127.0.0.1", server.port) as backend:
        yield usb.core.find(backend=backend)


@pytest.fixture
def device(dev: usb.core.Device) -> Iterator[AsynchronousDevice]:
    with AsynchronousDevice(dev) as opened:
        yield opened


def test_many_in_flight_and_in_order(device: AsynchronousDevice) -> None:
    reads = [device.read(BULK_IN, 64) for _ in range(40)]
    writes = [device.write(BULK_OUT, b"%d" % number) for number in range(40)]
    assert [f.result(TIMEOUT).actual_length for f in writes] == [len(b"%d" % n) for n in range(40)]
    assert [bytes(f.result(TIMEOUT).data) for f in reads] == [b"%d" % number for number in range(40)]


def test_beside_pyusb_s_own_calls(dev: usb.core.Device, device: AsynchronousDevice) -> None:
    waiting = device.read(BULK_IN, 64)
    assert len(dev.ctrl_transfer(0x80, 6, 0x0100, 0, 18)) == 18
    assert dev.write(BULK_OUT, b"x") == 1
    assert bytes(waiting.result(TIMEOUT).data) == b"x"


def test_control(device: AsynchronousDevice) -> None:
    assert len(device.control(0x80, 6, 0x0100, 0, 18).result(TIMEOUT).data) == 18
    with pytest.raises(usb.core.USBError) as caught:
        device.control(0xC0, 0x77, 0, 0, 4).result(TIMEOUT)
    assert caught.value.errno == errno.EPIPE
    with pytest.raises(usb.core.USBError, match="set_configuration"):
        device.control(0x00, 9, 1)


def test_time_outs(device: AsynchronousDevice) -> None:
    expired = device.read(BULK_IN, 64, timeout=20)
    with pytest.raises(usb.core.USBTimeoutError):
        expired.result(TIMEOUT)
    device.write(BULK_OUT, b"x").result(TIMEOUT)
    assert bytes(device.read(BULK_IN, 64, timeout=20_000).result(TIMEOUT).data) == b"x"


def test_cancel(device: AsynchronousDevice, server: LoopbackServer) -> None:
    waiting = device.read(BULK_IN, 64)
    wait_until("it is read", lambda: server.devices[-1].waits_for_data(BULK_IN))
    assert waiting.cancel()
    with pytest.raises(CancelledError):
        waiting.result(TIMEOUT)
    wait_until("it is unlinked", lambda: not server.devices[-1].waits_for_data(BULK_IN))
    done = device.write(BULK_OUT, b"x")
    done.result(TIMEOUT)
    assert not done.cancel()


def test_a_lost_device_fails_all_at_once(device: AsynchronousDevice, server: LoopbackServer) -> None:
    waiting = [device.read(BULK_IN, 64) for _ in range(10)]
    wait_until("it is read", lambda: server.devices[-1].waits_for_data(BULK_IN))
    server.devices[-1].unplug()
    done, pending = wait(waiting, TIMEOUT)
    assert not pending
    for future in done:
        error = future.exception()
        assert isinstance(error, usb.core.USBError)
        assert error.errno == errno.ENODEV


def test_wrong_calls(device: AsynchronousDevice) -> None:
    calls: list[Callable[[], object]] = [
        lambda: device.read(BULK_OUT, 8),
        lambda: device.write(BULK_IN, b"x"),
        lambda: device.read(0x8C, 8),
        lambda: device.write(BULK_OUT, bytes(5 << 20)),
        lambda: device.read(BULK_IN, -1),
        lambda: device.control(300, 0),
        lambda: device.control(0xC0, 0x10, 0, 0, 70_000),
        lambda: device.control(0x40, 0x10, 0, 0, 5),
    ]
    for call in calls:
        with pytest.raises(usb.core.USBError) as caught:
            call()
        assert caught.value.errno in (errno.EINVAL, errno.ENOENT)


def test_more_packets_than_a_urb_has(dev: usb.core.Device, device: AsynchronousDevice) -> None:
    dev.set_interface_altsetting(3, 1)
    with pytest.raises(usb.core.USBError, match="2048 packets are too many"):
        device.read(ISO_IN, 2048 * 64)


def test_none_without_their_time_outs(device: AsynchronousDevice) -> None:
    device.close()
    with pytest.raises(usb.core.USBError, match="ended by close"):
        device.read(BULK_IN, 8, timeout=10)


def test_what_is_done_is_not_kept_until_its_time_is_over(device: AsynchronousDevice) -> None:
    device.write(BULK_OUT, b"x", timeout=3_600_000).result(TIMEOUT)
    future = device.read(BULK_IN, 8, timeout=3_600_000)
    future.result(TIMEOUT)
    seen = weakref.ref(future)
    del future
    wait_until("it is forgotten", lambda: seen() is None)


def test_cancelled_at_a_silent_server() -> None:
    def never_answer(sock: socket.socket) -> None:
        answer_import(sock)
        while sock.recv(4096):
            pass

    with ScriptedServer(never_answer) as server:
        device = ServerAddress("127.0.0.1", server.port, TIMEOUT).import_device(Selector("1-1"))
        assert isinstance(device, RemoteDevice)
        with AsynchronousDevice(_opened(device)) as asynchronous:
            future = asynchronous.control(0x80, 6, 0x0100, 0, 18, timeout=1)
            assert future.cancel()
            assert future.cancel()
            wait_until("it is given up", lambda: not device._conn.pending)
            assert len(device._conn._unlinks) == 1  # not one more for its time-out
        device.close()


def _opened(device: Device) -> Any:
    """What of a `usb.core.Device` is used, without reading its descriptors."""
    opened = OpenDevice(DeviceHandle(device), None)
    return SimpleNamespace(_ctx=SimpleNamespace(managed_open=lambda: opened))


def test_isochronous_packets_one_by_one(dev: usb.core.Device, device: AsynchronousDevice) -> None:
    dev.set_interface_altsetting(3, 1)
    sent = device.write(ISO_OUT, bytes(range(200))).result(TIMEOUT)
    assert [packet.actual_length for packet in sent.packets] == [64, 64, 64, 8]
    got = device.read(ISO_IN, 256).result(TIMEOUT)
    assert [packet.actual_length for packet in got.packets] == [64, 64, 64, 8]
    assert bytes(got.data) == bytes(range(200))


def test_not_for_other_backends(dev: usb.core.Device) -> None:
    wrapper = PcapBackendWrapper(dev.backend, io.BytesIO())
    with wrapper, pytest.raises(TypeError, match="get_backend"):
        AsynchronousDevice(usb.core.find(backend=wrapper))


def test_sixteen_threads_lose_no_wake_up(dev: usb.core.Device) -> None:
    """Short, with all that can go wrong: time-outs, futures, control transfers of many threads."""
    dev.get_active_configuration()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(200):
                assert len(dev.ctrl_transfer(0x80, 6, 0x0100, 0, 8 + number % 8, 20_000)) == 8 + number % 8
                if number % 8 == 0:
                    with pytest.raises(usb.core.USBTimeoutError):
                        dev.read(BULK_IN, 8, 1)
        except BaseException as error:  # noqa: BLE001  raised by the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)


class TestAsyncio:
    """The adapter."""

    def test_calls(self, dev: usb.core.Device) -> None:
        async def main() -> None:
            device = AsyncioDevice(dev)
            reading = asyncio.create_task(device.read(BULK_IN, 64))
            assert await device.write(BULK_OUT, b"hello") == 5
            assert await reading == b"hello"
            assert len(await device.control(0x80, 6, 0x0100, 0, 18)) == 18
            with pytest.raises(usb.core.USBTimeoutError):
                await device.read(BULK_IN, 64, timeout=10)
            device.close()

        asyncio.run(main())

    def test_a_cancelled_task_takes_its_transfer_back(self, dev: usb.core.Device, server: LoopbackServer) -> None:
        async def main() -> None:
            device = AsyncioDevice(dev)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(device.read(BULK_IN, 64), 0.05)
            device.close()

        asyncio.run(main())
        wait_until("it is unlinked", lambda: not server.devices[-1].waits_for_data(BULK_IN))

    def test_stream(self, dev: usb.core.Device, server: LoopbackServer) -> None:
        async def main() -> list[bytes]:
            device = AsyncioDevice(dev)
            got: list[bytes] = []
            stream: Any = device.stream(BULK_IN, 64, depth=3)
            for number in range(10):
                await device.write(BULK_OUT, b"%d" % number)
            async for data in stream:
                got.append(data)
                if len(got) == 10:
                    break
            await stream.aclose()
            device.close()
            return got

        assert asyncio.run(main()) == [b"%d" % number for number in range(10)]
        wait_until("all are unlinked", lambda: not server.devices[-1].waits_for_data(BULK_IN))

    def test_isochronous(self, dev: usb.core.Device) -> None:
        dev.set_interface_altsetting(3, 1)

        async def main() -> list[bytes]:
            device = AsyncioDevice(dev)
            await device.write(ISO_OUT, bytes(range(100)))
            packets = await device.iso_read(ISO_IN, 192)
            device.close()
            return [data for _, data in packets]

        assert asyncio.run(main()) == [bytes(range(64)), bytes(range(64, 100)), b""]
