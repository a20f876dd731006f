"""Who handles the events of libusb while a client is waited for: the connection's own thread, one of all of them."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from types import SimpleNamespace

import pytest

from tests.builders.local_usb import LocalUsb, local_usb
from tests.waiting import wait_until
from usbip_capture.device import Around, Device, Transfer
from usbip_capture.devices.libusb.events import ClientWaiter, EventHandling
from usbip_capture.devices.remote import RemoteDevice, import_device
from usbip_capture.net.connecting import connect
from usbip_capture.net.transport import SocketTransport
from usbip_capture.server import Server
from usbip_capture.usb.setup import get_descriptor
from usbip_capture.usb.urb import Completion, Urb

REQUEST = Urb.control(get_descriptor(1, 0, 0, 18).pack())
TIMEOUT = 20.0
CONNECTION, EVENTS = "usbip-connection", "libusb-events"


class Watched(Around):
    """Keeps on which threads transfers finish."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.threads: list[str] = []

    def submit(self, transfer: Transfer) -> None:
        transfer.intercept(self._seen)
        super().submit(transfer)

    def _seen(self, completion: Completion) -> None:
        self.threads.append(threading.current_thread().name)


@contextmanager
def served(usb: LocalUsb) -> Iterator[tuple[Watched, RemoteDevice, Server]]:
    """The device of `usb`, as a client has it."""
    with closing(Server()) as server:
        device = Watched(usb.open())
        server.add(device.info, lambda: device)
        place = server.listen("127.0.0.1", 0)
        client = import_device(SocketTransport(connect(*place, TIMEOUT), "the server"), device.info.busid, TIMEOUT)
        with closing(client):
            yield device, client, server


def asked(client: Device) -> bool:
    """Whether it has answered with its descriptor."""
    return bytes(client.run(REQUEST, TIMEOUT).data[:2]) == b"\x12\x01"


def test_the_thread_that_waits_for_the_client_handles_events() -> None:
    with local_usb() as usb, served(usb) as (device, client, _):
        device.threads.clear()
        for _ in range(5):
            assert asked(client)
        assert device.threads == [CONNECTION] * 5


def test_the_thread_for_events_handles_them_again_when_the_client_has_left() -> None:
    with local_usb() as usb:
        with served(usb) as (_, client, _):
            assert asked(client)
        with served(usb) as (device, client, _):
            device.threads.clear()
            client.close()
            wait_until("the device is released", lambda: not device.alive)
        other = Watched(usb.open())
        assert asked(other)
        assert other.threads == [EVENTS]


def test_one_waits_at_a_time() -> None:
    with local_usb() as usb, served(usb) as (_, client, _):
        assert asked(client)
        assert usb.libusb.answers(TIMEOUT)  # the one that waits answers for all
        assert usb.libusb._events.waiter(0) is None


def test_what_is_opened_and_closed_meanwhile_is_waited_for_from_then_on() -> None:
    with local_usb() as usb, served(usb) as (_, client, _):
        asked_for = 0
        listed = usb.context.getPollFDList

        def counted() -> list[tuple[int, int]]:
            nonlocal asked_for
            asked_for += 1
            return listed()

        usb.context.getPollFDList = counted  # type: ignore[method-assign]
        assert asked(client)
        opened = usb.libusb.open(usb.libusb.devices()[0])
        wait_until("the list is read again", lambda: asked_for == 1)
        opened.close()
        wait_until("and once more", lambda: asked_for == 2)
        assert asked(client)


class Entered(threading.Condition):
    """Counts who wants to have it."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted = 0

    def __enter__(self) -> bool:
        self.wanted += 1
        return super().__enter__()


def test_two_that_begin_to_wait_at_the_same_time() -> None:
    changed = Entered()

    class Slow:
        def getPollFDList(self) -> list[tuple[int, int]]:
            wait_until("the other one begins", lambda: changed.wanted == 2)
            return []

        def interruptEventHandler(self) -> None:
            events._is_parked = True

        handleEvents = handleEventsTimeout = interruptEventHandler

    events = EventHandling(SimpleNamespace(), Slow())
    events._changed, events._runner = changed, threading.current_thread()
    with ThreadPoolExecutor(2) as pool:
        found = [begun.result(TIMEOUT) for begun in [pool.submit(events.waiter, 0) for _ in range(2)]]
    assert sorted(waiter is None for waiter in found) == [False, True]


class Asking(Around):
    """Asks the device itself, on the thread of the connection, before it passes a request on."""

    found: Completion | None = None

    def submit(self, transfer: Transfer) -> None:
        if self.found is None:
            self.found = self._device.run(REQUEST, TIMEOUT)
        super().submit(transfer)


def test_the_thread_that_waits_for_its_client_may_wait_for_the_device() -> None:
    with local_usb() as usb, served(usb) as (device, client, _):
        device._device = asking = Asking(device._device)
        for _ in range(3):
            assert asked(client)
        assert asking.found is not None
        assert not asking.found.status


def test_no_thread_is_taken_for_the_one_that_handles_events_after_a_failure() -> None:
    events = EventHandling(
        SimpleNamespace(USBErrorInterrupted=KeyError, USBError=KeyError),
        SimpleNamespace(handleEvents=list, handleEventsTimeout=list),
    )

    def fails() -> None:
        raise ValueError("not an error of libusb")

    with pytest.raises(ValueError, match="of libusb"):
        events.handle(fails)
    assert not events.is_mine


class Unplugged:
    """A context: the descriptor of a device that is gone is reported until it is taken off the list."""

    def __init__(self, gone: int, event: socket.socket, client: socket.socket) -> None:
        self.listed = [gone, event.fileno()]
        self.calls = 0
        self._event, self._client = event, client

    def getPollFDList(self) -> list[tuple[int, int]]:
        return [(fileno, select.POLLIN) for fileno in self.listed]

    def handleEvents(self) -> None:
        raise AssertionError("this thread waits for a client")

    def handleEventsTimeout(self, tv: float) -> None:
        self.calls += 1
        assert self.calls < 10, "what is not listed any more is still waited for"
        if len(self.listed) == 2:
            del self.listed[0]
        else:
            self._event.recv(1)
            self._client.send(b"a request")


def test_a_device_that_is_gone_does_not_keep_it_awake() -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    with ExitStack() as stack:
        (gone, other), (event, source), (client, peer) = pairs
        for sock in (gone, other, event, source, client, peer):
            stack.enter_context(sock)
        other.close()
        source.send(b"x")
        event.setblocking(False)
        context = Unplugged(gone.fileno(), event, peer)
        events = EventHandling(SimpleNamespace(USBErrorInterrupted=KeyError, USBError=KeyError), context)
        waiter = ClientWaiter(events, context, client.fileno())
        assert waiter.renewed()
        events._waiter = waiter
        assert waiter.wait()
        assert context.calls == 2


def test_libusb_ends_while_a_client_is_waited_for() -> None:
    with local_usb() as usb, served(usb) as (_, client, _):
        assert asked(client)
        usb.libusb.close()
        assert not usb.context.is_open


def test_where_libusb_shows_no_descriptors_the_thread_for_events_handles_them() -> None:
    with local_usb() as usb:

        def refused() -> list[tuple[int, int]]:
            raise NotImplementedError

        usb.context.getPollFDList = refused  # type: ignore[method-assign]
        with served(usb) as (device, client, _):
            device.threads.clear()
            assert asked(client)
            assert device.threads == [EVENTS]
