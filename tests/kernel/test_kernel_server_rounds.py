"""Attached and detached, plugged in and out, again and again: nothing is left in our server, nor in the client."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import pytest

from tests.kernel.lending import TIMEOUT, Lending
from tests.kernel.rig import PythonGuest
from usbip_capture.devices.remote import import_device
from usbip_capture.net.connecting import connect
from usbip_capture.net.transport import SocketTransport
from usbip_capture.usb.setup import get_descriptor, port_reset
from usbip_capture.usb.urb import Urb

pytestmark = pytest.mark.kernel

GROWTH_KIB = 2048  # what Python's memory may grow by without a leak: less than 2.5 KiB in each of 900 rounds
WARM = 1  # rounds after which what is kept is there


@dataclass(frozen=True)
class Resources:
    files: int
    threads: int
    memory_kib: int

    @classmethod
    def of(cls, lending: Lending) -> Resources:
        process = f"/proc/{lending.program.pid}"
        # A thread or a file that ends meanwhile is a complaint of ls.
        count = "ls {}/{} 2>/dev/null | wc -l"
        counts = f"{count.format(process, 'fd')}; {count.format(process, 'task')}"
        listed = lending.guest.run(f"{counts}; grep VmRSS {process}/status")
        files, threads, _, memory, _ = listed.text.split()
        return cls(int(files), int(threads), int(memory))


def rounds(lending: Lending, count: int, one: Callable[[], None]) -> None:
    """Do `one` so often, and look at what the server has after some rounds and after all."""
    for _ in range(WARM):
        one()
    warm = Resources.of(lending)
    for _ in range(count):
        one()

    def as_before() -> bool:
        now = Resources.of(lending)
        return now.files <= warm.files and now.threads <= warm.threads

    lending.guest.wait_until(as_before, TIMEOUT)  # what is just ending may have an end
    assert Resources.of(lending).memory_kib < warm.memory_kib + GROWTH_KIB


LONG = pytest.mark.long


@pytest.mark.parametrize("count", [5, pytest.param(1000, marks=LONG)])
def test_attached_by_our_client(lending: Lending, count: int) -> None:
    busid = lending.lend("serial", driver="ftdi_sio")

    def one() -> None:
        sock = SocketTransport(connect("127.0.0.1", lending.port, TIMEOUT), "the guest")
        with closing(import_device(sock, busid, TIMEOUT)) as device:
            assert device.run(Urb.control(get_descriptor(1, 0, 0, 18).pack()), TIMEOUT).actual_length == 18
        lending.wait_available(busid)

    rounds(lending, count, one)
    lending.wait_driver(busid, "ftdi_sio")


@pytest.mark.parametrize("count", [12, pytest.param(200, marks=LONG)])
def test_reset_while_it_is_attached(lending: Lending, count: int) -> None:
    """Linux has no address for a device meanwhile, which each look at what is plugged in may meet."""
    busid = lending.lend("serial", driver="ftdi_sio")
    sock = SocketTransport(connect("127.0.0.1", lending.port, TIMEOUT), "the guest")
    with closing(import_device(sock, busid, TIMEOUT)) as device:

        def one() -> None:
            assert device.run(Urb.control(port_reset(1).pack()), TIMEOUT).status == 0
            assert device.run(Urb.control(get_descriptor(1, 0, 0, 18).pack()), TIMEOUT).actual_length == 18

        rounds(lending, count, one)
    lending.wait_available(busid)
    lending.wait_driver(busid, "ftdi_sio")


@pytest.mark.parametrize("count", [1, pytest.param(50, marks=LONG)])
def test_attached_by_a_kernel(lending: Lending, borrower: PythonGuest, count: int) -> None:
    busid = lending.lend("serial", driver="ftdi_sio")
    borrower.run("dmesg -c >/dev/null")

    def one() -> None:
        local = borrower.attach(lending.port, busid)
        borrower.run("until [ -c /dev/ttyUSB0 ]; do usleep 20000; done", timeout=TIMEOUT)
        borrower.detach(local)
        lending.wait_available(busid)

    rounds(lending, count, one)
    assert borrower.run("dmesg -r | grep '^<[0-3]>' | grep -v 'speed not set'; true").text == ""


@pytest.mark.parametrize("count", [2, pytest.param(100, marks=LONG)])
def test_plugged_in_and_out(lending: Lending, count: int) -> None:
    def one() -> None:
        busid = lending.lend("serial")
        lending.unplug(busid)

    rounds(lending, count, one)
