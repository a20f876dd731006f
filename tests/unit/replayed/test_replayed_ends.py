"""Unplugging and resets: in a recording, and in what a host asks of one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.builders.asked_again import asked_again, urb_of
from tests.builders.capture_files import GOLDEN, Shown, classic, packets_of
from tests.waiting import wait_until
from usbip_capture.device import Transfer
from usbip_capture.recordings.link_types import USB_LINUX_MMAPPED
from usbip_capture.replayed.device import ReplayedDevice
from usbip_capture.replayed.recording import Recording, read_recordings
from usbip_capture.usb.setup import port_reset
from usbip_capture.usb.status import GONE
from usbip_capture.usb.urb import Completion, TransferType, Urb

TIMEOUT = 30.0


def run(device: ReplayedDevice, urb: Urb) -> Completion:
    transfer = Transfer(urb)
    device.submit(transfer)
    assert device.wait(transfer, TIMEOUT)
    assert transfer.completion is not None
    return transfer.completion


def unplugged() -> Recording:
    """A disk that a real kernel had, pulled out while it waited for the status of a command."""
    (found,) = read_recordings(GOLDEN / "unplug/client-usbmon.pcap")
    return found


@pytest.mark.parametrize("speed", [0, 1000])
def test_it_is_unplugged_where_it_was(speed: float) -> None:
    recording = unplugged()
    (last,) = [one for one in recording.exchanges if one.status in GONE]
    device = ReplayedDevice(recording, speed=speed)
    lost: list[str] = []
    device.watch(lost.append)
    try:
        asked_again(recording, device)
        assert device.alive
        assert run(device, urb_of(last)).status == -errno.ESHUTDOWN
        wait_until("it is reported", lambda: lost)
        assert "was unplugged" in lost[0]
        assert not device.alive
        assert not device.outcome.divergences
    finally:
        device.close()


def test_what_a_system_flushes_is_not_its_end(tmp_path: Path) -> None:
    """As when it sets an interface: the same status, and the session goes on."""
    packets = packets_of("serial")
    ends = [at for at, packet in enumerate(packets) if packet.data[8:10] == b"C\x03" and packet.data[10] & 0x80]
    data = packets[ends[0]].data
    flushed = data[:28] + (-108).to_bytes(4, "little", signed=True) + bytes(8) + data[40:64]
    packets[ends[0]] = Shown(packets[ends[0]].timestamp_ns, flushed)
    path = tmp_path / "session.pcap"
    path.write_bytes(classic(packets, USB_LINUX_MMAPPED))
    (recording,) = read_recordings(path)
    device = ReplayedDevice(recording, speed=0)
    try:
        for exchange, completion in asked_again(recording, device):
            assert completion.status == exchange.status, exchange
        assert device.alive
    finally:
        device.close()


@pytest.mark.parametrize("match", ["strict", "loose"])
def test_a_reset_that_is_not_recorded_is_no_divergence(match: str) -> None:
    """A system or libusb resets by itself: what is asked afterwards is answered."""
    (recording,) = read_recordings(GOLDEN / "serial/server-usbmon.pcap")
    device = ReplayedDevice(recording, match=match, speed=0)
    try:
        assert run(device, Urb.control(port_reset(1).pack())).status == 0
        for exchange, completion in asked_again(recording, device):
            assert completion.status == exchange.status, exchange
        assert not device.outcome.divergences
        assert not device.unused
    finally:
        device.close()


def test_a_reset_ends_halts() -> None:
    (recording,) = read_recordings(GOLDEN / "serial/server-usbmon.pcap")
    device = ReplayedDevice(recording, speed=0)
    try:
        run(device, Urb.control(bytes([0, 9, 1, 0, 0, 0, 0, 0])))
        assert run(device, Urb(TransferType.BULK, 0x02, 4, b"what")).status == -errno.EPIPE
        assert run(device, Urb.control(port_reset(1).pack())).status == 0
        status = run(device, Urb.control(bytes([0x82, 0, 0, 0, 0x02, 0, 2, 0])))
        assert bytes(status.data) == bytes(2)
    finally:
        device.close()
