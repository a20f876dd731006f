"""The client's side of an imported device's connection, sans-IO.

A RET_SUBMIT does not hold its length: that depends on the request it answers. So the table of pending URBs and
the framing of replies are one object.

Life of a URB: SUBMITTED until its RET_SUBMIT, or until a RET_UNLINK for it, whatever its status: servers give
-ECONNRESET when the URB was unlinked, but also 0 for one that they then never answer. A RET_SUBMIT that was on its
way wins. A seqnum that ended otherwise is remembered for a while as a ghost, so that a late RET_SUBMIT can be framed.

Ref: Linux Documentation/usb/usbip_protocol.rst, USBIP_CMD_SUBMIT ... USBIP_RET_UNLINK
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Generic, TypeVar

from usbip_capture.errors import LocalProtocolError, RemoteProtocolError
from usbip_capture.usb.status import ECONNRESET, EXDEV
from usbip_capture.usb.urb import DIR_IN, Buffer, Completion, IsoPacket, TransferType, Urb
from usbip_capture.wire.structs import (
    CMD_UNLINK,
    HEADER_SIZE,
    ISO_PACKET_SIZE,
    MAX_ISO_PACKETS,
    MAX_TRANSFER,
    RET_SUBMIT,
    USBIP_CMD_UNLINK,
    USBIP_RET_SUBMIT,
    USBIP_RET_UNLINK,
    pack_iso,
    pack_submit,
    unpack_iso,
)

T = TypeVar("T")

BUFFER_SIZE = 256 << 10
#: Bodies from this size on are received in a buffer of their own, which the completion then keeps: no copy.
OWN_BUFFER = 16 << 10
MAX_GHOSTS = 4096
_MAX_SEQNUM = 0xFFFFFFFF

_ISO = TransferType.ISOCHRONOUS


def reply_body_length(urb: Urb, actual_length: int, packets: int) -> tuple[int, int]:
    """Bytes of data and of packet descriptors that follow a RET_SUBMIT header.

    Raises RemoteProtocolError for lengths that the request does not allow.
    Ref: usbip_protocol.rst, USBIP_RET_SUBMIT
    """
    inward = urb.endpoint & DIR_IN
    if actual_length < 0 or (inward and actual_length > urb.length):
        raise RemoteProtocolError(f"the server answered {urb!r} with {actual_length} bytes, more than were asked for")
    data = actual_length if inward else 0
    if urb.transfer_type != _ISO:
        return data, 0  # number_of_packets may hold anything here
    if packets == len(urb.packets):
        return data, packets * ISO_PACKET_SIZE
    if packets <= 0 and not data:
        return 0, 0  # refused as a whole, by a bridge that knows no isochronous transfers
    raise RemoteProtocolError(f"the server answered {urb!r} of {len(urb.packets)} packets with {packets}")


class ClientConnection(Generic[T]):
    """Submits and unlinks to bytes, bytes to completions. T is what the caller wants back with a completion.

    `submit`, `unlink` and `forget` may be called while another thread is in `received`. `waiting` is the context whose
    owner receives: its memory is used for its own data, nobody else's ever is. `divert` when that changes.
    on_ret_unlink: called with each RET_UNLINK before what it completes is delivered.
    """

    def __init__(self, devid: int) -> None:
        self.devid = devid
        self.on_ret_unlink: Callable[[bytes], None] | None = None
        self._numbers = count(1)
        self._pending: dict[int, tuple[Urb, T, memoryview | None]] = {}
        self._unlinks: dict[int, int] = {}
        self._ghosts: dict[int, Urb] = {}
        self._view = memoryview(bytearray(BUFFER_SIZE))
        self._start = self._end = 0
        self._own: memoryview | None = None  # the body being received apart, and the header before it
        self._own_end = 0
        self._own_header = b""
        self.borrowed = False  # `_own` is memory of the URB's owner

    @property
    def pending(self) -> int:
        """How many URBs wait for their reply."""
        return len(self._pending)

    @property
    def unanswered_unlinks(self) -> int:
        """How many CMD_UNLINKs wait for their RET_UNLINK; some servers never send it."""
        return len(self._unlinks)

    def not_unlinked(self) -> list[T]:
        """The contexts of all that is pending without a CMD_UNLINK under way."""
        unlinking = set(self._unlinks.values())
        return [entry[1] for seqnum, entry in list(self._pending.items()) if seqnum not in unlinking]

    def submit(self, urb: Urb, context: T, into: memoryview | None = None) -> tuple[int, list[Buffer]]:
        """The seqnum of a new CMD_SUBMIT and its bytes, in parts. Raises LocalProtocolError for what no peer takes.

        into: where the data of an IN transfer may be received; of no use to another one, whose reply has none.
        """
        if not 0 <= urb.length <= MAX_TRANSFER or len(urb.packets) > MAX_ISO_PACKETS:
            raise LocalProtocolError(f"{urb!r} is too large: at most {MAX_TRANSFER} bytes, {MAX_ISO_PACKETS} packets")
        seqnum = self._next_seqnum()
        parts: list[Buffer] = [pack_submit(urb, seqnum, self.devid)]
        if not urb.endpoint & DIR_IN and urb.length:
            if len(urb.data) != urb.length:
                raise LocalProtocolError(f"{urb!r} has {len(urb.data)} bytes of data")
            parts.append(urb.data)
        if urb.packets:
            parts.append(pack_iso(urb.packets))
        self._pending[seqnum] = (urb, context, into if urb.endpoint & DIR_IN else None)
        return seqnum, parts

    def unlink(self, context: T) -> bytes | None:
        """CMD_UNLINK for the pending URB of `context`; None if it is not pending."""
        target = self._seqnum(context)
        if target is None:
            return None
        seqnum = self._next_seqnum()
        self._unlinks[seqnum] = target
        _keep_newest(self._unlinks)
        return CMD_UNLINK.pack(USBIP_CMD_UNLINK, seqnum, self.devid, 0, 0, target)

    def forget(self, context: T) -> bool:
        """Stop waiting for the URB of `context`: its reply, if one comes, is read and dropped.

        False if it is not pending.
        """
        seqnum = self._seqnum(context)
        return seqnum is not None and self._bury(seqnum) is not None

    def divert(self) -> None:
        """The owner of the memory that is being received into stops receiving: go on in a private buffer.

        Not while another thread is in `received`.
        """
        if self.borrowed and self._own is not None:
            private = memoryview(bytearray(len(self._own)))
            private[: self._own_end] = self._own[: self._own_end]
            self._own, self.borrowed = private, False

    def take_pending(self) -> list[tuple[Urb, T]]:
        """All that waits, in order of submission; nothing waits afterwards."""
        taken = []
        for seqnum in list(self._pending):
            entry = self._pending.pop(seqnum, None)
            if entry is not None:
                taken.append(entry[:2])
        return taken

    def buffer(self) -> memoryview:
        """Where the next bytes are to be put; never empty."""
        if self._own is not None:
            return self._own[self._own_end :]
        return self._view[self._end :]

    def scatter(self, context: T) -> list[memoryview] | None:
        """Where the next header, and the data that then follows, are to be put, so that it need not be moved.

        None unless the URB of `context` is all that is waited for. Then `scattered` instead of `received`.
        """
        if self._own is not None or self._end or len(self._pending) != 1:
            return None
        for _, waiting, into in self._pending.values():
            if waiting is context and into is not None and len(into) >= OWN_BUFFER:
                return [self._view[:HEADER_SIZE], into[: BUFFER_SIZE - HEADER_SIZE]]
        return None

    def scattered(
        self, buffers: list[memoryview], size: int, deliver: Callable[[T, Completion], None], waiting: T
    ) -> None:
        """`size` bytes were put in the buffers of `scatter` for `waiting`; see `received`."""
        header, into = buffers
        body = size - HEADER_SIZE
        if body > 0:
            command, seqnum, _, _, _, status, actual, *_ = RET_SUBMIT.unpack_from(header)
            entry = self._pending.get(seqnum)
            mine = entry is not None and entry[1] is waiting and command == USBIP_RET_SUBMIT
            whole = entry[2] if mine and entry is not None else None
            if entry is None or whole is None or not body <= actual <= len(whole):
                # Something else came first, perhaps the reply to a URB submitted meanwhile by another thread.
                self._view[HEADER_SIZE:size] = into[:body]
            elif body == actual:
                if self._pending.pop(seqnum, None) is not None:
                    deliver(entry[1], Completion(status, actual, whole[:actual]))
                return
            else:
                self._own_header, self.borrowed = bytes(header), True
                self._own, self._own_end = whole[:actual], body
                return
        self.received(size, deliver, waiting)

    def received(self, size: int, deliver: Callable[[T, Completion], None], waiting: T | None = None) -> None:
        """`size` bytes were put in `buffer()`: call `deliver` for each URB that they complete.

        Raises RemoteProtocolError when the stream cannot be followed; what was complete before is delivered.
        """
        if self._own is not None:
            self._own_end += size
            if self._own_end < len(self._own):
                return
            body, self._own, self.borrowed = self._own, None, False
            self._start = self._end = 0
            self._finish_own(body, deliver)
            return
        self._end += size
        start, view = self._start, self._view
        while self._end - start >= HEADER_SIZE:
            taken = self._message(view, start, self._end - start, deliver, waiting)
            if not taken:
                break
            start = self._start = start + taken
        self._make_room()

    def receive_data(self, data: Buffer) -> list[tuple[T, Completion]]:
        """`buffer` and `received` for bytes at hand."""
        events: list[tuple[T, Completion]] = []
        view = memoryview(data)
        while len(view):
            target = self.buffer()
            size = min(len(target), len(view))
            target[:size] = view[:size]
            self.received(size, lambda context, completion: events.append((context, completion)))
            view = view[size:]
        return events

    def in_message(self) -> bool:
        """Whether the bytes so far end in the middle of a message."""
        return self._own is not None or self._end > self._start

    def _message(
        self, view: memoryview, at: int, size: int, deliver: Callable[[T, Completion], None], waiting: T | None
    ) -> int:
        """Handle the message at `at`; its length, or 0 if it is not all there."""
        command, seqnum, _, _, _, status, actual, start_frame, packets, errors = RET_SUBMIT.unpack_from(view, at)
        if command == USBIP_RET_UNLINK:
            if self.on_ret_unlink is not None:
                self.on_ret_unlink(bytes(view[at : at + HEADER_SIZE]))
            self._ret_unlink(seqnum, deliver)
            return HEADER_SIZE
        if command != USBIP_RET_SUBMIT:
            raise RemoteProtocolError(f"the server sent a message of unknown kind {command:#x}, out of step")
        entry = self._pending.get(seqnum)
        urb = entry[0] if entry else self._ghosts.get(seqnum)
        if urb is None:
            raise RemoteProtocolError(f"the server answered request {seqnum}, which was never sent")
        data, iso = reply_body_length(urb, actual, packets)
        total = HEADER_SIZE + data + iso
        if size < total:
            if total - HEADER_SIZE >= OWN_BUFFER:
                self._receive_apart(view[at : at + size], seqnum, data, iso, waiting)
            return 0
        body = view[at + HEADER_SIZE : at + total]
        # Made before the URB is taken off: one with a reply that cannot be is still pending, and fails with the rest.
        completion = _completion(urb, status, actual, start_frame, errors, bytes(body[:data]), body[data:])
        # Taken off before it is delivered: what `deliver` does may come back to this object.
        if entry is None or self._pending.pop(seqnum, None) is None:
            self._ghosts.pop(seqnum, None)
            return total
        self._start = at + total
        deliver(entry[1], completion)
        return total

    def _receive_apart(self, so_far: memoryview, seqnum: int, data: int, iso: int, waiting: T | None) -> None:
        """Go on receiving this message's body in a buffer of its own, best in that of the one who waits for it."""
        self._own_header = bytes(so_far[:HEADER_SIZE])
        entry = self._pending.get(seqnum)
        into = entry[2] if entry is not None and entry[1] is waiting else None
        self.borrowed = into is not None and not iso
        if into is None or iso:
            into = memoryview(bytearray(data + iso))
        body = so_far[HEADER_SIZE:]
        into[: len(body)] = body
        self._own, self._own_end = into[: data + iso], len(body)

    def _finish_own(self, body: memoryview, deliver: Callable[[T, Completion], None]) -> None:
        _, seqnum, _, _, _, status, actual, start_frame, packets, errors = RET_SUBMIT.unpack(self._own_header)
        entry = self._pending.get(seqnum)
        if entry is None:
            self._ghosts.pop(seqnum, None)
            return
        urb, context, _ = entry
        data, iso = reply_body_length(urb, actual, packets)
        completion = _completion(urb, status, actual, start_frame, errors, body[:data], body[data : data + iso])
        if self._pending.pop(seqnum, None) is None:  # given up meanwhile, by another thread
            self._ghosts.pop(seqnum, None)
            return
        deliver(context, completion)

    def _ret_unlink(self, seqnum: int, deliver: Callable[[T, Completion], None]) -> None:
        target = self._unlinks.pop(seqnum, None)
        if target is None:
            return  # a second answer to one CMD_UNLINK is seen in the wild
        entry = self._bury(target)
        if entry is not None:
            self._start += HEADER_SIZE
            deliver(entry[1], unlinked(entry[0]))

    def _bury(self, seqnum: int) -> tuple[Urb, T, memoryview | None] | None:
        entry = self._pending.pop(seqnum, None)
        if entry is not None:
            urb = entry[0]
            # Without its data, which its owner may want to have back.
            self._ghosts[seqnum] = Urb(urb.transfer_type, urb.endpoint, urb.length, packets=urb.packets)
            _keep_newest(self._ghosts)
        return entry

    def _next_seqnum(self) -> int:
        """From 1 to 2**32 - 1 and then again, without those that are in use."""
        while True:
            seqnum = next(self._numbers)
            if seqnum <= _MAX_SEQNUM:
                return seqnum
            seqnum = (seqnum - 1) % _MAX_SEQNUM + 1
            if seqnum not in self._pending and seqnum not in self._ghosts and seqnum not in self._unlinks:
                return seqnum

    def _seqnum(self, context: T) -> int | None:
        for seqnum, entry in list(self._pending.items()):
            if entry[1] is context:
                return seqnum
        return None

    def _make_room(self) -> None:
        if self._own is not None or self._start == self._end:
            self._start = self._end = 0
        elif self._end > BUFFER_SIZE - OWN_BUFFER - HEADER_SIZE:
            # The rest is shorter than OWN_BUFFER and a header: it always fits in front.
            rest = bytes(self._view[self._start : self._end])
            self._view[: len(rest)] = rest
            self._start, self._end = 0, len(rest)


def _keep_newest(remembered: dict[int, T]) -> None:
    """At most MAX_GHOSTS: some servers never answer. Other threads may add to them meanwhile."""
    if len(remembered) > MAX_GHOSTS:
        for seqnum in list(remembered)[: MAX_GHOSTS // 4]:
            remembered.pop(seqnum, None)


def unlinked(urb: Urb, status: int = -ECONNRESET) -> Completion:
    """The completion of a URB that brought nothing: unlinked, or its device lost."""
    packets = [IsoPacket(p.offset, p.length, 0, -EXDEV) for p in urb.packets]
    # The start frame is then still that of the request.
    return Completion(status, start_frame=urb.start_frame if packets else 0, packets=packets)


def _completion(
    urb: Urb, status: int, actual: int, start_frame: int, errors: int, data: Buffer, iso: memoryview
) -> Completion:
    if urb.transfer_type != _ISO:
        return Completion(status, actual, data)
    packets = []
    for asked, got in zip(urb.packets, unpack_iso(iso), strict=False):
        if got.actual_length > asked.length:
            raise RemoteProtocolError(f"the server answered {urb!r} with a packet longer than asked for")
        # The request's offsets: some bridges send zeros.
        packets.append(IsoPacket(asked.offset, asked.length, got.actual_length, got.status))
    if urb.endpoint & DIR_IN and sum(p.actual_length for p in packets) != actual:
        raise RemoteProtocolError(f"the server answered {urb!r} with packets that do not add up to its length")
    return Completion(status, actual, data, start_frame, errors, packets)
