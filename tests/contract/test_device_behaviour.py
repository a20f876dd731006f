"""What every `Device` promises, wherever the USB device lives, when all goes well."""

from __future__ import annotations

import threading

import pytest

from tests.contract.openers import KINDS, OVER_BACKEND, TIMEOUT, bulk_in, bulk_out, control, run
from usbip_capture.demo import device as demo
from usbip_capture.demo.device import BULK_OUT, ISO_IN, ISO_OUT, DemoDevice
from usbip_capture.device import Device, Transfer, after_unlink
from usbip_capture.errors import LocalProtocolError
from usbip_capture.usb import setup as requests
from usbip_capture.usb.status import (
    ECONNRESET,
    ENOENT,
    EOPNOTSUPP,
    EPIPE,
    EREMOTEIO,
    EXDEV,
)
from usbip_capture.usb.urb import SHORT_NOT_OK, Completion, IsoPacket, TransferType, Urb


def test_descriptors(device: Device) -> None:
    for kind, index, expected in (
        (requests.DT_DEVICE, 0, demo.DESCRIPTORS.device),
        (requests.DT_CONFIGURATION, 0, demo.DESCRIPTORS.configurations[0]),
        (requests.DT_BOS, 0, demo.DESCRIPTORS.bos),
    ):
        completion = run(device, control(requests.get_descriptor(kind, index, 0, 1000)))
        assert bytes(completion.data) == expected
        assert bytes(run(device, control(requests.get_descriptor(kind, index, 0, 4))).data) == expected[:4]


def test_short_read_keeps_its_length(device: Device) -> None:
    assert run(device, bulk_out(b"hello")).actual_length == 5
    completion = run(device, bulk_in(64))
    assert (completion.status, completion.actual_length, bytes(completion.data)) == (0, 5, b"hello")


def test_short_not_ok(device: Device) -> None:
    run(device, bulk_out(b"hello"))
    completion = run(device, bulk_in(64, SHORT_NOT_OK))
    assert (completion.status, bytes(completion.data)) == (-EREMOTEIO, b"hello")


@pytest.mark.parametrize("size", [0, 1, 512, 4096, 100_000, 1 << 20])
def test_every_size_comes_back_whole(device: Device, size: int) -> None:
    data = bytes(i * 7 & 0xFF for i in range(min(size, 4096))) * max(size // 4096, 1)
    data = data.ljust(size, b"\xa5")[:size]
    run(device, bulk_out(data))
    assert bytes(run(device, bulk_in(max(size, 1))).data) == data


def test_control_data_both_ways(device: Device) -> None:
    data = bytes(range(64))
    assert run(device, control(requests.Setup(0x40, 0x10, 0, 0, 64), data)).status == 0
    assert bytes(run(device, control(requests.Setup(0xC0, 0x10, 0, 0, 100))).data) == data


def test_unknown_requests_stall(device: Device) -> None:
    assert run(device, control(requests.Setup(0xC0, 0x77, 0, 0, 4))).status == -EPIPE
    assert run(device, control(requests.get_descriptor(requests.DT_STRING, 99, 0x0409, 255))).status == -EPIPE


def test_a_halted_endpoint_stalls_until_cleared(device: Device) -> None:
    halt = requests.Setup(0x02, requests.SET_FEATURE, requests.ENDPOINT_HALT, BULK_OUT, 0)
    assert run(device, control(halt)).status == 0
    assert run(device, bulk_out(b"x")).status == -EPIPE
    assert run(device, control(requests.clear_halt(BULK_OUT))).status == 0
    assert run(device, bulk_out(b"x")).status == 0


def test_an_idle_read_can_be_unlinked(device: Device) -> None:
    assert device.run(bulk_in(8), 0.02).status == -ECONNRESET
    run(device, bulk_out(b"later"))
    assert bytes(run(device, bulk_in(8)).data) == b"later"


def test_several_idle_reads_are_unlinked_together(device: Device) -> None:
    transfers = [Transfer(bulk_in(8)) for _ in range(4)]
    for transfer in transfers:
        device.submit(transfer)
    device.unlink(transfers, 5.0)
    assert [after_unlink(transfer).status for transfer in transfers] == [-ECONNRESET] * 4


def test_cancelling_what_is_finished_changes_nothing(device: Device) -> None:
    transfer = Transfer(bulk_out(b"x"))
    device.submit(transfer)
    assert device.wait(transfer, TIMEOUT)
    device.cancel(transfer)
    device.abandon(transfer)
    assert transfer.completion is not None
    assert transfer.completion.status == 0
    with pytest.raises(LocalProtocolError):
        transfer.finish(Completion(0))


@pytest.mark.parametrize("opener", [kind for kind in KINDS if kind != OVER_BACKEND], indirect=True)
def test_isochronous_both_ways(device: Device) -> None:
    assert run(device, control(requests.set_interface(3, 1))).status == 0
    slots = [IsoPacket(i * 64, 64) for i in range(8)]
    sizes = [5, 64, 1, 0, 33, 2, 7, 64]
    out = [IsoPacket(i * 64, n) for i, n in enumerate(sizes)]
    data = bytes(i & 0xFF for i in range(512))
    sent = run(device, Urb(TransferType.ISOCHRONOUS, ISO_OUT, 512, data, interval=8, packets=out))
    assert [p.actual_length for p in sent.packets] == sizes
    got = run(device, Urb(TransferType.ISOCHRONOUS, ISO_IN, 512, interval=8, packets=slots))
    assert [(p.offset, p.actual_length) for p in got.packets] == [(i * 64, n) for i, n in enumerate(sizes)]
    assert bytes(got.data) == b"".join(data[p.offset : p.offset + p.length] for p in out)


@pytest.mark.parametrize("opener", [OVER_BACKEND], indirect=True)
def test_pyusb_has_no_lengths_for_single_packets(device: Device) -> None:
    """So that what has short ones between is refused as a whole, rather than sent wrongly."""
    assert run(device, control(requests.set_interface(3, 1))).status == 0
    packets = [IsoPacket(0, 5), IsoPacket(64, 64)]
    refused = run(device, Urb(TransferType.ISOCHRONOUS, ISO_OUT, 128, bytes(128), interval=8, packets=packets))
    assert (refused.status, [packet.status for packet in refused.packets]) == (-EOPNOTSUPP, [-EXDEV, -EXDEV])


def test_isochronous_in_full_packets(device: Device) -> None:
    assert run(device, control(requests.set_interface(3, 1))).status == 0
    packets = [IsoPacket(i * 64, 64) for i in range(7)] + [IsoPacket(448, 10)]
    data = bytes(i & 0xFF for i in range(458))
    sent = run(device, Urb(TransferType.ISOCHRONOUS, ISO_OUT, 458, data, interval=8, packets=packets))
    assert [p.actual_length for p in sent.packets] == [64] * 7 + [10]
    got = run(device, Urb(TransferType.ISOCHRONOUS, ISO_IN, 458, interval=8, packets=packets))
    assert [(p.offset, p.actual_length) for p in got.packets] == [(p.offset, p.length) for p in packets]
    assert bytes(got.data) == data


def test_many_in_flight_finish_once_and_in_order(device: Device) -> None:
    finished: list[bytes] = []
    enough = threading.Event()

    def done(completion: Completion) -> None:
        finished.append(bytes(completion.data))
        if len(finished) == 50:
            enough.set()

    for _ in range(50):
        device.submit(Transfer(bulk_in(16), done))
    for i in range(50):
        run(device, bulk_out(b"%d" % i))
    assert enough.wait(TIMEOUT)
    assert finished == [b"%d" % i for i in range(50)]


def test_threads_do_not_disturb_each_other(device: Device) -> None:
    def work(fill: int, good: list[int]) -> None:
        data = bytes([fill]) * 32
        for _ in range(100):
            stored = run(device, control(requests.get_descriptor(requests.DT_DEVICE, 0, 0, 18)))
            good.append(bytes(stored.data) == demo.DESCRIPTORS.device and run(device, bulk_out(data)).actual_length)

    good: list[int] = []
    threads = [threading.Thread(target=work, args=(i, good)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert good == [32] * 600


def test_what_is_abandoned_is_finished_at_once(device: Device) -> None:
    """Whatever it waits for: an endpoint that has nothing to send, its turn behind others, an answer."""
    waiting = [Transfer(bulk_in(8)) for _ in range(3)]
    for transfer in waiting:
        device.submit(transfer)
    for transfer in waiting:
        device.cancel(transfer)
        device.abandon(transfer)
        assert transfer.completion is not None
        assert transfer.completion.status == -ECONNRESET
    assert bytes(run(device, control(requests.get_descriptor(requests.DT_DEVICE, 0, 0, 8))).data)


def test_local_devices_refuse_endpoints_that_are_not_there() -> None:
    device = DemoDevice()
    assert device.run(bulk_in(8), TIMEOUT).status == -ENOENT  # not configured yet
    device.close()
