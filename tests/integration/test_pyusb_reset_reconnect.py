"""A device that is reset, lost, flashed, released: through PyUSB."""

from __future__ import annotations

import errno
import threading
from dataclasses import replace

import pytest
import usb.core
import usb.util

from tests.fakes.loopback_device import LoopbackDevice, loopback_server
from tests.waiting import wait_until
from usbip_capture import get_backend
from usbip_capture.demo.device import BULK_IN, BULK_OUT
from usbip_capture.device import Transfer
from usbip_capture.errors import LocalProtocolError
from usbip_capture.servers.address import ServerAddress


def test_reset_by_the_server_keeps_the_settings() -> None:
    def prepare(device: LoopbackDevice) -> None:
        device.resets = 0

    with loopback_server(prepare) as server, get_backend("127.0.0.1", server.port) as backend:
        dev = usb.core.find(backend=backend)
        dev.set_interface_altsetting(3, 1)
        handle = dev._ctx.managed_open()
        backend.reset_device(handle)
        (device,) = server.devices
        assert device.resets == 1
        assert device.requests[-1] == (1, 11, 1, 3, 0)
        dev.reset()
        assert dev.write(BULK_OUT, b"x") == 1
        assert len(server.devices) == 1


def test_transfers_of_other_threads_wait_for_the_end_of_a_reset() -> None:
    found: list[object] = []
    others: list[threading.Thread] = []

    with loopback_server() as server, get_backend("127.0.0.1", server.port) as backend:
        dev = usb.core.find(backend=backend)
        unit = dev._ctx.managed_open().unit

        def meanwhile(device: LoopbackDevice) -> None:
            """It is being imported again, and asked for its descriptors: its endpoints are not known yet."""
            usual = device.submit

            def submit(transfer: Transfer) -> None:
                if not others and not list(unit.endpoints):
                    others.append(threading.Thread(target=lambda: found.append(unit.endpoint(BULK_IN).address)))
                    others[0].start()
                    others[0].join(0.1)
                usual(transfer)

            device.submit = submit  # type: ignore[method-assign]

        server.prepare = meanwhile
        backend.reset_device(dev._ctx.managed_open())
        others[0].join(10)
    assert found == [BULK_IN]


def test_reset_by_importing_anew() -> None:
    with loopback_server() as server, get_backend("127.0.0.1", server.port) as backend:
        dev = usb.core.find(backend=backend)
        dev.get_active_configuration()
        dev.reset()
        assert len(server.devices) == 2
        assert not server.devices[0].alive
        assert dev.write(BULK_OUT, b"x") == 1
        assert bytes(dev.read(BULK_IN, 8)) == b"x"


def test_reset_into_another_device_is_not_found() -> None:
    with loopback_server() as server, get_backend("127.0.0.1", server.port) as backend:
        dev = usb.core.find(backend=backend)
        dev.get_active_configuration()

        # What the device is from its next import on.
        raw = server.descriptors.device
        server.descriptors = replace(server.descriptors, device=raw[:12] + b"\x02\x02" + raw[14:])
        with pytest.raises(usb.core.USBError, match="other descriptors") as caught:
            dev.reset()
        assert caught.value.errno == errno.ENOENT


def test_a_lost_device_stays_lost_without_reconnect() -> None:
    with loopback_server() as server, get_backend("127.0.0.1", server.port) as backend:
        dev = usb.core.find(backend=backend)
        dev.write(BULK_OUT, b"x")
        server.devices[-1].unplug()
        for _ in range(2):
            with pytest.raises(usb.core.USBError) as caught:
                dev.write(BULK_OUT, b"x")
            assert caught.value.errno == errno.ENODEV
        # As with libusb: who looks for it finds it.
        again = wait_until("it is listed", lambda: usb.core.find(backend=backend))
        assert again.write(BULK_OUT, b"x") == 1


def test_reconnect_brings_it_back_with_its_settings() -> None:
    with loopback_server() as server, get_backend("127.0.0.1", server.port, reconnect=10) as backend:
        dev = usb.core.find(backend=backend)
        dev.set_interface_altsetting(3, 1)
        server.devices[-1].unplug()
        wait_until("the loss is noticed", lambda: not dev._ctx.handle.unit.device.alive or _fails(dev))
        assert dev.write(0x05, bytes(64)) == 64
        assert len(server.devices) == 2
        assert (1, 11, 1, 3, 0) in server.devices[-1].requests


def _fails(dev: usb.core.Device) -> bool:
    """Using it finds out that it is gone."""
    try:
        dev.ctrl_transfer(0x80, 0, 0, 0, 2, 1000)
    except usb.core.USBError as error:
        return error.errno == errno.ENODEV
    return False


def test_reconnect_fails_what_is_under_way_and_waits_for_the_device() -> None:
    with loopback_server() as server, get_backend("127.0.0.1", server.port, reconnect=10) as backend:
        dev = usb.core.find(backend=backend)
        dev.write(BULK_OUT, b"x")
        dev.read(BULK_IN, 8)
        failed: list[int | None] = []

        def wait() -> None:
            with pytest.raises(usb.core.USBError) as caught:
                dev.read(BULK_IN, 8, 0)
            failed.append(caught.value.errno)

        thread = threading.Thread(target=wait)
        thread.start()
        wait_until("it reads", lambda: server.devices[-1].waits_for_data(BULK_IN))
        server.server.remove("1-1")
        thread.join(20)
        assert failed == [errno.ENODEV]
        timer = threading.Timer(0.3, server.export)
        timer.start()
        assert dev.write(BULK_OUT, b"back") == 4
        timer.join()


def test_reconnect_follows_a_device_that_changes_its_product_while_flashed() -> None:
    with loopback_server() as server, get_backend("127.0.0.1", server.port, reconnect=10) as backend:
        dev = usb.core.find(backend=backend, idProduct=0x0001)
        dev.write(BULK_OUT, b"x")
        server.become(0xDF11)
        wait_until("the loss is noticed", lambda: not dev._ctx.handle.unit.device.alive or _fails(dev))
        assert dev.write(BULK_OUT, b"x") == 1  # at the same place, whatever it is now
        raw = bytes(dev.ctrl_transfer(0x80, 6, 0x0100, 0, 18))
        assert raw[10:12] == b"\x11\xdf"


def test_a_flashed_device_is_found_as_what_it_is_now() -> None:
    with loopback_server() as server, get_backend("127.0.0.1", server.port) as backend:
        old = usb.core.find(backend=backend, idProduct=0x0001)
        old.write(BULK_OUT, b"x")
        server.become(0xDF11)
        wait_until("the loss is noticed", lambda: not old._ctx.handle.unit.device.alive or _fails(old))
        new = wait_until("it is listed", lambda: usb.core.find(backend=backend, idProduct=0xDF11))
        assert new.write(BULK_OUT, b"x") == 1


def test_a_closed_backend_brings_nothing_back() -> None:
    with loopback_server() as server:
        backend = get_backend("127.0.0.1", server.port, reconnect=10)
        dev = usb.core.find(backend=backend)
        dev.write(BULK_OUT, b"x")
        backend.close()
        for _ in range(2):
            with pytest.raises(usb.core.USBError, match=r"1-1 .* was released when its backend was closed") as caught:
                dev.write(BULK_OUT, b"x")
            assert caught.value.errno == errno.ENODEV
        assert len(server.devices) == 1


def test_the_cause_of_a_loss_is_reported() -> None:
    with loopback_server() as server, get_backend("127.0.0.1", server.port) as backend:
        dev = usb.core.find(backend=backend)
        dev.get_active_configuration()
        server.server.close()
        with pytest.raises(usb.core.USBError, match=r"0x84 of device 1-1 .*: .*127\.0\.0\.1:\d+ ") as caught:
            dev.read(BULK_IN, 64, 0)
        assert caught.value.backend_error_code == -4


def test_reconnect_gives_up_in_time() -> None:
    with loopback_server() as server, get_backend("127.0.0.1", server.port, reconnect=0.2) as backend:
        dev = usb.core.find(backend=backend)
        dev.write(BULK_OUT, b"x")
        server.server.remove("1-1")
        wait_until("the loss is noticed", lambda: not dev._ctx.handle.unit.device.alive or _fails(dev))
        with pytest.raises(usb.core.USBError, match="could not be imported again") as caught:
            dev.write(BULK_OUT, b"x")
        assert caught.value.errno == errno.ENODEV
    with pytest.raises(LocalProtocolError):
        get_backend("127.0.0.1", reconnect=-1)


def test_what_was_released_is_found_again_as_soon_as_it_is_there() -> None:
    with loopback_server() as server, get_backend("127.0.0.1", server.port) as backend:
        dev = usb.core.find(backend=backend)
        dev.write(BULK_OUT, b"x")
        del dev
        server.server.remove("1-1")  # on Linux it is missing for half a second
        timer = threading.Timer(0.3, server.export)
        timer.start()
        assert usb.core.find(backend=backend) is not None
        timer.join()


def test_several_servers_in_one_process() -> None:
    with loopback_server() as one, loopback_server() as two:
        with get_backend("127.0.0.1", one.port) as first, get_backend(f"localhost:{two.port}") as second:
            for backend in (first, second):
                assert usb.core.find(backend=backend).write(BULK_OUT, b"x") == 1
        assert (len(one.devices), len(two.devices)) == (1, 1)


def test_ipv6() -> None:
    with loopback_server() as server:
        try:
            _, port = server.server.listen("::1", 0)
        except Exception:  # noqa: BLE001  without IPv6
            pytest.skip("this machine has no IPv6")
        for host in ("::1", f"[::1]:{port}"):
            with get_backend(host, port) as backend:
                assert usb.core.find(backend=backend).write(BULK_OUT, b"x") == 1
        wait_until("it is free again", ServerAddress.parse("::1", port).devices)
