"""What the URBs of clients add up to: per endpoint and device, exact with many threads, and only if somebody asks."""

from __future__ import annotations

import threading
from dataclasses import replace

from tests.fakes.scripted_server import read_exactly
from tests.fakes.served import BULK_IN, DEVID, Served, reply, submit, unlink
from tests.waiting import wait_until
from usbip_capture.demo.device import BULK_OUT, INFO
from usbip_capture.server.figures import DeviceFigures, Figures, Totals
from usbip_capture.usb.status import ECONNRESET, EPIPE
from usbip_capture.usb.urb import Completion, TransferType, Urb
from usbip_capture.wire import structs

IN, OUT = Urb(TransferType.BULK, 0x81, 512), Urb(TransferType.BULK, 0x02, 4, b"abcd")


def test_what_a_client_has_done_with_its_device() -> None:
    served = Served()
    served.server.figures = Figures()
    try:
        with served.imported() as (sock, device):
            sock.sendall(submit(2, 512) + submit(3, 512) + submit(4, 512))
            device.wait_for(3)
            device.complete(0, b"x" * 300)
            assert reply(sock)[2] == 0
            device._finish(device.held[1], Completion(-EPIPE))
            assert reply(sock)[2] == -EPIPE
            sock.sendall(unlink(5, 4))
            assert reply(sock)[2] == -ECONNRESET
            sock.sendall(structs.CMD_SUBMIT.pack(1, 6, DEVID, 0, BULK_OUT, 0, 5, 0, 0, 0, bytes(8)) + b"12345")
            device.wait_for(4)
            device._finish(device.held[3], Completion(0, 5))
            read_exactly(sock, 48)
            figures = served.server.figures.find(INFO)
            assert figures is not None
            wait_until("a URB is counted after its reply", lambda: figures.totals.urbs == 5)
            by_address = {endpoint.address: endpoint for endpoint in figures.endpoints}
            assert list(by_address) == [0x00, BULK_OUT, BULK_IN | 0x80]
            found = by_address[BULK_IN | 0x80]
            assert (found.urbs, found.bytes, found.errors, found.cancelled) == (3, 300, 1, 1)
            assert (found.times.count, found.last_status, found.transfer_type) == (2, -ECONNRESET, TransferType.BULK)
            assert 0 < found.times.minimum <= found.times.maximum <= found.sum_ns
            client = served.server.clients[0]
            assert (client.busid, client.bytes_in, client.bytes_out) == ("1-1", 300, 5)
        wait_until("the device is free", served.is_free)
        with served.imported():  # the next client begins anew, the device goes on
            wait_until("its request is counted", lambda: figures.totals.urbs == 6)
            assert [(client.bytes_in, client.bytes_out) for client in served.server.clients if client.busid] == [(0, 0)]
        assert figures.totals[1:] == (300, 5, 1)
    finally:
        served.server.close()


def test_nothing_is_counted_that_nobody_has_asked_for() -> None:
    served = Served()
    try:
        with served.imported() as (sock, device):
            sock.sendall(submit(2, 512))
            device.wait_for(1)
            assert device.held[0].done.func.__name__ == "_completed"  # type: ignore[union-attr]
            device.complete(0, b"x")
            assert reply(sock)[2] == 0
            assert served.server.clients[0].bytes_in == 0
    finally:
        served.server.close()


def test_a_client_has_a_number_of_its_own_by_which_it_is_ended() -> None:
    served = Served()
    try:
        with served.imported() as (first, _), served.connected():
            wait_until("both are connected", lambda: len(served.server.clients) == 2)
            numbers = [client.number for client in served.server.clients]
            assert len(set(numbers)) == 2
            assert (served.server.round_trip(numbers[0]) or 1) > 0
            assert served.server.disconnect_client(numbers[0], "a test wants it", "web:test")
            assert first.recv(1) == b""
            wait_until("one is left", lambda: [client.number for client in served.server.clients] == numbers[1:])
            assert not served.server.disconnect_client(numbers[0])
            assert served.server.round_trip(numbers[0]) is None
            ended = [event for event in served.server.events.after(0, 100) if event.kind == "ended"]
            assert [(event.by, event.text, event.busid) for event in ended] == [("web:test", "a test wants it", "1-1")]
    finally:
        served.server.close()


def test_threads_lose_no_count() -> None:
    figures = DeviceFigures()

    def count() -> None:
        for _ in range(2000):
            figures.add(IN, Completion(0, 3), 1000)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert figures.totals == Totals(8000, 24000, 0, 0)
    assert [endpoint.times.count for endpoint in figures.endpoints] == [8000]


def test_isochronous_urbs_with_bad_packets_are_errors() -> None:
    figures = DeviceFigures()
    figures.add(Urb(TransferType.ISOCHRONOUS, 0x85, 512), Completion(0, 100, error_count=1), 5)
    assert figures.totals == Totals(1, 100, 0, 1)


def test_a_device_that_is_plugged_in_again_begins_at_zero_and_the_sum_of_all_does_not() -> None:
    figures = Figures()
    figures.of(INFO).add(IN, Completion(0, 100), 5)
    again = replace(INFO, devnum=INFO.devnum + 1)
    assert figures.find(again) is None
    figures.of(again).add(OUT, Completion(0, 4), 5)
    assert figures.of(again) is figures.find(again)
    assert (figures.find(INFO), figures.of(again).totals) == (None, Totals(1, 0, 4, 0))
    assert figures.totals == Totals(2, 100, 4, 0)


def test_times_by_powers_of_two() -> None:
    figures = DeviceFigures()
    for took in (3, 4, 7, 1000, 1023, 1024, 1 << 40):
        figures.add(IN, Completion(0), took)
    assert figures.endpoints[0].times.powers() == {2: 1, 3: 2, 10: 2, 11: 1, 41: 1}
