"""A device by libusb, from its opening to its end: claims, kernel drivers, memory, unplugging."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from tests.builders.local_usb import LocalUsb, local_usb
from tests.fakes import simulated_transfers as usb1
from tests.programs.forked import forked
from tests.waiting import wait_until
from usbip_capture.demo.device import BULK_IN, BULK_OUT, CDC_IN, CDC_NOTIFY
from usbip_capture.device import Transfer
from usbip_capture.devices.libusb import device as device_module
from usbip_capture.devices.libusb import in_flight, local_device
from usbip_capture.devices.libusb.budget import Budget
from usbip_capture.devices.libusb.device import LibusbDevice
from usbip_capture.errors import DeviceNotFound
from usbip_capture.system.compiling import build
from usbip_capture.usb import setup as requests
from usbip_capture.usb.status import ECONNRESET, ENOMEM, ESHUTDOWN
from usbip_capture.usb.urb import Completion, TransferType, Urb

TIMEOUT = 30.0


@pytest.fixture
def usb() -> Iterator[LocalUsb]:
    with local_usb() as machine:
        yield machine


def bulk_in(length: int = 512) -> Urb:
    return Urb(TransferType.BULK, BULK_IN, length)


def bulk_out(data: bytes) -> Urb:
    return Urb(TransferType.BULK, BULK_OUT, len(data), data)


def descriptor() -> Urb:
    return Urb.control(requests.get_descriptor(1, 0, 0, 18).pack())


def submitted(device: LibusbDevice, urb: Urb) -> Transfer:
    transfer = Transfer(urb)
    device.submit(transfer)
    return transfer


def status(device: LibusbDevice, transfer: Transfer) -> int:
    assert device.wait(transfer, TIMEOUT)
    assert transfer.completion is not None
    return transfer.completion.status


# -- claims and kernel drivers


def test_drivers_are_unbound_and_bound_again_in_this_order(usb: LocalUsb) -> None:
    for interface, driver in ((0, "cdc_acm"), (1, "cdc_acm"), (2, "usbhid")):
        usb.raw.bind(interface, driver)
    notes: list[object] = []
    usb.bus.on_detached = lambda local, interfaces: notes.append((local.info.busid, interfaces, dict(usb.raw.drivers)))
    usb.bus.on_attached = lambda local: notes.append((local.info.busid, dict(usb.raw.drivers)))
    device = usb.open(reset=True)
    assert notes == [("1-1", [0, 1, 2], {0: "cdc_acm", 1: "cdc_acm", 2: "usbhid"})]  # known before it is done
    assert usb.raw.drivers == {}
    assert sorted(usb.raw.claimed) == [0, 1, 2, 3]
    reading = submitted(device, bulk_in())
    del usb.module.calls[:]
    device.close()
    assert status(device, reading) == -ECONNRESET
    assert [call[0] for call in usb.module.calls] == ["reset"] + ["release"] * 4 + ["attach"] * 3 + ["close"]
    assert notes[1:] == [("1-1", {0: "cdc_acm", 1: "cdc_acm", 2: "usbhid"})]
    assert usb.raw.claimed == {}


def test_an_interface_of_another_program_leaves_the_rest(usb: LocalUsb, caplog: pytest.LogCaptureFixture) -> None:
    usb.raw.bind(0, "cdc_acm")
    usb.raw.holders[2] = "another program"
    device = usb.open()
    assert device.unclaimed == {2: "another program has claimed it"}
    assert "interface 2 of 1-1 (1209:0001) is not available: another program has claimed it" in caplog.text
    assert device.run(bulk_out(b"x"), TIMEOUT).status == 0
    device.close()
    assert usb.raw.drivers == {0: "cdc_acm"}


def test_a_driver_comes_back_when_the_claim_fails_after_all(usb: LocalUsb) -> None:
    """Somebody was quicker than us, between the two."""
    usb.raw.bind(0, "cdc_acm")
    usb.raw.claim_errors[0] = "Busy"
    device = usb.open()
    assert list(device.unclaimed) == [0]
    assert usb.raw.drivers == {0: "cdc_acm"}
    device.close()


def test_a_driver_that_is_bound_at_the_last_moment(usb: LocalUsb) -> None:
    usb.raw.bind(0, "cdc_acm")
    del usb.raw.drivers[0]
    usb.raw.on_open = lambda: usb.raw.late.append(lambda: usb.raw.bind(0, "cdc_acm"))
    device = usb.open()
    assert device.unclaimed == {}
    device.close()
    assert usb.raw.drivers == {0: "cdc_acm"}


@pytest.mark.parametrize("value", [7, 0])
def test_drivers_come_back_after_a_configuration_that_cannot_be_had(usb: LocalUsb, value: int) -> None:
    """It has no such one; or somebody else has an interface, so that it cannot be changed."""
    for interface, driver in ((0, "cdc_acm"), (2, "usbhid")):
        usb.raw.bind(interface, driver)
    if not value:
        usb.raw.holders[3] = "another program"
    device = usb.open()
    assert device.run(Urb.control(requests.set_configuration(value).pack()), TIMEOUT).status
    assert usb.raw.configuration == 1
    device.close()
    assert usb.raw.drivers == {0: "cdc_acm", 2: "usbhid"}


@pytest.mark.parametrize("error", ["NotSupported", "IO"])
def test_a_reset_that_fails_keeps_no_driver_from_coming_back(usb: LocalUsb, error: str) -> None:
    """Windows and macOS have none for some devices."""
    usb.raw.bind(0, "cdc_acm")
    device = usb.open(reset=True)
    assert device.run(Urb.control(requests.set_configuration(0).pack()), TIMEOUT).status == 0

    def refused() -> None:
        raise usb1.error(error)

    usb.raw.on_reset = refused
    device.close()
    assert usb.raw.configuration == 1
    assert usb.raw.drivers == {0: "cdc_acm"}


def test_nothing_of_it_can_be_had(usb: LocalUsb) -> None:
    usb.raw.holders.update(dict.fromkeys(range(4), "another program"))
    with pytest.raises(DeviceNotFound, match=r"1-1 .* is in use: interface 0: another program has claimed it"):
        usb.open()
    usb.raw.holders.clear()
    assert usb.open().run(descriptor(), TIMEOUT).status == 0  # and is left as it was


def test_it_is_opened_once(usb: LocalUsb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("usbip_capture.devices.libusb.bus._RELEASE_PATIENCE", 0.01)
    device = usb.open()
    with pytest.raises(DeviceNotFound, match=r"1-1 .* in use by this program itself"):
        usb.open()
    device.close()
    assert usb.open().alive


def test_it_is_opened_when_who_has_it_is_through(usb: LocalUsb) -> None:
    """Closed by a callback, on libusb's thread, the rest is done on another one."""
    device = usb.open()
    reading = Transfer(bulk_in(), lambda completion: device.close())
    device.submit(reading)
    device.cancel(reading)
    assert status(device, reading) == -ECONNRESET
    assert usb.open().run(bulk_out(b"x"), TIMEOUT).status == 0


def test_no_thread_for_its_worker(usb: LocalUsb, monkeypatch: pytest.MonkeyPatch) -> None:
    usb.libusb.start()
    usb.bus.listen()
    usb.raw.bind(0, "cdc_acm")

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(DeviceNotFound, match=r"1-1 .* cannot be used: can't start new thread"):
            usb.open()
    assert usb.raw.drivers == {0: "cdc_acm"}
    assert usb.open().alive


# -- memory


def small_budget(monkeypatch: pytest.MonkeyPatch, size: int) -> Budget:
    budget = Budget(size)
    monkeypatch.setattr(device_module, "shared_budget", budget)
    return budget


def test_what_does_not_fit_waits_in_order(usb: LocalUsb, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = small_budget(monkeypatch, 10_000)
    device = usb.open()
    ended: list[int] = []

    def note(length: int, completion: Completion) -> None:
        ended.append(length)

    lengths = [3000 + at for at in range(20)]
    reading = [Transfer(bulk_in(n), partial(note, n)) for n in lengths]
    for transfer in reading:
        device.submit(transfer)
    assert len(usb.raw.flying) == 2
    assert budget.used <= budget.limit
    unlinked = reading[7]
    device.cancel(unlinked)  # which libusb does not have yet
    assert unlinked.completion is not None
    for _ in range(19):
        assert device.run(bulk_out(b"x"), TIMEOUT).status == 0
    assert [status(device, transfer) for transfer in reading] == [-ECONNRESET if t is unlinked else 0 for t in reading]
    assert ended == [lengths[7], *(n for n in lengths if n != lengths[7])]
    wait_until("all is released", lambda: budget.used == 0)


def test_idle_reads_do_not_keep_others_waiting(usb: LocalUsb, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither other endpoints nor requests nor other devices wait for reads that may never end."""
    small_budget(monkeypatch, 1 << 20)
    device = usb.open()
    reading = [submitted(device, bulk_in(1 << 18)) for _ in range(8)]
    assert device.run(bulk_out(bytes(1 << 20)), TIMEOUT).status == 0
    assert device.run(descriptor(), TIMEOUT).status == 0
    notifying = submitted(device, Urb(TransferType.INTERRUPT, CDC_NOTIFY, 16))
    assert notifying.completion is None
    device.close()
    assert {status(device, transfer) for transfer in (*reading[4:], notifying)} == {-ECONNRESET}


def test_one_that_is_larger_than_all(usb: LocalUsb, monkeypatch: pytest.MonkeyPatch) -> None:
    small_budget(monkeypatch, 1000)
    device = usb.open()
    data = bytes(range(256)) * 1024
    assert device.run(bulk_out(data), TIMEOUT).status == 0
    assert bytes(device.run(bulk_in(len(data)), TIMEOUT).data) == data


def test_memory_that_other_programs_have(usb: LocalUsb) -> None:
    """Usbfs has 16 MB for all: what it refuses is tried again when ours are through, and now and then."""
    device = usb.open()
    usb.module.memory = 5000
    reading = [submitted(device, bulk_in(2000)) for _ in range(6)]
    assert len(usb.raw.flying) == 2
    for _ in range(6):
        assert device.run(Urb(TransferType.BULK, BULK_OUT, 1, b"x"), TIMEOUT).status == 0
    assert [status(device, transfer) for transfer in reading] == [0] * 6
    idle = submitted(device, Urb(TransferType.INTERRUPT, CDC_NOTIFY, 16))
    usb.module.memory = 0  # nothing of ours is in flight that will be through
    waiting = submitted(device, bulk_out(b"later"))
    assert waiting.completion is None
    usb.module.memory = 1 << 20
    assert status(device, waiting) == 0
    assert idle.completion is None


def test_memory_that_never_comes(usb: LocalUsb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "STARVING_PATIENCE", 0.0)
    device = usb.open()
    usb.module.memory = 0
    waiting = [submitted(device, bulk_out(b"x")) for _ in range(3)]
    assert {status(device, transfer) for transfer in waiting} == {-ENOMEM}
    usb.module.memory = 1 << 20
    assert device.run(bulk_out(b"x"), TIMEOUT).status == 0


def test_a_client_that_starves_may_unlink_and_close(usb: LocalUsb) -> None:
    device = usb.open()
    usb.module.memory = 0
    first, second = submitted(device, bulk_out(b"x")), submitted(device, bulk_out(b"y"))
    device.cancel(first)
    assert status(device, first) == -ECONNRESET
    device.close()
    assert status(device, second) == -ECONNRESET


# -- unplugged


def test_unplugged_with_all_kinds_of_urbs(usb: LocalUsb, monkeypatch: pytest.MonkeyPatch) -> None:
    small_budget(monkeypatch, 2000)
    device = usb.open()
    lost: list[str] = []
    reported = threading.Event()

    def on_lost(reason: str) -> None:
        lost.append(reason)
        reported.set()

    device.watch(on_lost)
    pending = [submitted(device, bulk_in(1000)) for _ in range(5)]
    pending += [submitted(device, Urb(TransferType.INTERRUPT, CDC_NOTIFY, 16))]
    usb.module.unplug(usb.raw)
    assert [status(device, transfer) for transfer in pending] == [-ESHUTDOWN] * 6
    assert reported.wait(TIMEOUT)
    assert lost == ["device 1-1 (1209:0001) was unplugged"] == [device.loss]
    for urb in (bulk_in(), descriptor(), Urb.control(requests.set_interface(3, 1).pack())):
        assert device.run(urb, TIMEOUT).status == -ESHUTDOWN
    # libusb 1.0.26 aborts in close() after a setInterfaceAltSetting() of what has gone.
    assert not [call for call in usb.module.calls if call[0] == "set_interface"]
    device.watch(lost.append)
    assert len(lost) == 2  # who asks later is told as well
    device.close()
    assert usb.module.calls[-1] == ("close",)


def test_unplugged_while_it_is_opened(usb: LocalUsb, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever watches it learns of it, though no URB is pending that would show it."""
    left, lost = threading.Event(), threading.Event()
    usb.bus.watch(left.set)
    made = device_module.LibusbDevice

    def slow(*arguments: object, **options: object) -> LibusbDevice:
        device = made(*arguments, **options)  # type: ignore[arg-type]
        usb.module.unplug(usb.raw)
        assert left.wait(TIMEOUT)
        return device

    monkeypatch.setattr(local_device, "LibusbDevice", slow)
    device = usb.open()
    device.watch(lambda reason: lost.set())
    assert lost.wait(TIMEOUT)
    assert not device.alive


def test_unplugged_where_nobody_says_so() -> None:
    """No hotplug: NO_DEVICE of a transfer, or of submitting one, is followed up."""
    with local_usb(has_hotplug=False) as usb:
        device = usb.open()
        reported = threading.Event()
        device.watch(lambda reason: reported.set())
        usb.raw.gone = True
        assert device.run(bulk_in(), TIMEOUT).status == -ESHUTDOWN
        assert reported.wait(TIMEOUT)
        assert not device.alive


def test_transfers_that_libusb_does_not_end(usb: LocalUsb, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded all the same: whoever waits for them, and who closes."""
    monkeypatch.setattr(device_module, "PATIENCE", 0.05)
    device = usb.open()
    usb.context.hold(True)
    reading = submitted(device, bulk_in())
    device.close()
    assert status(device, reading) == -ECONNRESET
    assert ("close",) not in usb.module.calls  # libusb would wait for it
    usb.context.hold(False)


def test_gone_with_transfers_that_libusb_does_not_end(usb: LocalUsb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "_GONE_PATIENCE", 0.05)
    device = usb.open()
    reading = submitted(device, bulk_in())
    usb.context.hold(True)
    device.lose()
    assert status(device, reading) == -ESHUTDOWN
    usb.context.hold(False)


def test_a_reset_that_makes_another_device_of_it(usb: LocalUsb) -> None:
    """A bootloader: libusb says NotFound, the old handle is dead."""
    device = usb.open()
    reported = threading.Event()
    device.watch(lambda reason: reported.set())

    def reenumerates() -> None:
        usb.module.unplug(usb.raw)
        raise usb1.error("NotFound")

    usb.raw.on_reset = reenumerates
    reset = requests.Setup(0x23, requests.SET_FEATURE, requests.PORT_RESET, 1, 0)
    assert device.run(Urb.control(reset.pack()), TIMEOUT).status < 0
    assert reported.wait(TIMEOUT)
    assert not device.alive


# -- for watchdogs


def test_who_is_stuck(usb: LocalUsb) -> None:
    device = usb.open()
    assert usb.bus.answers(TIMEOUT)
    assert device.working_since == 0.0
    go_on = threading.Event()

    def stuck() -> None:
        go_on.wait(TIMEOUT)

    usb.raw.on_reset = stuck
    resetting = submitted(device, Urb.control(requests.Setup(0x23, 3, 4, 1, 0).pack()))
    wait_until("it is in a request", lambda: device.working_since > 0.0)
    assert usb.bus.answers(TIMEOUT)  # which is not the event thread's
    usb.context.post(stuck)
    assert not usb.bus.answers(0.01)
    go_on.set()
    assert status(device, resetting) == 0
    assert usb.bus.answers(TIMEOUT)
    wait_until("it is through", lambda: device.working_since == 0.0)


# -- races that have an owner


def test_a_cancel_while_libusb_is_given_it(usb: LocalUsb) -> None:
    """Asked for between our decision and libusb's: not lost."""
    device = usb.open()
    transfer = Transfer(bulk_in())
    usb.raw.before_submit = lambda: device.cancel(transfer)
    device.submit(transfer)
    usb.raw.before_submit = lambda: None
    assert status(device, transfer) == -ECONNRESET


def test_it_is_not_closed_while_libusb_is_given_a_urb(usb: LocalUsb) -> None:
    device = usb.open()
    closing = threading.Thread(target=device.close)
    ended = threading.Event()
    released: list[bool] = []

    def meanwhile() -> None:
        closing.start()
        ended.wait(0.1)  # long enough for a close that does not wait
        released.append(("release", 0) in usb.module.calls)

    usb.raw.before_submit = meanwhile
    reading = Transfer(bulk_in(), lambda completion: ended.set())
    device.submit(reading)
    closing.join(TIMEOUT)
    assert released == [False]
    assert status(device, reading) == -ECONNRESET


def test_slots_are_not_used_again_while_they_are_cancelled(usb: LocalUsb) -> None:
    """Or the cancel of the one would hit the other."""
    device = usb.open()
    entered, go_on = threading.Event(), threading.Event()
    reading = submitted(device, bulk_in())

    def slow(transfer: usb1.USBTransfer) -> None:
        usb.raw.on_cancel = lambda transfer: None
        entered.set()
        go_on.wait(TIMEOUT)

    usb.raw.on_cancel = slow
    cancelling = threading.Thread(target=device.cancel, args=[reading])
    cancelling.start()
    assert entered.wait(TIMEOUT)
    assert device.run(bulk_out(b"x"), TIMEOUT).status == 0  # completes it
    assert status(device, reading) == 0
    others = [submitted(device, bulk_in()) for _ in range(4)]
    go_on.set()
    cancelling.join(TIMEOUT)
    assert device.run(descriptor(), TIMEOUT).status == 0  # what had ended before it has been called back for
    assert all(other.completion is None for other in others)
    device.close()


def test_a_device_that_is_full_of_requests_ends(usb: LocalUsb) -> None:
    device = usb.open()
    reset = Urb.control(requests.set_configuration(0).pack()), Urb.control(requests.set_configuration(1).pack())
    transfers = [submitted(device, reset[at % 2]) for at in range(20)]
    transfers += [submitted(device, Urb(TransferType.BULK, CDC_IN, 64)) for _ in range(20)]
    device.close()
    assert all(transfer.completion is not None for transfer in transfers)


def test_completions_come_once_whoever_ends_them(usb: LocalUsb) -> None:
    device = usb.open()
    ended: list[Completion] = []
    transfers = [Transfer(bulk_in(), ended.append) for _ in range(50)]
    for transfer in transfers:
        device.submit(transfer)
    threads = [threading.Thread(target=device.cancel, args=[transfer]) for transfer in transfers]
    threads += [threading.Thread(target=device.abandon, args=[transfer]) for transfer in transfers]
    threads += [threading.Thread(target=device.close)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert len(ended) == 50
    assert {completion.status for completion in ended} == {-ECONNRESET}


def test_a_child_uses_nothing_of_it(usb: LocalUsb) -> None:
    device = usb.open()
    reading = submitted(device, bulk_in())
    before = len(usb.module.calls)

    def child() -> None:
        device.close()
        usb.bus.close()
        usb.libusb.close()
        assert len(usb.module.calls) == before
        assert usb.context.is_open
        assert device.run(bulk_in(), TIMEOUT).status == -ESHUTDOWN

    assert forked(child) == 0
    assert device.run(bulk_out(b"to the parent"), TIMEOUT).status == 0
    assert status(device, reading) == 0


def test_many_clients_leave_nothing_behind(usb: LocalUsb) -> None:
    threads = threading.active_count() + 2  # libusb's, and the one that looks for devices
    gc.collect()
    before = sum(isinstance(thing, LibusbDevice) for thing in gc.get_objects())
    for _ in range(100):
        device = usb.bus.devices()[0].open(reset=True)
        reading = submitted(device, bulk_in())
        assert device.run(bulk_out(b"x"), TIMEOUT).status == 0
        assert status(device, reading) == 0
        submitted(device, bulk_in())
        device.close()
    del device
    gc.collect()
    assert sum(isinstance(thing, LibusbDevice) for thing in gc.get_objects()) <= before
    assert threading.active_count() <= threads
    assert len(usb.libusb._handles) == 0
    assert usb.raw.flying == {}
    assert usb.module.used == 0


@pytest.mark.skipif(build() == "compiled", reason="it patches a method, and compiled code calls that directly")
def test_nothing_is_let_go_while_the_device_is_released(usb: LocalUsb) -> None:
    """What usbfs had no memory for is queued again, although the device has begun to be closed."""
    device = usb.open()
    reading = submitted(device, bulk_in())
    flights, refusing, queued_again = device._flights, threading.Event(), threading.Event()
    fail_queued = flights.fail_queued
    failed: list[int] = []
    let_go: list[bool] = []

    def failing(status: int) -> None:
        if len(failed) == 2:  # libusb has nothing any more: the event thread, or another device's, comes before us
            flights._drain()
        fail_queued(status)
        failed.append(status)
        if len(failed) == 2:  # by the worker; from here on nobody looks at the queues until libusb has nothing
            refusing.set()
            queued_again.wait(TIMEOUT)

    def refuse() -> None:
        usb.raw.before_submit = lambda: let_go.append(True)
        refusing.wait(TIMEOUT)
        raise usb1.error("NoMem")

    def submit() -> None:
        device.submit(other)
        queued_again.set()

    flights.fail_queued = failing  # type: ignore[method-assign]
    usb.raw.before_submit = refuse
    other = Transfer(Urb(TransferType.INTERRUPT, CDC_NOTIFY, 16))
    submitting = threading.Thread(target=submit)
    submitting.start()
    wait_until("libusb is asked", lambda: usb.raw.before_submit is not refuse)
    device.close()
    submitting.join()
    assert not let_go
    assert [status(device, transfer) for transfer in (reading, other)] == [-ECONNRESET] * 2
