"""A device by libusb in any order of what clients, devices, the kernel and libusb do: each URB ends once."""

from __future__ import annotations

import logging
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.builders.local_usb import LocalUsb
from tests.fakes import simulated_transfers as usb1
from tests.waiting import wait_until
from usbip_capture.demo.device import BULK_IN, BULK_OUT, CDC_NOTIFY, ISO_IN, ISO_OUT
from usbip_capture.device import Transfer
from usbip_capture.devices.libusb import device as device_module
from usbip_capture.devices.libusb.budget import Budget
from usbip_capture.usb import setup as requests
from usbip_capture.usb.urb import SHORT_NOT_OK, Completion, IsoPacket, TransferType, Urb

TIMEOUT = 20.0
_ISO = [IsoPacket(0, 8), IsoPacket(8, 0), IsoPacket(16, 8)]
URBS = [
    Urb(TransferType.BULK, BULK_IN, 64),
    Urb(TransferType.BULK, BULK_IN, 20_000, flags=SHORT_NOT_OK),
    Urb(TransferType.BULK, BULK_OUT, 64, bytes(64)),
    Urb(TransferType.BULK, BULK_OUT, 20_000, bytes(20_000)),
    Urb(TransferType.INTERRUPT, CDC_NOTIFY, 16),
    Urb(TransferType.ISOCHRONOUS, ISO_IN, 24, packets=_ISO, interval=8),
    Urb(TransferType.ISOCHRONOUS, ISO_OUT, 24, bytes(24), packets=_ISO, interval=8),
    Urb.control(requests.get_descriptor(1, 0, 0, 18).pack()),
    Urb.control(requests.Setup(0x40, 0x10, 0, 0, 3).pack(), b"abc"),
    Urb.control(requests.Setup(0xC0, 0x77, 0, 0, 3).pack()),
    Urb.control(requests.set_interface(3, 0).pack()),
    Urb.control(requests.set_interface(3, 1).pack()),
    Urb.control(requests.set_configuration(0).pack()),
    Urb.control(requests.set_configuration(1).pack()),
    Urb.control(requests.clear_halt(BULK_IN).pack()),
    Urb.control(requests.Setup(0x23, 3, 4, 1, 0).pack()),
    Urb(TransferType.BULK, 0x8C, 64),
]


class Orders(RuleBasedStateMachine):
    """Everything that may happen, whatever happened before."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.budget = Budget(50_000)
        self.patch.setattr(device_module, "shared_budget", self.budget)
        self.usb = LocalUsb()
        self.usb.module.memory = 100_000
        for interface in range(3):
            self.usb.raw.bind(interface, "a driver")
        self.device = self.usb.open()
        self.transfers: list[Transfer] = []
        self.ends: dict[int, int] = {}
        self.lost: list[str] = []
        self.complaints: list[str] = []
        self.device.watch(self.lost.append)
        self.handler = logging.Handler(logging.ERROR)
        self.handler.emit = lambda record: self.complaints.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger().addHandler(self.handler)

    @rule(urb=st.sampled_from(URBS), count=st.integers(1, 6))
    def submit(self, urb: Urb, count: int) -> None:
        for _ in range(count):
            self.transfers.append(Transfer(urb, self.counts(len(self.transfers))))
            self.device.submit(self.transfers[-1])

    @rule(urb=st.sampled_from(URBS))
    def submit_from_a_callback(self, urb: Urb) -> None:
        following = Transfer(urb, self.counts(len(self.transfers)))
        self.transfers.append(following)
        count = self.counts(len(self.transfers))

        def done(completion: Completion) -> None:
            count(completion)
            self.device.submit(following)

        first = Transfer(URBS[7], done)
        self.transfers.append(first)
        self.device.submit(first)

    def counts(self, number: int):  # type: ignore[no-untyped-def]
        def done(completion: Completion) -> None:
            self.ends[number] = self.ends.get(number, 0) + 1

        return done

    @precondition(lambda self: self.transfers)
    @rule(data=st.data(), abandons=st.booleans())
    def unlink(self, data: st.DataObject, abandons: bool) -> None:
        transfer = data.draw(st.sampled_from(self.transfers[-8:]))
        self.device.cancel(transfer)
        if abandons:
            self.device.abandon(transfer)

    @rule()
    def many_unlinks_at_once(self) -> None:
        chosen = self.transfers[-6:]
        threads = [threading.Thread(target=self.device.cancel, args=[transfer]) for transfer in chosen]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)

    @rule(on=st.booleans())
    def callbacks_come_late(self, on: bool) -> None:
        self.usb.context.hold(on)

    @rule(size=st.sampled_from([0, 3000, 100_000]))
    def memory_of_usbfs(self, size: int) -> None:
        self.usb.module.memory = size

    @rule(status=st.sampled_from([None, *range(7)]))
    def transfers_end_with(self, status: int | None) -> None:
        self.usb.raw.mutate = None if status is None else lambda transfer, _, completion: (status, completion)

    @rule(error=st.sampled_from(["", "IO", "Busy", "NoMem", "NoDevice", "InvalidParam", "Other", "NotFound"]))
    def submitting_fails(self, error: str) -> None:
        def fails() -> None:
            if error:
                raise usb1.error(error)

        self.usb.raw.before_submit = fails

    @rule(held=st.booleans())
    def another_program_has_an_interface(self, held: bool) -> None:
        self.usb.raw.holders.pop(3, None)
        if held and 3 not in self.usb.raw.claimed:
            self.usb.raw.holders[3] = "another program"

    @rule()
    def unplug(self) -> None:
        self.usb.module.unplug(self.usb.raw)

    @rule()
    def close(self) -> None:
        self.usb.context.hold(False)  # or it lasts as long as we are patient
        self.device.close()

    def teardown(self) -> None:
        try:
            self.usb.raw.before_submit = lambda: None
            self.usb.module.memory = 1 << 20
            self.usb.context.hold(False)
            self.device.close()
            for number, transfer in enumerate(self.transfers):
                # Its own follows in a callback, if it comes to that.
                if number in self.ends or transfer.completion is not None:
                    assert self.ends[number] == 1
            submitted = [t for t in self.transfers if t.completion is None]
            for transfer in submitted:
                self.device.submit(transfer)
                assert transfer.completion is not None
            assert set(self.ends.values()) <= {1}
            wait_until("all memory is released", lambda: self.budget.used == 0)
            assert self.usb.module.used == 0
            assert self.usb.raw.claimed == {}
            assert self.usb.module.calls[-1] == ("close",)
            if not self.usb.raw.gone:
                assert self.usb.raw.configuration in (1, 0)
            assert len(self.lost) <= 1
            assert self.complaints == []
        finally:
            logging.getLogger().removeHandler(self.handler)
            self.usb.close()
            self.patch.undo()


Orders.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
test_any_order = Orders.TestCase
