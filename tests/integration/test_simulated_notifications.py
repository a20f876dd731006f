"""Interrupt messages longer than a packet: as many packets as they need, never babble to a host that takes packets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes.serial_host import SerialHost
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.simulated.serial.acm import acm
from usbip_capture.simulated.serial.line import Loopback
from usbip_capture.uart.settings import ModemLines
from usbip_capture.usb.setup import Setup
from usbip_capture.usb.status import EOVERFLOW
from usbip_capture.usb.urb import TransferType, Urb

NOTIFICATION = bytes.fromhex("a1 20 0000 0000 0200 0300")


def port(packet: int) -> SimulatedDevice:
    """A CDC-ACM port whose notification endpoint has packets of such a size, configured."""
    adapter = acm(Loopback())
    (raw,) = adapter.descriptors.configurations
    raw = raw.replace(bytes.fromhex("07 05 81 03 4000"), bytes([7, 5, 0x81, 3, packet, 0]))
    device = adapter.kind(adapter.info, replace(adapter.descriptors, configurations=[raw]), adapter.peers)
    device.run(Urb.control(Setup(0, 9, 1, 0, 0).pack()))
    return device


@pytest.mark.parametrize(("packet", "pieces"), [(8, [8, 2]), (4, [4, 4, 2]), (1, [1] * 10), (10, [10]), (64, [10])])
def test_a_serial_state_comes_in_packets(packet: int, pieces: list[int]) -> None:
    device = port(packet)
    device.run(Urb.control(Setup(0x21, 0x22, 3, 0, 0).pack()))
    done = [device.run(Urb(TransferType.INTERRUPT, 0x81, packet)) for _ in pieces]
    device.close()
    assert [each.status for each in done] == [0] * len(pieces)
    assert [each.actual_length for each in done] == pieces
    assert b"".join(bytes(each.data) for each in done) == NOTIFICATION


@pytest.mark.parametrize("length", [16, 64])
def test_a_longer_transfer_takes_all_of_it(length: int) -> None:
    device = port(8)
    device.run(Urb.control(Setup(0x21, 0x22, 3, 0, 0).pack()))
    done = device.run(Urb(TransferType.INTERRUPT, 0x81, length))
    device.close()
    assert (done.status, bytes(done.data)) == (0, NOTIFICATION)


def test_a_transfer_that_ends_within_a_packet_is_babble() -> None:
    device = port(8)
    device.run(Urb.control(Setup(0x21, 0x22, 3, 0, 0).pack()))
    done = device.run(Urb(TransferType.INTERRUPT, 0x81, 5))
    device.close()
    assert (done.status, done.actual_length) == (-EOVERFLOW, 5)


@pytest.mark.parametrize("packet", [8, 10, 16])
def test_modem_lines_are_known_to_a_host(packet: int) -> None:
    device = port(packet)
    host = SerialHost(device)
    for _ in range(-(-len(NOTIFICATION) // packet)):
        host.notice()
    device.close()
    assert host.driver.lines == ModemLines(cts=True, dsr=True, cd=True)
