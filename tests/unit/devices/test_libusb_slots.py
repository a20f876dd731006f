"""Transfers of libusb that are used again: each URB gets its own bytes, whatever the one before it was."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest

from tests.builders.local_usb import local_usb
from tests.fakes.simulated_transfers import USBTransfer
from usbip_capture.demo.device import BULK_IN, BULK_OUT
from usbip_capture.device import Transfer
from usbip_capture.devices.libusb.device import LibusbDevice
from usbip_capture.usb.setup import get_descriptor
from usbip_capture.usb.urb import ZERO_PACKET, Completion, TransferType, Urb

TIMEOUT = 30.0
#: A slot's own memory takes the first two; the last one does not end with a packet that is full.
SIZES = (64, 16 << 10, (16 << 10) + 1, 100_000)


@pytest.fixture
def device() -> Iterator[LibusbDevice]:
    with local_usb() as machine:
        opened = machine.open()
        yield opened
        opened.close()


def descriptor(device: LibusbDevice) -> bytes:
    completion = device.run(Urb.control(get_descriptor(1, 0, 0, 18).pack()), TIMEOUT)
    assert completion.status == 0
    return bytes(completion.data)


def around(device: LibusbDevice, data: bytes, flags: int = 0) -> Completion:
    """Written to the loopback, and read from it."""
    written = device.run(Urb(TransferType.BULK, BULK_OUT, len(data), data, flags=flags), TIMEOUT)
    assert (written.status, written.actual_length) == (0, len(data))
    return device.run(Urb(TransferType.BULK, BULK_IN, len(data)), TIMEOUT)


def test_requests_and_data_by_turns(device: LibusbDevice) -> None:
    made = random.Random(16)
    expected = descriptor(device)
    kept = []
    for _ in range(20):
        data = made.randbytes(made.choice(SIZES))
        kept.append((data, around(device, data)))
        assert descriptor(device) == expected
    for data, completion in kept:  # what a URB brought is its own, and no later one has written into it
        assert completion.data == data


def test_data_that_only_starts_as_the_last_one_did(device: LibusbDevice) -> None:
    assert around(device, b"a long message").data == b"a long message"
    assert around(device, b"short").data == b"short"
    short = device.run(Urb.control(get_descriptor(1, 0, 0, 4).pack()), TIMEOUT)
    assert short.data == descriptor(device)[:4]


def test_a_zero_packet_is_asked_for_by_this_urb_only() -> None:
    with local_usb() as machine:
        device = machine.open()
        asked: list[bool] = []

        def look(raw: USBTransfer, status: int, completion: Completion) -> tuple[int, Completion]:
            if raw.endpoint == BULK_OUT:
                asked.append(raw.add_zero_packet)
            return status, completion

        machine.raw.mutate = look
        for flags in (ZERO_PACKET, 0, ZERO_PACKET, ZERO_PACKET):
            around(device, b"x" * 64, flags)
            descriptor(device)
        assert asked == [True, False, True, True]
        device.close()


def test_what_is_to_be_done_when_all_of_one_event_have_ended(device: LibusbDevice) -> None:
    """Once, on the thread on which they end; elsewhere there is no such moment."""
    seen: list[str] = []
    done = threading.Event()

    def afterwards() -> None:
        seen.append("afterwards")
        done.set()

    def ended(completion: Completion) -> None:
        assert device.afterwards(afterwards)
        assert device.afterwards(afterwards)
        seen.append("ended")

    assert not device.afterwards(afterwards)
    device.submit(Transfer(Urb.control(get_descriptor(1, 0, 0, 18).pack()), ended))
    assert done.wait(TIMEOUT)
    assert seen == ["ended", "afterwards"]


def test_what_fails_afterwards_is_reported(device: LibusbDevice, caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()

    def fails() -> None:
        done.set()
        raise RuntimeError("afterwards")

    def ended(completion: Completion) -> None:
        device.afterwards(fails)

    device.submit(Transfer(Urb.control(get_descriptor(1, 0, 0, 18).pack()), ended))
    assert done.wait(TIMEOUT)
    assert len(descriptor(device)) == 18  # and events are handled all the same
    assert "what was to be done after events of libusb failed" in caplog.text
