"""How a server speaks USB/IP, judged by its replies.

What is right is what Linux does.

Ref: Linux drivers/usb/usbip/stub_rx.c, stub_tx.c; Documentation/usb/usbip_protocol.rst
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import TypeAlias

from usbip_capture.errors import ServerLost
from usbip_capture.selftest.raw import RawSession
from usbip_capture.selftest.results import Result, note, right, skipped, wrong
from usbip_capture.usb import setup as requests
from usbip_capture.usb.endpoints import Endpoint
from usbip_capture.usb.status import (
    ECONNRESET,
    EMSGSIZE,
    EPIPE,
    NEWLIB_EMSGSIZE,
    status_name,
)
from usbip_capture.usb.urb import DIR_IN, FLAG_DIR_IN, TransferType, Urb

Open: TypeAlias = Callable[[], RawSession]

#: Seconds to wait for a reply, and for one that Linux does not send.
_PATIENCE = 3.0
_SHORT_PATIENCE = 0.5
#: A peer that waits for more to send (Nagle) answers so many seconds late, once the client delays its acknowledgement.
_NAGLE = 0.03
_ROUNDS = 40
_PIPELINED = 16
_LARGE = 64 << 10


def get_device_descriptor(length: int = 18) -> Urb:
    """A request that every device answers."""
    return Urb.control(requests.get_descriptor(requests.DT_DEVICE, 0, 0, length).pack())


def check_replies(session: RawSession) -> Iterator[Result]:
    """Header fields, latency, order."""
    reply = session.answer(get_device_descriptor(), _PATIENCE)
    if reply is None:
        yield wrong("RET_SUBMIT", f"no answer to GET_DESCRIPTOR within {_PATIENCE:g} s")
        return
    echoed = bool(reply.devid or reply.direction or reply.endpoint)
    yield (note if echoed else right)("devid, direction, ep", "echoed" if echoed else "0 in replies")
    packets = reply.number_of_packets
    plain = packets in (0, -1)
    yield (right if plain else note)("number_of_packets", f"{packets} in replies that are not isochronous")
    times = []
    for _ in range(_ROUNDS):
        timed = session.answer(get_device_descriptor(), _PATIENCE)
        times.append(timed.seconds if timed is not None else _PATIENCE)
    median = statistics.median(times)
    slow = " (no TCP_NODELAY at the server?)" if median > _NAGLE else ""
    yield (note if slow else right)("latency", f"{median * 1000:.2f} ms a control transfer, median{slow}")
    yield _order(session)


def check_stall(session: RawSession) -> Iterator[Result]:
    """A request that no device knows."""
    setup = requests.Setup(0x80, requests.GET_DESCRIPTOR, 0x7F00, 0, 64)
    reply = session.answer(Urb.control(setup.pack()), _PATIENCE)
    if reply is None:
        yield wrong("stall", f"no answer to an unknown request within {_PATIENCE:g} s")
    elif reply.status == -EPIPE:
        yield right("stall", status_name(reply.status))
    else:
        yield (wrong if reply.status > 0 else note)("stall", f"{status_name(reply.status)} instead of EPIPE")


def check_unlink(session: RawSession, idle: Endpoint | None) -> Iterator[Result]:
    """CMD_UNLINK of what is pending, and of what never was: Linux answers that after its next reply."""
    if idle is None:
        yield skipped("UNLINK, pending", "no interrupt or bulk IN endpoint was idle")
    else:
        yield _unlink_pending(session, idle)
    seqnum = session.unlink(0x7FFFFFFF)
    reply = session.reply(_SHORT_PATIENCE)
    held_back = reply is None
    after = session.answer(get_device_descriptor(), _PATIENCE)
    if reply is None:
        reply = session.reply(_SHORT_PATIENCE)
    if reply is None:
        yield note("UNLINK, unknown URB", "no answer")
    else:
        good = reply.unlinks and reply.seqnum == seqnum and reply.status == 0
        when = ", but only after the next reply" if held_back else ""
        yield (right if good else note)("UNLINK, unknown URB", f"answered with {status_name(reply.status)}{when}")
    usable = after is not None and after.status == 0
    yield (right if usable else wrong)("after UNLINK", "goes on" if usable else "no answers any more")


def check_sizes(session: RawSession, bulk_in: Endpoint | None) -> Iterator[Result]:
    """A bulk transfer of 64 KiB, and the numbers in which errors are reported."""
    if bulk_in is None:
        yield skipped("64 KiB transfers", "no bulk IN endpoint was idle")
        return
    seqnum = session.submit(_in_urb(bulk_in, _LARGE))
    reply = session.reply(_SHORT_PATIENCE)
    if reply is None:
        session.unlink(seqnum)
        while session.reply(_SHORT_PATIENCE) is not None:
            pass
        session.gave_up(seqnum)
        yield right("64 KiB transfers", "accepted")
    elif reply.status in (-EMSGSIZE, -NEWLIB_EMSGSIZE):
        numbers = "Linux" if reply.status == -EMSGSIZE else "newlib"
        yield note("64 KiB transfers", f"refused: {status_name(reply.status)}, in {numbers} numbers: they are cut")
    else:
        yield (note if reply.status else right)("64 KiB transfers", status_name(reply.status))


def check_rude(open_session: Open, missing_endpoint: int) -> Iterator[Result]:
    """What some servers end the connection for: each in a session of its own."""
    try:
        with open_session() as session:
            reply = session.answer(get_device_descriptor(), _PATIENCE, number_of_packets=-1)
        good = reply is not None and reply.status == 0
        yield (right if good else note)("number_of_packets -1", "accepted" if good else "not answered")
    except ServerLost:
        yield note("number_of_packets -1", "ends the connection")
    try:
        with open_session() as session:
            urb = Urb(TransferType.BULK, missing_endpoint | DIR_IN, 64, flags=FLAG_DIR_IN)
            reply = session.answer(urb, _SHORT_PATIENCE)
            outcome = "not answered" if reply is None else status_name(reply.status)
            yield (right if reply is None or reply.status else wrong)("missing endpoint", outcome)
    except ServerLost:
        yield note("missing endpoint", "ends the connection")


def _order(session: RawSession) -> Result:
    sent = [session.submit(get_device_descriptor(8 + number % 8)) for number in range(_PIPELINED)]
    got: list[int] = []
    while len(got) < len(sent) and (reply := session.reply(_PATIENCE)) is not None:
        got.append(reply.seqnum)
    if sorted(got) != sent:
        return wrong("16 requests at once", f"{len(got)} were answered")
    if got != sent:
        return note("16 requests at once", "answered in another order, on one endpoint")
    return right("16 requests at once", "answered in order")


def _unlink_pending(session: RawSession, idle: Endpoint) -> Result:
    name = "UNLINK, pending"
    target = session.submit(_in_urb(idle, idle.packet_size))
    early = session.reply(0.05)
    if early is not None:
        return skipped(name, f"endpoint {idle.address:#04x} had data")
    seqnum = session.unlink(target)
    reply = session.reply(_PATIENCE)
    session.gave_up(target)
    if reply is None:
        return note(name, f"no answer within {_PATIENCE:g} s")
    if not reply.unlinks:
        return note(name, f"RET_SUBMIT with {status_name(reply.status)} instead of RET_UNLINK")
    if reply.seqnum != seqnum:
        return wrong(name, "answered with another seqnum")
    if reply.status == -ECONNRESET:
        return right(name, status_name(reply.status))
    return note(name, f"{status_name(reply.status)} instead of ECONNRESET")


def _in_urb(endpoint: Endpoint, size: int) -> Urb:
    return Urb(endpoint.transfer_type, endpoint.address, size, flags=FLAG_DIR_IN, interval=endpoint.interval)
