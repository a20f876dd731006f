"""What other servers were seen to do wrong, each with what is right: our server, on libusb, which is simulated.

[E] was seen in usbip-esp32p4 a6e0459, [P] in pyusbip 439c494.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.raw_client import RawClient, Reply
from tests.fakes.simulated_usb1 import SimulatedUsb1, USBDevice
from tests.oracles.pcapng_reader import read_capture
from tests.waiting import wait_until
from usbip_capture.demo.device import (
    BULK_IN,
    BULK_OUT,
    CDC_OUT,
    DESCRIPTORS,
    INFO,
    ISO_IN,
    ISO_OUT,
    KEYS_IN,
    DemoDevice,
)  # fmt: skip
from usbip_capture.device import Transfer
from usbip_capture.devices.libusb.binding import Libusb
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.devices.libusb.device import LibusbDevice
from usbip_capture.server.connection import Connection
from usbip_capture.server.session import Session
from usbip_capture.serving.local_server import LocalServer, serve
from usbip_capture.usb.info import Speed
from usbip_capture.usb.status import ECONNRESET, EOVERFLOW, EPERM, EPIPE, EREMOTEIO, ESHUTDOWN
from usbip_capture.usb.urb import SHORT_NOT_OK, Completion
from usbip_capture.wire.structs import USBIP_RET_SUBMIT, USBIP_RET_UNLINK, OpStatus

GET_DEVICE, SET_CONFIGURATION = "8006000100001200", "0009010000000000"
LOOPBACK, ISOCHRONOUS = "010b000003000000", "010b010003000000"  # SET_INTERFACE of interface 3
DEVICE = DESCRIPTORS.device


class Rack:
    """A server with simulated devices at 1-1 and 1-2, and its clients."""

    def __init__(self, pcap: Path) -> None:
        self.usb1 = SimulatedUsb1()
        self.stack = ExitStack()
        self.stack.callback(self.usb1.close)
        self.plugged: dict[str, USBDevice] = {}
        self.pcap = pcap
        for port in (1, 2):
            self.plug(port)
        libusb = Libusb(self.usb1)
        self.stack.callback(libusb.close)
        bus = LocalBus(libusb, "/there/is/no/sysfs")
        self.stack.callback(bus.close)
        self.server: LocalServer = serve(["all"], listen="127.0.0.1:0", pcap=pcap, bus=bus)
        self.stack.callback(self.server.close)

    def plug(self, port: int, devnum: int = 0, speed: Speed = Speed.HIGH) -> USBDevice:
        info = replace(INFO, busid=f"1-{port}", devnum=devnum or port + 2, speed=speed)
        self.plugged[f"1-{port}"] = made = self.usb1.plug(DemoDevice(info), (port,))
        return made

    def client(self, busid: str = "1-1", version: int = 0x0111) -> RawClient:
        client = RawClient(self.server.addresses[0], busid, version)
        self.stack.callback(client.close)
        return client

    def wait_free(self) -> None:
        wait_until("the devices are free", lambda: not [c for c in self.server.clients if c.busid])


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    made = Rack(tmp_path / "sessions.pcapng")
    yield made
    made.stack.close()


def test_an_import_leaves_the_pending_urbs_of_another_session_alone(rack: Rack) -> None:
    """[E] The table of pending URBs was one for all, and emptied at each import."""
    first = rack.client("1-1")
    pending = first.submit(BULK_IN, 8)
    second = rack.client("1-2")
    assert second.ask(GET_DEVICE).data == DEVICE
    first.submit(BULK_OUT, data=b"my bytes")
    replies = {reply.seqnum: reply for reply in (first.reply(), first.reply())}
    assert replies[pending].data == b"my bytes"


def test_a_list_does_not_free_the_device_of_its_host(rack: Rack) -> None:
    """[E] The end of any connection freed all devices of its address, so that one device had two clients. [P] None
    was ever in use."""
    client = rack.client()
    for _ in range(3):
        with rack.client() as other:
            assert other.status == OpStatus.DEV_BUSY
            assert other.is_at_end()
    assert client.ask(GET_DEVICE).data == DEVICE


def test_who_is_disconnected_is_disconnected(rack: Rack) -> None:
    """[E] The device was marked as free, while its client went on using it."""
    client = rack.client()
    assert rack.server.disconnect("1-1")
    assert client.is_at_end()
    rack.wait_free()
    assert rack.client().ask(GET_DEVICE).data == DEVICE


def test_a_port_reset_is_done(rack: Rack) -> None:
    """[E] A reset was always refused; [P] it was sent to the device as a request."""
    client = rack.client()
    assert client.ask("2303040001000000").status == 0
    assert ("reset",) in rack.usb1.calls
    assert client.ask(GET_DEVICE).data == DEVICE


def test_the_reply_to_an_import_is_one_and_after_the_claim(rack: Rack) -> None:
    """[E] Success was reported before the device was claimed, and a second reply followed when that failed."""
    rack.plugged["1-1"].open_error = "Busy"
    client = rack.client()
    assert client.status == OpStatus.DEV_ERR
    assert client.is_at_end()
    rack.plugged["1-1"].open_error = ""
    with rack.client() as client:
        claimed = [call[1] for call in rack.usb1.calls if call[0] == "claim"]
        assert (client.status, claimed) == (0, [0, 1, 2, 3])


def test_an_interface_that_cannot_be_claimed_is_refused_alone(rack: Rack) -> None:
    """[E] Errors of claims were ignored; [P] one of them cost the device."""
    rack.plugged["1-1"].holders[2] = "another program"
    client = rack.client()
    client.submit(KEYS_IN, 8, interval=4)
    assert client.reply().status == -EPERM
    client.submit(CDC_OUT, data=b"hello")
    assert client.reply().status == 0
    assert client.ask(GET_DEVICE).data == DEVICE


def test_a_long_transfer_arrives_whole_and_the_next_one_in_step(rack: Rack) -> None:
    """[E] OUT data above 16 KiB was cut, and the rest read as the next header."""
    client = rack.client()
    sent = bytes(range(256)) * 1024
    client.submit(BULK_OUT, data=sent)
    reply = client.reply()
    assert (reply.status, reply.actual_length) == (0, len(sent))
    client.submit(BULK_IN, len(sent))
    assert client.reply().data == sent
    assert client.ask(GET_DEVICE).data == DEVICE


def test_an_in_transfer_has_no_more_than_was_asked_for(rack: Rack) -> None:
    """[E] A device that sends more than it was asked for had all of it sent on, and Linux then ends the session."""
    client = rack.client()
    client.submit(BULK_OUT, data=bytes(64))
    assert client.reply().status == 0
    client.submit(BULK_IN, 10)
    reply = client.reply()
    assert reply.status in (0, -EOVERFLOW)
    assert len(reply.data) == reply.actual_length <= 10


def test_isochronous_packets_lie_end_to_end(rack: Rack) -> None:
    """[E] Their data was sent with its gaps; [P] isochronous transfers raised an error in the server."""
    client = rack.client()
    assert client.ask(SET_CONFIGURATION).status == 0
    assert client.ask(ISOCHRONOUS).status == 0
    packets = [(0, 40), (64, 0), (64, 24)]
    client.submit(ISO_OUT, 88, b"a" * 40 + b"b" * 48, packets=[(0, 40), (40, 48)], interval=1)
    assert client.reply().status == 0
    client.submit(ISO_IN, 192, packets=[(0, 64), (64, 64), (128, 64)], interval=1)
    reply = client.reply()
    assert reply.status == 0
    assert len(reply.packets) == 3
    assert len(reply.data) == reply.actual_length == sum(packet[2] for packet in reply.packets)
    client.submit(ISO_IN, 128, packets=packets, interval=1)  # a packet of no length is one as well
    assert [packet[1] for packet in client.reply().packets] == [40, 0, 24]


def test_what_the_host_controller_has_to_know_is_called_and_not_sent(rack: Rack) -> None:
    """[E] [P] SET_CONFIGURATION, SET_INTERFACE and CLEAR_FEATURE went to the device behind the kernel's back."""
    client = rack.client()
    for setup in ("0009000000000000", SET_CONFIGURATION, ISOCHRONOUS, LOOPBACK, "0201000084000000"):
        assert client.ask(setup).status == 0
    names = [call[0] for call in rack.usb1.calls]
    assert names.count("set_configuration") == 2
    assert ("set_interface", 3, 1) in rack.usb1.calls
    assert ("clear_halt", 0x84) in rack.usb1.calls
    assert client.ask("8008000000000100").data == b"\1"
    # [P] and interfaces were claimed anew at each SET_INTERFACE.
    at = names.index("set_interface")
    assert "claim" not in names[at:]


def test_the_data_of_a_short_transfer_is_kept(rack: Rack) -> None:
    """[E] It was lost where a short transfer is an error; [P] flags were ignored."""
    client = rack.client()
    client.submit(BULK_OUT, data=b"short")
    assert client.reply().status == 0
    client.submit(BULK_IN, 512, flags=SHORT_NOT_OK)
    reply = client.reply()
    assert (reply.status, reply.data) == (-EREMOTEIO, b"short")


def test_an_unlink_is_answered_once_and_holds_up_nobody(rack: Rack) -> None:
    """[E] It held up the server for up to 6 s; [P] its reply was never sent, that of the URB was."""
    client = rack.client()
    pending = [client.submit(BULK_IN, 8) for _ in range(3)]
    unlink = client.unlink(pending[1])
    asked = client.control(GET_DEVICE)
    replies = {reply.seqnum: reply for reply in (client.reply(), client.reply())}
    assert replies[unlink][:3] == (USBIP_RET_UNLINK, unlink, -ECONNRESET)
    assert replies[asked].data == DEVICE
    client.submit(BULK_OUT, data=b"one")
    client.submit(BULK_OUT, data=b"three")
    answered = {reply.seqnum: reply for reply in (client.reply() for _ in range(4))}
    assert (answered[pending[0]].data, answered[pending[2]].data) == (b"one", b"three")
    assert pending[1] not in answered


def test_an_unlink_that_comes_too_late_or_is_of_nothing(rack: Rack) -> None:
    client = rack.client()
    done = client.control(GET_DEVICE)
    assert client.reply().command == USBIP_RET_SUBMIT
    for target in (done, 4711):
        unlink = client.unlink(target)
        assert client.reply() == Reply(USBIP_RET_UNLINK, unlink, 0)


def test_devices_that_vanish_at_once_end_their_sessions(rack: Rack) -> None:
    """[E] There was room to remember one device that was gone."""
    clients = [rack.client(busid) for busid in ("1-1", "1-2")]
    pending = [client.submit(BULK_IN, 8) for client in clients]
    wait_until("both have them", lambda: all(rack.plugged[busid].flying for busid in ("1-1", "1-2")))
    for busid in ("1-1", "1-2"):
        rack.usb1.unplug(rack.plugged[busid])
    for client, seqnum in zip(clients, pending, strict=True):
        reply = client.reply()
        assert (reply.seqnum, reply.status) == (seqnum, -ESHUTDOWN)
        assert client.is_at_end()
    wait_until("nothing is exported", lambda: not rack.server.devices)


def test_the_busid_is_the_port_and_stays(rack: Rack) -> None:
    """[E] [P] It was made of the device's address, which changes with each plugging in."""
    rack.usb1.unplug(rack.plugged["1-1"])
    wait_until("it is not exported", lambda: [info.busid for info in rack.server.devices] == ["1-2"])
    rack.plug(1, devnum=77)
    wait_until("it is exported", lambda: [info.busid for info in rack.server.devices] == ["1-1", "1-2"])
    client = rack.client("1-1")
    assert client.device[:2] == (1, 77)


@pytest.mark.parametrize("speed", [Speed.LOW, Speed.FULL, Speed.HIGH, Speed.SUPER, Speed.SUPER_PLUS])
def test_the_speed_is_that_of_the_device(speed: Speed, rack: Rack) -> None:
    """[P] SuperSpeed was reported as high speed, as the numbers of libusb are others."""
    rack.plug(3, speed=speed)
    wait_until("it is exported", lambda: len(rack.server.devices) == 3)
    assert rack.client("1-3").device[2] == speed


def test_the_capture_has_the_types_addresses_and_times(rack: Rack) -> None:
    """[E] All but control was recorded as bulk, completions had neither device nor endpoint."""
    client = rack.client()
    client.submit(KEYS_IN, 8, interval=4)
    assert client.reply().status == 0
    client.submit(BULK_OUT, data=b"x")
    assert client.reply().status == 0
    assert client.ask(SET_CONFIGURATION).status == 0
    assert client.ask(ISOCHRONOUS).status == 0
    client.submit(ISO_OUT, data=b"y" * 8, packets=[(0, 8)], interval=1)
    assert client.reply().status == 0
    client.close()
    rack.wait_free()
    rack.server.close()
    records = [record for record in read_capture(rack.pcap) if record.interface.name == "usbip0"]
    events = [record.usb for record in records if record.usb is not None]
    kinds = {(chr(event.type), event.epnum, event.xfer_type) for event in events}
    # Ref: Linux Documentation/usb/usbmon.rst: 0 isochronous, 1 interrupt, 2 control, 3 bulk
    for endpoint, kind in ((KEYS_IN, 1), (BULK_OUT, 3), (ISO_OUT, 0)):
        assert {("S", endpoint, kind), ("C", endpoint, kind)} <= kinds
    assert {event.devnum for event in events} == {3}
    assert all(event.ndesc == 1 for event in events if not event.xfer_type)
    assert abs(records[0].timestamp_ns - time.time_ns()) < 3600e9


def test_a_stall_is_a_stall_and_stays_one(rack: Rack) -> None:
    """[P] The numbers of libusb went out as those of Linux: a stall was -4, a cancelled URB -3."""
    client = rack.client()
    assert client.ask("c011000000000800").status == -EPIPE
    assert client.ask("4011000000000400", b"1234").status == -EPIPE
    device = rack.plugged["1-1"].device
    assert isinstance(device, DemoDevice)
    device.stall(BULK_IN)
    for _ in range(2):  # never cleared by the server
        client.submit(BULK_IN, 8)
        assert client.reply().status == -EPIPE
    assert client.ask("0201000084000000").status == 0
    client.submit(BULK_OUT, data=b"again")
    client.submit(BULK_IN, 8)
    assert {client.reply().data for _ in range(2)} == {b"", b"again"}


def test_a_control_transfer_that_takes_long_holds_up_nobody(rack: Rack) -> None:
    """[P] Control transfers were made one by one, on the thread that all sessions have."""
    client, other = rack.client("1-1"), rack.client("1-2")
    held = HeldControl()
    rack.plugged["1-1"].device.submit = held.submit  # type: ignore[method-assign]
    slow = client.control(GET_DEVICE)
    client.submit(BULK_OUT, data=b"meanwhile")
    assert other.ask(GET_DEVICE).data == DEVICE
    pending = held.wait_for_both()
    del rack.plugged["1-1"].device.submit  # what its end asks for, nobody holds
    pending[1].finish(Completion(0, 9))
    assert client.reply().actual_length == 9
    pending[0].finish(Completion(0, len(DEVICE), DEVICE))
    reply = client.reply()
    assert (reply.seqnum, reply.data) == (slow, DEVICE)


class HeldControl:
    """Keeps two transfers until the test finishes them."""

    def __init__(self) -> None:
        self._came = threading.Condition()
        self._held: list[Transfer] = []

    def submit(self, transfer: Transfer) -> None:
        with self._came:
            self._held.append(transfer)
            self._came.notify_all()

    def wait_for_both(self) -> list[Transfer]:
        with self._came:
            assert self._came.wait_for(lambda: len(self._held) == 2, 30)
        return self._held


@pytest.mark.parametrize(("setup", "length"), [(GET_DEVICE, 64), (GET_DEVICE, 4), ("80060001000000ff", 0xFF00)])
def test_lengths_that_do_not_fit_cost_their_urb_only(setup: str, length: int, rack: Rack) -> None:
    """[P] A wLength that differs from the buffer's length ended the session."""
    client = rack.client()
    reply = client.ask(setup, length=length)
    assert reply.status < 0 or len(reply.data) <= length
    assert client.ask(GET_DEVICE).data == DEVICE


def test_kernel_drivers_are_unbound_while_it_is_imported(rack: Rack) -> None:
    """[P] A device with a driver could not be claimed at all."""
    device = rack.plugged["1-1"]
    device.bind(0, "cdc_acm")
    device.bind(2, "usbhid")
    client = rack.client()
    assert client.ask(SET_CONFIGURATION).status == 0
    assert not device.drivers
    client.close()
    rack.wait_free()
    wait_until("the drivers are bound again", lambda: device.drivers == {0: "cdc_acm", 2: "usbhid"})


def test_hubs_are_not_exported_and_both_versions_are_spoken(rack: Rack) -> None:
    """[P] All devices were exported, hubs as well, and one version was known."""
    client = rack.client(version=0x0100)
    assert (client.status, client.version) == (0, 0x0100)
    assert client.ask(GET_DEVICE).data == DEVICE


def test_rounds_of_attaching_and_plugging_leave_nothing_behind(rack: Rack) -> None:
    """[E] Sessions left their entries in the table of pending URBs."""

    def rounds(number: int) -> tuple[int, int, int]:
        for _ in range(number):
            with rack.client() as client:
                assert client.ask(GET_DEVICE).data == DEVICE
                client.submit(BULK_IN, 8)  # and leaves
            rack.wait_free()
        for at in range(number // 10):
            rack.usb1.unplug(rack.plugged["1-2"])
            rack.plugged["1-2"].device.close()
            rack.plug(2, devnum=100 + at % 10)
        wait_until("the devices are exported", lambda: len(rack.server.devices) == 2)
        rack.server.set_rules(["all"])
        gc.collect()
        kinds = (Session, LibusbDevice, Connection)
        open_files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        return open_files, threading.active_count(), sum(isinstance(thing, kinds) for thing in gc.get_objects())

    first = rounds(20)
    wait_until("nothing more is there", lambda: all(now <= then for now, then in zip(rounds(30), first, strict=True)))
