"""A device by libusb: what libusb reports, what usbfs refuses, and what a client of a server is answered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.builders.local_usb import LocalUsb, local_usb
from tests.fakes import simulated_transfers as usb1
from usbip_capture.demo.device import BULK_IN, BULK_OUT, CDC_NOTIFY, ISO_IN, ISO_OUT
from usbip_capture.device import Transfer
from usbip_capture.devices.libusb import statuses
from usbip_capture.devices.libusb.device import LibusbDevice
from usbip_capture.usb import setup as requests
from usbip_capture.usb.status import (
    ECONNRESET,
    EINVAL,
    ENOENT,
    EOVERFLOW,
    EPERM,
    EPIPE,
    EPROTO,
    EREMOTEIO,
    ESHUTDOWN,
    EXDEV,
)
from usbip_capture.usb.urb import SHORT_NOT_OK, ZERO_PACKET, Completion, IsoPacket, TransferType, Urb

TIMEOUT = 30.0


@pytest.fixture
def usb() -> Iterator[LocalUsb]:
    with local_usb() as machine:
        yield machine


@pytest.fixture
def device(usb: LocalUsb) -> LibusbDevice:
    return usb.open()


def bulk_in(length: int = 512, flags: int = 0) -> Urb:
    return Urb(TransferType.BULK, BULK_IN, length, flags=flags)


def bulk_out(data: bytes, flags: int = 0) -> Urb:
    return Urb(TransferType.BULK, BULK_OUT, len(data), data, flags=flags)


def control(setup: requests.Setup, data: bytes = b"") -> Urb:
    return Urb.control(setup.pack(), data)


def submitted(device: LibusbDevice, urb: Urb) -> Transfer:
    transfer = Transfer(urb)
    device.submit(transfer)
    return transfer


def ended(device: LibusbDevice, transfer: Transfer) -> Completion:
    assert device.wait(transfer, TIMEOUT)
    assert transfer.completion is not None
    return transfer.completion


def forced(usb: LocalUsb, status: int, data: bytes = b"") -> None:
    """Whatever the device says, transfers end like this."""
    usb.raw.mutate = lambda transfer, _, completion: (status, Completion(0, len(data), data))


#: libusb_transfer_status, bytes that came with it, flags of the URB -> status. Ref: what Linux's usbip-host answers
ENDS = [
    (usb1.COMPLETED, b"x" * 512, 0, 0),
    (usb1.COMPLETED, b"short", 0, 0),
    (usb1.COMPLETED, b"short", SHORT_NOT_OK, -EREMOTEIO),
    (usb1.COMPLETED, b"x" * 512, SHORT_NOT_OK, 0),
    (usb1.STALL, b"", 0, -EPIPE),
    (usb1.STALL, b"short", SHORT_NOT_OK, -EPIPE),
    (usb1.OVERFLOW, b"x" * 64, 0, -EOVERFLOW),
    (usb1.ERROR, b"", 0, -EPROTO),
    (usb1.CANCELLED, b"kept", 0, -ECONNRESET),
    (usb1.NO_DEVICE, b"", 0, -ESHUTDOWN),
    (99, b"", 0, -EPROTO),
]


@pytest.mark.parametrize(("status", "data", "flags", "expected"), ENDS)
def test_each_status_of_libusb(
    usb: LocalUsb, device: LibusbDevice, status: int, data: bytes, flags: int, expected: int
) -> None:
    forced(usb, status, data)
    usb.simulated.feed(BULK_IN, b"anything")  # type: ignore[attr-defined]
    completion = device.run(bulk_in(512, flags), TIMEOUT)
    assert (completion.status, completion.actual_length, bytes(completion.data)) == (expected, len(data), data)
    assert device.alive  # NO_DEVICE is also what a reset or a release ends transfers with


def test_linux_numbers_whatever_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    assert statuses.of_error(statuses.ERROR_NO_DEVICE) == -108
    assert statuses.of_error(-99) == -71
    assert [statuses.of_transfer(status) for status in range(8)] == [0, -71, -110, -104, -32, -108, -75, -71]


@pytest.mark.parametrize(
    ("urb", "expected"),
    [
        (control(requests.Setup(0xC0, 0x10, 0, 0, 4097)), -EINVAL),  # libusb takes 4096 bytes
        (control(requests.Setup(0x40, 0x10, 0, 0, 8192), bytes(8192)), -EINVAL),
        (Urb(TransferType.CONTROL, 0x80, 18, setup=requests.get_descriptor(1, 0, 0, 64).pack()), -EINVAL),
        (Urb(TransferType.BULK, 0x8A, 64), -ENOENT),
        (Urb(TransferType.INTERRUPT, BULK_IN, 64), -ENOENT),  # of another type
        (Urb(TransferType.ISOCHRONOUS, ISO_IN, 64, packets=[IsoPacket(0, 64)]), -ENOENT),  # of another setting
        (Urb(TransferType.BULK, BULK_OUT, 64, b"too little"), -EINVAL),
        (control(requests.clear_halt(0x8A)), -EPIPE),  # the device has no such endpoint, configuration, setting
        (control(requests.set_configuration(7)), -EPIPE),
        (control(requests.set_interface(3, 7)), -EPIPE),
        (control(requests.set_interface(9, 0)), -EPIPE),
    ],
)
def test_what_cannot_be_done_fails_alone(device: LibusbDevice, urb: Urb, expected: int) -> None:
    assert device.run(urb, TIMEOUT).status == expected
    assert bytes(device.run(control(requests.get_descriptor(1, 0, 0, 18)), TIMEOUT).data)
    assert device.run(bulk_out(b"goes on"), TIMEOUT).status == 0


def test_a_zero_packet_is_asked_for_only_where_it_is_possible(usb: LocalUsb, device: LibusbDevice) -> None:
    seen: list[tuple[int, bool]] = []

    def note(transfer: usb1.USBTransfer, status: int, completion: Completion) -> tuple[int, Completion]:
        seen.append((transfer.endpoint, transfer.add_zero_packet))
        return status, completion

    usb.raw.mutate = note
    for urb in (bulk_out(bytes(512), ZERO_PACKET), bulk_in(512, ZERO_PACKET), bulk_out(b"x"), bulk_in()):
        assert device.run(urb, TIMEOUT).status == 0
    assert seen == [(BULK_OUT, True), (BULK_IN, False), (BULK_OUT, False), (BULK_IN, False)]


# -- unlinking


def test_a_cancelled_read_keeps_what_had_come(usb: LocalUsb, device: LibusbDevice) -> None:
    usb.raw.mutate = lambda transfer, status, completion: (status, Completion(0, 4096, bytes(4096)))
    reading = submitted(device, bulk_in(8192))
    device.cancel(reading)
    completion = ended(device, reading)
    assert (completion.status, completion.actual_length, len(completion.data)) == (-ECONNRESET, 4096, 4096)


def test_a_cancel_that_comes_too_late_changes_nothing(usb: LocalUsb, device: LibusbDevice) -> None:
    """libusb says NotFound, and calls back with COMPLETED afterwards: decided there, not when cancelling."""
    usb.context.hold(True)
    sending = submitted(device, bulk_out(b"hello"))
    device.cancel(sending)
    device.cancel(sending)
    assert sending.completion is None
    usb.context.hold(False)
    assert ended(device, sending).status == 0
    assert bytes(device.run(bulk_in(), TIMEOUT).data) == b"hello"


def test_what_was_abandoned_may_land_later(usb: LocalUsb, device: LibusbDevice) -> None:
    usb.context.hold(True)
    sending = submitted(device, bulk_out(b"hello"))
    device.abandon(sending)
    assert sending.completion is not None
    assert sending.completion.status == -ECONNRESET
    usb.context.hold(False)
    assert bytes(device.run(bulk_in(), TIMEOUT).data) == b"hello"
    assert sending.completion.status == -ECONNRESET


# -- requests that libusb has calls for


def test_what_set_interface_would_kill_ends_before_it(usb: LocalUsb, device: LibusbDevice) -> None:
    order: list[tuple[str, int]] = []
    reading = [Transfer(bulk_in(), lambda completion: order.append(("read", completion.status))) for _ in range(3)]
    elsewhere = Transfer(Urb(TransferType.INTERRUPT, CDC_NOTIFY, 16))
    for transfer in (*reading, elsewhere):
        device.submit(transfer)
    changing = Transfer(
        control(requests.set_interface(3, 1)), lambda completion: order.append(("set", completion.status))
    )
    behind = Transfer(
        Urb(TransferType.ISOCHRONOUS, ISO_OUT, 4, b"data", packets=[IsoPacket(0, 4)], interval=8),
        lambda completion: order.append(("behind", completion.status)),
    )
    device.submit(changing)
    device.submit(behind)  # for the endpoint that will be there
    ended(device, behind)
    assert order == [("read", -ESHUTDOWN)] * 3 + [("set", 0), ("behind", 0)]
    assert elsewhere.completion is None
    assert [call for call in usb.module.calls if call[0] == "set_interface"] == [("set_interface", 3, 1)]
    assert device.run(bulk_in(), TIMEOUT).status == -ENOENT
    assert device.run(control(requests.set_interface(3, 0)), TIMEOUT).status == 0
    assert device.run(bulk_out(b"x"), TIMEOUT).status == 0


def test_the_same_configuration_again_resets_nothing(usb: LocalUsb, device: LibusbDevice) -> None:
    assert device.run(control(requests.set_interface(3, 1)), TIMEOUT).status == 0
    before = len(usb.module.calls)
    assert device.run(control(requests.set_configuration(1)), TIMEOUT).status == 0
    assert usb.module.calls[before:] == [("set_interface", 3, 0)]  # which the request does, too
    assert device.run(bulk_out(b"x"), TIMEOUT).status == 0


def test_no_configuration_and_back(usb: LocalUsb, device: LibusbDevice) -> None:
    reading = submitted(device, bulk_in())
    assert device.run(control(requests.set_configuration(0)), TIMEOUT).status == 0
    assert ended(device, reading).status == -ESHUTDOWN
    assert ("set_configuration", -1) in usb.module.calls
    assert usb.raw.claimed == {}
    assert device.run(bulk_in(), TIMEOUT).status == -ENOENT
    assert device.run(control(requests.set_configuration(1)), TIMEOUT).status == 0
    assert sorted(usb.raw.claimed) == [0, 1, 2, 3]
    assert device.run(bulk_out(b"x"), TIMEOUT).status == 0


def test_the_configuration_that_was_found_is_left(usb: LocalUsb) -> None:
    usb.raw.bind(0, "cdc_acm")
    usb.raw.bind(2, "usbhid")
    device = usb.open()
    assert usb.raw.drivers == {}
    assert device.run(control(requests.set_configuration(0)), TIMEOUT).status == 0
    device.close()
    assert usb.raw.configuration == 1
    assert usb.raw.drivers == {0: "cdc_acm", 2: "usbhid"}


def test_halt_is_cleared_by_libusb(usb: LocalUsb, device: LibusbDevice) -> None:
    reading = submitted(device, bulk_in())
    assert device.run(control(requests.clear_halt(BULK_OUT)), TIMEOUT).status == 0
    assert ("clear_halt", BULK_OUT) in usb.module.calls
    assert reading.completion is None  # as with Linux's server


def test_a_port_reset(usb: LocalUsb, device: LibusbDevice) -> None:
    """As USB/IP clients send it: SET_FEATURE(PORT_RESET), to the port of a hub that is not here."""
    reading = submitted(device, bulk_in())
    assert (
        device.run(control(requests.Setup(0x23, requests.SET_FEATURE, requests.PORT_RESET, 1, 0)), TIMEOUT).status == 0
    )
    assert ended(device, reading).status == -ESHUTDOWN
    assert ("reset",) in usb.module.calls
    assert device.alive
    assert device.run(bulk_out(b"x"), TIMEOUT).status == 0


def test_what_a_change_of_settings_has_killed_all_the_same(usb: LocalUsb, device: LibusbDevice) -> None:
    """libusb says COMPLETED and no data: a client would take it for a short packet."""
    usb.raw.mutate = lambda transfer, status, completion: (usb1.COMPLETED, Completion(0))
    reading = submitted(device, bulk_in())
    assert device.run(control(requests.set_interface(3, 1)), TIMEOUT).status == 0
    assert ended(device, reading).status == -ESHUTDOWN


# -- isochronous


def iso_in(count: int, size: int = 64) -> Urb:
    packets = [IsoPacket(size * at, size) for at in range(count)]
    return Urb(TransferType.ISOCHRONOUS, ISO_IN, size * count, packets=packets, interval=8)


@pytest.fixture
def iso(device: LibusbDevice) -> LibusbDevice:
    assert device.run(control(requests.set_interface(3, 1)), TIMEOUT).status == 0
    return device


def test_packets_of_no_length_and_gaps_between(usb: LocalUsb, iso: LibusbDevice) -> None:
    packets = [IsoPacket(0, 3), IsoPacket(10, 0), IsoPacket(20, 2), IsoPacket(20, 0)]
    data = b"abc" + b"." * 17 + b"de"
    sent = iso.run(Urb(TransferType.ISOCHRONOUS, ISO_OUT, 22, data, packets=packets, interval=8), TIMEOUT)
    assert (sent.status, sent.actual_length) == (0, 5)
    assert list(sent.packets) == [IsoPacket(p.offset, p.length, p.length, 0) for p in packets]
    got = iso.run(iso_in(4), TIMEOUT)
    assert (bytes(got.data), [p.actual_length for p in got.packets]) == (b"abcde", [3, 0, 2, 0])


def test_only_packets_of_no_length(iso: LibusbDevice) -> None:
    empty = [IsoPacket(0, 0)] * 3
    for address, data in ((ISO_IN, b""), (ISO_OUT, b"")):
        done = iso.run(Urb(TransferType.ISOCHRONOUS, address, 0, data, packets=empty, interval=8), TIMEOUT)
        assert (done.status, done.actual_length, list(done.packets)) == (0, 0, empty)


def test_more_packets_than_one_kernel_urb_has(iso: LibusbDevice) -> None:
    got = iso.run(iso_in(300, 8), TIMEOUT)
    assert (got.status, len(got.packets)) == (0, 300)


@pytest.mark.parametrize(
    "packets",
    [[], [IsoPacket(0, 65)], [IsoPacket(60, 8)], [IsoPacket(0, 8), IsoPacket(1 << 31, 8)]],
    ids=["none", "larger than the endpoint's", "beyond the buffer", "far beyond"],
)
def test_impossible_packets_fail_alone(iso: LibusbDevice, packets: list[IsoPacket]) -> None:
    for address in (ISO_IN, ISO_OUT):
        data = b"" if address == ISO_IN else bytes(65)
        refused = iso.run(Urb(TransferType.ISOCHRONOUS, address, 65, data, packets=packets), TIMEOUT)
        assert refused.status == -EINVAL
        assert [packet.status for packet in refused.packets] == [-EXDEV] * len(packets)
    assert iso.run(iso_in(2), TIMEOUT).status == 0


def test_packets_are_judged_one_by_one(usb: LocalUsb, iso: LibusbDevice) -> None:
    ends = [IsoPacket(0, 8, 8, 0), IsoPacket(8, 8, 0, -EPROTO), IsoPacket(16, 8, 5, -EOVERFLOW)]
    usb.raw.mutate = lambda transfer, status, completion: (
        usb1.COMPLETED,
        Completion(0, 13, b"x" * 13, packets=ends),
    )
    got = iso.run(iso_in(3, 8), TIMEOUT)
    assert (got.status, got.error_count, got.actual_length, bytes(got.data)) == (0, 2, 13, b"x" * 13)
    assert [(p.actual_length, p.status) for p in got.packets] == [(8, 0), (0, -EPROTO), (5, -EOVERFLOW)]


def test_packets_of_an_unlinked_urb_that_were_not_done(usb: LocalUsb, iso: LibusbDevice) -> None:
    ends = [IsoPacket(0, 8, 8, 0), IsoPacket(8, 8, 0, 0), IsoPacket(16, 8, 0, -EPROTO)]
    usb.raw.mutate = lambda transfer, status, completion: (
        usb1.CANCELLED,
        Completion(0, 8, b"x" * 8, packets=ends),
    )
    reading = submitted(iso, iso_in(3, 8))
    iso.cancel(reading)
    got = ended(iso, reading)
    assert (got.status, bytes(got.data)) == (-ECONNRESET, b"x" * 8)
    assert [p.status for p in got.packets] == [0, -EXDEV, -EXDEV]


# -- interfaces of others


def test_urbs_of_an_interface_that_is_not_ours(usb: LocalUsb) -> None:
    """usbfs would claim it for them by itself."""
    usb.raw.holders[3] = "another program"
    device = usb.open()
    assert list(device.unclaimed) == [3]
    ours = Urb(TransferType.INTERRUPT, CDC_NOTIFY, 16)
    for urb, status in (
        (bulk_in(), -EPERM),
        (bulk_out(b"x"), -EPERM),
        (control(requests.set_interface(3, 1)), -EPERM),
        (control(requests.clear_halt(BULK_IN)), -EPERM),
        (control(requests.Setup(0x02, requests.SET_FEATURE, 0, BULK_IN, 0)), -EPERM),
        (control(requests.Setup(0xA1, 1, 0, 3, 8)), -EPERM),
        (control(requests.Setup(0xC1, 0x10, 0, 3, 8)), -EPIPE),  # a vendor's wIndex is the vendor's: it is passed on
        (control(requests.get_descriptor(1, 0, 0, 18)), 0),
        (control(requests.Setup(0xA1, 1, 0, 2, 8)), 0),
    ):
        assert device.run(urb, TIMEOUT).status == status, urb.setup
    assert submitted(device, ours).completion is None
    assert 3 not in usb.raw.claimed
