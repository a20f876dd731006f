"""What a message costs `wire.server` does not depend on how much is pending, nor on how it is cut.

Time is compared with the time of half of it, the best of several: 2 when it grows as it should, 4 when it does not.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import pytest

from usbip_capture.demo import device as demo
from usbip_capture.errors import RemoteProtocolError
from usbip_capture.usb.status import ECONNRESET
from usbip_capture.usb.urb import Completion, TransferType
from usbip_capture.wire import structs
from usbip_capture.wire.server import MAX_PENDING, ServerConnection

REQ_IMPORT = structs.OP_COMMON.pack(0x111, structs.OP_REQ_IMPORT, 0) + structs.pack_busid("1-1")
KINDS = {0x81: TransferType.BULK, 0x02: TransferType.BULK, 0x83: TransferType.ISOCHRONOUS}


def imported() -> ServerConnection:
    conn = ServerConnection()
    conn.receive_data(REQ_IMPORT)
    conn.import_reply(demo.INFO, KINDS.get)
    return conn


def submit(seqnum: int, length: int = 64, ep: int = 1, direction: int = 1, packets: int = 0) -> bytes:
    return structs.CMD_SUBMIT.pack(1, seqnum, demo.INFO.devid, direction, ep, 0, length, 0, packets, 0, bytes(8))


def unlink(seqnum: int, target: int) -> bytes:
    return structs.CMD_UNLINK.pack(2, seqnum, demo.INFO.devid, 0, 0, target)


def unlinked_from_last_to_first(count: int) -> None:
    conn = imported()
    conn.receive_data(b"".join(submit(n) for n in range(1, count + 1)))
    for n in range(count, 0, -1):
        conn.receive_data(unlink(count + n, n))
        assert len(conn.complete(n, Completion(-ECONNRESET))) == 1


def completed_while_others_wait(count: int) -> None:
    conn = imported()
    conn.receive_data(b"".join(submit(n) for n in range(1, count + 1)))
    for n in range(count + 1, 2 * count + 1):
        conn.receive_data(submit(n))
        conn.complete(n, Completion(0))


def unlinks_of_nothing(count: int) -> None:
    conn = imported()
    for n in range(1, count + 1):
        conn.receive_data(unlink(count + n, n))
        assert conn.unlinked(n)


def a_body_in_small_pieces(count: int) -> None:
    conn = imported()
    conn.receive_data(submit(1, count * 64, 2, 0))
    for _ in range(count - 1):
        assert not conn.receive_data(bytes(64))
    assert len(conn.receive_data(bytes(64))) == 1


def many_messages_at_once(count: int) -> None:
    conn = imported()
    assert len(conn.receive_data(b"".join(submit(n) for n in range(1, count + 1)))) == count


@pytest.mark.parametrize(
    "work",
    [
        unlinked_from_last_to_first,
        completed_while_others_wait,
        unlinks_of_nothing,
        a_body_in_small_pieces,
        many_messages_at_once,
    ],
)
def test_twice_as_much_costs_twice_as_much(work: Callable[[int], None]) -> None:
    def best(count: int) -> float:
        times = []
        for _ in range(5):
            started = time.process_time()
            work(count)
            times.append(time.process_time() - started)
        return min(times)

    gc.collect()
    gc.disable()
    try:
        for _ in range(3):  # once more if the machine was busy with something else
            if (ratio := best(12_000) / best(6_000)) < 3:
                break
    finally:
        gc.enable()
    assert ratio < 3


@pytest.mark.parametrize(
    ("request_of", "cost"),
    [
        (submit, 4 << 10),
        (lambda n: submit(n, 1 << 20, 2, 0) + bytes(1 << 20), 1 << 20),
        (lambda n: submit(n, 1024, 3, 1, 1024) + structs.ISO_PACKET.pack(0, 1, 0, 0) * 1024, 128 << 10),
    ],
    ids=["many small ones", "data", "packets"],
)
def test_pending_urbs_are_bounded_in_bytes_whatever_they_are_made_of(
    request_of: Callable[[int], bytes], cost: int
) -> None:
    conn = imported()
    for n in range(1, int(0.95 * MAX_PENDING) // cost):
        conn.receive_data(request_of(n))
    rest = b"".join(request_of(n) for n in range(MAX_PENDING // cost, int(1.1 * MAX_PENDING) // cost))
    with pytest.raises(RemoteProtocolError, match="more than can be kept"):
        conn.receive_data(rest)


def test_what_is_answered_is_not_pending_any_more() -> None:
    conn = imported()
    for n in range(1, 3 * MAX_PENDING >> 20):
        conn.receive_data(submit(n, 1 << 20, 2, 0) + bytes(1 << 20))
        conn.complete(n, Completion(0, 1 << 20))
