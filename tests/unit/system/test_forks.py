"""A process that is forked at any moment: no lock that another thread has held is waited for in the child."""

from __future__ import annotations

import io
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.fakes.simulated_usb1 import SimulatedUsb1
from tests.waiting import wait_until
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.collector.receiver import SyslogReceiver
from usbip_capture.devices.libusb.binding import Libusb
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.net.listening import Acceptor, listen
from usbip_capture.system.timetable import Timetable


def acceptor() -> tuple[object, Callable[[], None]]:
    made = Acceptor(listen("127.0.0.1", 0), lambda sock, peer: sock.close(), "test")
    return made, made.close


def bus() -> tuple[object, Callable[[], None]]:
    libusb = Libusb(SimulatedUsb1())
    made = LocalBus(libusb, "/there/is/no/sysfs")
    made.watch(lambda: None)

    def close() -> None:
        made.close()
        libusb.close()

    return made, close


def recorder() -> tuple[object, Callable[[], None]]:
    made = PcapWriter(io.BytesIO())
    return made._recorder, made.close


def collector() -> tuple[object, Callable[[], None]]:
    made = SyslogReceiver(listen="127.0.0.1:0")
    made.start()
    return made._collector, made.stop


def timetable() -> tuple[object, Callable[[], None]]:
    made = Timetable("test")
    made.after(3600, lambda: None)
    return made, made.close


def locks_of(thing: Any) -> list[Any]:
    """Those that it has, and those within its events and conditions, each once."""
    found = {}
    for value in vars(thing).values():
        if isinstance(value, threading.Event):
            value = value._cond  # type: ignore[attr-defined]
        if isinstance(value, threading.Condition):
            value = value._lock  # type: ignore[attr-defined]
        if isinstance(value, (type(threading.Lock()), type(threading.RLock()))):
            found[id(value)] = value
    return list(found.values())


@contextmanager
def held(locks: list[Any]) -> Iterator[None]:
    """By another thread."""
    ready, over = threading.Event(), threading.Event()

    def hold() -> None:
        for lock in locks:
            lock.acquire()
        ready.set()
        over.wait()
        for lock in locks:
            lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("make", [acceptor, bus, recorder, collector, timetable])
def test_a_child_waits_for_no_lock_of_its_parent(make: Callable[[], tuple[object, Callable[[], None]]]) -> None:
    thing, close = make()
    try:
        locks = locks_of(thing)
        assert locks
        with held(locks), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that threads are running is what is tested
            child = os.fork()
            if not child:
                os._exit(0)
            try:
                wait_until("the child ends", lambda: os.waitpid(child, os.WNOHANG)[0], 30)
            except AssertionError:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise
    finally:
        close()
