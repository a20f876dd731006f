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
from typing import Any, Final, TypeAlias

from usbip_capture.errors import LocalProtocolError, RemoteProtocolError
from usbip_capture.usb.urb import DIR_IN, Buffer, Completion, TransferType, Urb
from usbip_capture.wire.replies import completion_of, reply_body_length, unlinked
from usbip_capture.wire.structs import (
    CMD_SUBMIT,
    CMD_UNLINK,
    HEADER_SIZE,
    MAX_ISO_PACKETS,
    MAX_TRANSFER,
    REPLY,
    RET_SUBMIT,
    USBIP_CMD_SUBMIT,
    USBIP_CMD_UNLINK,
    USBIP_RET_SUBMIT,
    USBIP_RET_UNLINK,
    pack_iso,
)

#: Not a parameter of the class: mypyc gives generic ones weak references that it does not clear.
T: TypeAlias = Any

BUFFER_SIZE: Final = 256 << 10
#: Bodies from this size on are received in a buffer of their own, which the completion then keeps: no copy.
OWN_BUFFER: Final = 16 << 10
MAX_GHOSTS = 4096
_MAX_SEQNUM: Final = 0xFFFFFFFF

_ISO: Final = TransferType.ISOCHRONOUS
# Looked up once.
_pack_submit: Final = CMD_SUBMIT.pack
_unpack_reply: Final = REPLY.unpack_from


class ClientConnection:
    """Submits and unlinks to bytes, bytes to completions. T is what the caller wants back with a completion.

    `submit`, `unlink` and `forget` may be called while another thread is in `received`. `waiting` is the context whose
    owner receives: its memory is used for its own data, nobody else's ever is. `divert` when that changes.
    on_ret_unlink: called with each RET_UNLINK before what it completes is delivered. free: where the next bytes are to
    be put; never empty.
    """

    def __init__(self, devid: int) -> None:
        self.devid = devid
        self.on_ret_unlink: Callable[[bytes], None] | None = None
        self._numbers = count(1)
        self._pending: dict[int, tuple[Urb, T, memoryview | None]] = {}
        self._unlinks: dict[int, int] = {}
        self._ghosts: dict[int, Urb] = {}
        self._view = self.free = memoryview(bytearray(BUFFER_SIZE))
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
        endpoint, length, packets = urb.endpoint, urb.length, urb.packets
        number_of_packets = len(packets)
        if not 0 <= length <= MAX_TRANSFER or number_of_packets > MAX_ISO_PACKETS:
            raise LocalProtocolError(f"{urb!r} is too large: at most {MAX_TRANSFER} bytes, {MAX_ISO_PACKETS} packets")
        seqnum = next(self._numbers)
        if seqnum > _MAX_SEQNUM:
            seqnum = self._reused_seqnum(seqnum)
        # As `pack_submit`, without its call.
        header = _pack_submit(
            USBIP_CMD_SUBMIT, seqnum, self.devid, endpoint >> 7, endpoint & 0x0F, urb.flags, length, urb.start_frame,
            number_of_packets, urb.interval, urb.setup,
        )  # fmt: skip
        parts: list[Buffer] = [header]
        if endpoint & DIR_IN:
            self._pending[seqnum] = (urb, context, into)
        else:
            if length:
                if len(urb.data) != length:
                    raise LocalProtocolError(f"{urb!r} has {len(urb.data)} bytes of data")
                parts.append(urb.data)
            self._pending[seqnum] = (urb, context, None)
        if number_of_packets:
            parts.append(pack_iso(packets))
        return seqnum, parts

    def unlink(self, context: T) -> bytes | None:
        """CMD_UNLINK for the pending URB of `context`; None if it is not pending."""
        target = self._seqnum(context)
        if target is None:
            return None
        seqnum = next(self._numbers)
        if seqnum > _MAX_SEQNUM:
            seqnum = self._reused_seqnum(seqnum)
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
            self.free = private[self._own_end :]

    def take_pending(self) -> list[tuple[Urb, T]]:
        """All that waits, in order of submission; nothing waits afterwards."""
        taken = []
        for seqnum in list(self._pending):
            entry = self._pending.pop(seqnum, None)
            if entry is not None:
                taken.append(entry[:2])
        return taken

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
    ) -> Completion | None:
        """`size` bytes were put in the buffers of `scatter` for `waiting`; see `received`."""
        header, into = buffers
        body = size - HEADER_SIZE
        if body > 0:
            command, seqnum, _, _, _, status, actual, *_ = RET_SUBMIT.unpack_from(header)
            entry = self._pending.get(seqnum)
            mine = entry is not None and entry[1] is waiting and command == USBIP_RET_SUBMIT
            whole = entry[2] if mine and entry is not None else None
            if whole is None or not body <= actual <= len(whole):
                # Something else came first, perhaps the reply to a URB submitted meanwhile by another thread.
                self._view[HEADER_SIZE:size] = into[:body]
            elif body == actual:
                is_pending = self._pending.pop(seqnum, None) is not None
                return Completion(status, actual, whole[:actual]) if is_pending else None
            else:
                self._own_header, self.borrowed = bytes(header), True
                self._own, self._own_end = whole[:actual], body
                self.free = self._own[body:]
                return None
        return self.received(size, deliver, waiting)

    def received(
        self, size: int, deliver: Callable[[T, Completion], None], waiting: T | None = None
    ) -> Completion | None:
        """`size` bytes were put in `free`: call `deliver` for each URB that they complete.

        When the last one is that of `waiting`, and nothing follows, its completion is returned and not delivered.
        Raises RemoteProtocolError when the stream cannot be followed; what was complete before is delivered.
        """
        if self._own is not None:
            self._received_apart(size, self._own, deliver)
            return None
        start, view, pending = self._start, self._view, self._pending
        end = self._end + size
        while end - start >= HEADER_SIZE:
            reply: tuple[int, int, int, int] = _unpack_reply(view, start)
            command, seqnum, status, actual = reply
            entry = pending.get(seqnum)
            if entry is not None and command == USBIP_RET_SUBMIT:
                urb, context, _ = entry
                body = start + HEADER_SIZE
                after = body + actual if urb.endpoint & DIR_IN else body
                if after <= end and 0 <= actual <= urb.length and urb.transfer_type != _ISO:
                    # Plain and whole, as nearly all are. Made before the URB is taken off: one with a reply that cannot
                    # be is still pending. And that before it is delivered: `deliver` may come back to this object.
                    completion = Completion(status, actual, view[body:after].tobytes() if after > body else b"")
                    is_pending = pending.pop(seqnum, None) is not None
                    if context is waiting and after == end and is_pending:
                        if self._end:
                            self._start, self._end, self.free = 0, 0, view
                        return completion
                    start, self._start, self._end = after, after, end
                    if is_pending:
                        deliver(context, completion)
                    else:
                        self._ghosts.pop(seqnum, None)
                    continue
            self._end = end
            taken = self._message(view, start, end - start, deliver, waiting)
            if not taken:
                break
            start = self._start = start + taken
        self._end = end
        self._make_room()
        return None

    def receive_data(self, data: Buffer) -> list[tuple[T, Completion]]:
        """`free` and `received` for bytes at hand."""
        events: list[tuple[T, Completion]] = []
        view = memoryview(data)
        while len(view):
            target = self.free
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
        # In this order for the reasons given in `received`; one that cannot be fails with the rest that is pending.
        completion = completion_of(urb, status, actual, start_frame, errors, bytes(body[:data]), body[data:])
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

    def _received_apart(self, size: int, body: memoryview, deliver: Callable[[T, Completion], None]) -> None:
        self._own_end += size
        if self._own_end < len(body):
            self.free = body[self._own_end :]
            return
        self._own, self.borrowed = None, False
        self._start = self._end = 0
        self.free = self._view
        self._finish_own(body, deliver)

    def _finish_own(self, body: memoryview, deliver: Callable[[T, Completion], None]) -> None:
        _, seqnum, _, _, _, status, actual, start_frame, packets, errors = RET_SUBMIT.unpack(self._own_header)
        entry = self._pending.get(seqnum)
        if entry is None:
            self._ghosts.pop(seqnum, None)
            return
        urb, context, _ = entry
        data, iso = reply_body_length(urb, actual, packets)
        completion = completion_of(urb, status, actual, start_frame, errors, body[:data], body[data : data + iso])
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

    def _reused_seqnum(self, number: int) -> int:
        """After 2**32 - 1, from 1 again, without those that are in use."""
        while True:
            seqnum = (number - 1) % _MAX_SEQNUM + 1
            if seqnum not in self._pending and seqnum not in self._ghosts and seqnum not in self._unlinks:
                return seqnum
            number = next(self._numbers)

    def _seqnum(self, context: T) -> int | None:
        for seqnum, entry in list(self._pending.items()):
            if entry[1] is context:
                return seqnum
        return None

    def _make_room(self) -> None:
        if self._own is not None:
            self._start = self._end = 0
            self.free = self._own[self._own_end :]
            return
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end > BUFFER_SIZE - OWN_BUFFER - HEADER_SIZE:
            # The rest is shorter than OWN_BUFFER and a header: it always fits in front.
            rest = bytes(self._view[self._start : self._end])
            self._view[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        self.free = self._view[self._end :]


def _keep_newest(remembered: dict[int, T]) -> None:
    """At most MAX_GHOSTS: some servers never answer. Other threads may add to them meanwhile."""
    if len(remembered) > MAX_GHOSTS:
        for seqnum in list(remembered)[: MAX_GHOSTS // 4]:
            remembered.pop(seqnum, None)
