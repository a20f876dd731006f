"""Reads both directions of somebody else's session and reports what became of its URBs, sans-IO.

The events are those that usbmon would have on the bus of the client:
  - CMD_SUBMIT: Submitted.
  - RET_SUBMIT: Completed. With -ECONNRESET if its CMD_UNLINK was on the way, as in the client's kernel.
  - RET_UNLINK, whatever its status, of a URB that still waits: Completed with -ECONNRESET and nothing moved.
  - end of the connection: Completed with -ESHUTDOWN for each URB that still waits.
  - more URBs that wait than are kept: Unanswered for the oldest.

Nothing that a peer sends makes it raise. Where it cannot follow, it looks for the next message, notes why, and counts
that in `counts`; after GIVE_UP bytes without a message it gives up.

Ref: Linux Documentation/usb/usbip_protocol.rst; drivers/usb/usbip/vhci_rx.c
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from itertools import islice
from typing import Final, TypeAlias, TypeVar

from usbip_capture.errors import RemoteProtocolError
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.learner import EndpointLearner
from usbip_capture.usb.status import ECONNRESET, ESHUTDOWN
from usbip_capture.usb.urb import DIR_IN, Buffer, Completion, IsoPacket, TransferType, Urb
from usbip_capture.wire.following import Follower
from usbip_capture.wire.observed import (
    Completed,
    Ended,
    Event,
    Imported,
    Noted,
    Stream,
    Submitted,
    Unanswered,
    Unlink,
    UnlinkReply,
)
from usbip_capture.wire.operations import MAX_DEVICES
from usbip_capture.wire.recognition import (
    MAX_OBSERVED,
    find_command,
    find_reply,
    imports_device,
    is_first_packet,
    listed_device_length,
    listed_devices,
    operation_reply_length,
    operation_request_length,
)
from usbip_capture.wire.replies import reply_body_length, unlinked
from usbip_capture.wire.structs import (
    CMD_SUBMIT,
    CMD_UNLINK,
    HEADER_SIZE,
    ISO_PACKET_SIZE,
    MAX_ISO_PACKETS,
    OP_COMMON,
    RET_SUBMIT,
    USBIP_CMD_SUBMIT,
    USBIP_CMD_UNLINK,
    USBIP_RET_SUBMIT,
    USBIP_RET_UNLINK,
    unpack_device,
    unpack_iso,
)

#: More than any client has: from then on the oldest URB is taken for one that is never answered.
MAX_PENDING = 65_536
#: URBs whose late reply can still be distinguished from nonsense.
_MAX_GHOSTS = 4096
#: Isochronous packets of all URBs that are kept: many times what any client has.
_MAX_PACKETS = 1 << 17
#: A table that is full drops one in so many at once: to find the oldest costs a walk over what has left it.
_SHARE = 16
#: Half of the seqnums: the other half is "before".
_HALF = 1 << 31

T = TypeVar("T")

_CONTROL: Final = TransferType.CONTROL
_BULK: Final = TransferType.BULK
_INTERRUPT: Final = TransferType.INTERRUPT
_ISO: Final = TransferType.ISOCHRONOUS
# Makes an event of its fields, without the function in Python that calling its class is.
_event: Final = tuple.__new__
# As the fields of `structs` come.
_Command: TypeAlias = "tuple[int, int, int, int, int, int, int, int, int, int, bytes]"
_Reply: TypeAlias = "tuple[int, int, int, int, int, int, int, int, int, int]"
_UNKNOWN = "message of unknown kind from the {}"
_ISO_WITH_HOLE = "isochronous URB with a gap in it"


class Observer(Follower):
    """One connection. `client` and `server` take the bytes that the two sides have sent.

    Bytes of the client go first where both are at hand: a reply is understood only after its request. What is handed
    over must not change afterwards, for events hold parts of it.

    from_start: False if the first bytes need not be the beginning of a message.
    max_pending: URBs that are waited for at a time.
    info: the imported device; as far as it is known if the session was seen from its middle. None before.
    """

    def __init__(self, *, from_start: bool = True, max_pending: int = MAX_PENDING) -> None:
        super().__init__(from_start)
        self._max_pending = max_pending
        self._packets = 0  # isochronous ones of URBs that are kept
        self.info: DeviceInfo | None = None
        self._devid: int | None = None
        self._learner = EndpointLearner(DeviceInfo("", 0, 0, Speed.UNKNOWN, 0, 0))
        self._kinds: dict[int, TransferType] = {}  # by endpoint, until the next control transfer
        self._unknown: set[int] = set()  # endpoints of which nothing was learnt, until then
        self._pending: dict[int, Urb] = {}
        self._ghosts: dict[int, Urb] = {}
        self._answerable = ChainMap(self._pending, self._ghosts)
        self._unlinks: dict[int, int] = {}  # seqnum of a CMD_UNLINK -> what it unlinks
        self._unlinking: dict[int, int] = {}  # the other way round, while that is pending
        self._newest = 0  # seqnum of the last CMD_SUBMIT
        self._doubtful: int | None = None  # replies to CMD_SUBMITs up to this one may have been missed
        self._listing = 0  # devices of a list that are still to come

    @property
    def pending(self) -> int:
        """How many URBs wait for their reply."""
        return len(self._pending)

    @property
    def memory(self) -> int:
        """Bytes of memory that what is remembered takes, about."""
        urbs = len(self._pending) + len(self._ghosts)
        unlinks = len(self._unlinks) + len(self._unlinking)
        learnt = self._learner.endpoints.descriptor_bytes
        return self.held + 400 * urbs + 150 * self._packets + 100 * unlinks + 30 * learnt

    def closed(self, timestamp_ns: int, reason: str = "the connection ended") -> list[Event]:
        """The connection is over, or one side has ended its stream."""
        if self.ended:
            return []
        self.ended = True
        events: list[Event] = []
        for seqnum, urb in self._pending.items():
            unlink = self._unlinking.get(seqnum, 0)
            completion = unlinked(urb, -ECONNRESET if unlink else -ESHUTDOWN)
            if self._doubtful is not None and (self._doubtful - seqnum) & 0xFFFFFFFF < _HALF:
                text = f"the reply to CMD_SUBMIT {seqnum} may be in what is missing; it ends here with the others"
                events.append(Noted(timestamp_ns, text))
            events.append(Completed(timestamp_ns, seqnum, urb, completion, unlink))
        self._pending.clear()
        events.append(Ended(timestamp_ns, reason))
        return events

    # -- what the client sends

    def _command(self, stream: Stream, data: Buffer, at: int, size: int, timestamp_ns: int) -> int:
        if size < HEADER_SIZE or data[at]:
            return self._request(stream, data, at, size, timestamp_ns)
        fields: _Command = CMD_SUBMIT.unpack_from(data, at)
        command, seqnum, devid, direction, ep, flags, length, start_frame, count, interval, setup = fields
        if command != USBIP_CMD_SUBMIT:
            return self._unlink(stream, data, at, timestamp_ns)
        if direction > 1 or ep > 15 or not 0 <= length <= MAX_OBSERVED:
            return self._lose(stream, "impossible CMD_SUBMIT", timestamp_ns)
        address = ep | (DIR_IN if direction else 0)
        kind = self._kinds.get(address) if ep else _CONTROL
        if kind is None:
            kind = self._kind(address, count, interval)
        total = body = HEADER_SIZE if direction else HEADER_SIZE + length
        packets: Sequence[IsoPacket] = ()
        if kind is _ISO or kind is None:
            total, kind = self._iso_length(stream, data, at + body, size - body, count, length, kind)
            total += body
        if size < total:
            stream.need = total
            return 0
        if total > body:
            if stream.hole:
                self._count(_ISO_WITH_HOLE)
                return total
            packets = unpack_iso(data[at + body : at + total])
        if devid != self._devid:
            self._joined(devid, timestamp_ns)
        urb = Urb(kind or _ISO, address, length, b"", setup, flags, interval, start_frame, packets)
        if len(self._pending) >= self._max_pending or self._packets > _MAX_PACKETS:
            self._make_room(timestamp_ns)
        if packets:
            self._packets += len(packets)
        self._pending[seqnum] = urb
        self._newest = seqnum
        end = at + (stream.hole if 0 < stream.hole < body else body)
        self._events.append(_event(Submitted, (timestamp_ns, seqnum, urb, data[at + HEADER_SIZE : end])))
        return total

    def _iso_length(
        self, stream: Stream, data: Buffer, at: int, size: int, count: int, length: int, kind: TransferType | None
    ) -> tuple[int, TransferType | None]:
        """Bytes of packet descriptors at `at`, where `size` bytes are at hand, and the type if that settles it."""
        if not 0 < count <= MAX_ISO_PACKETS:
            return 0, kind or _INTERRUPT
        if kind is None and not stream.hole:
            if size < ISO_PACKET_SIZE:
                return ISO_PACKET_SIZE, None
            if not is_first_packet(data, at, length):
                return 0, _INTERRUPT
        return count * ISO_PACKET_SIZE, _ISO

    def _kind(self, address: int, count: int, interval: int) -> TransferType | None:
        """The transfer type: from the descriptors, else guessed. None: isochronous if packet descriptors follow."""
        if address not in self._unknown:
            endpoint = self._learner.endpoints.likely(address)
            if endpoint is not None:
                self._kinds[address] = endpoint.transfer_type
                return endpoint.transfer_type
            self._unknown.add(address)
        if interval <= 0:
            return _BULK
        return None if count > 0 else _INTERRUPT

    def _unlink(self, stream: Stream, data: Buffer, at: int, timestamp_ns: int) -> int:
        command, seqnum, devid, _, _, target = CMD_UNLINK.unpack_from(data, at)
        if command != USBIP_CMD_UNLINK:
            return self._lose(stream, _UNKNOWN.format(stream.name), timestamp_ns)
        if devid != self._devid:
            self._joined(devid, timestamp_ns)
        self._unlinks[seqnum] = target
        if len(self._unlinks) > MAX_PENDING:
            _pop_oldest(self._unlinks)
        if target in self._pending:
            self._unlinking[target] = seqnum
        self._events.append(Unlink(timestamp_ns, seqnum, target, bytes(data[at : at + HEADER_SIZE])))
        return HEADER_SIZE

    def _request(self, stream: Stream, data: Buffer, at: int, size: int, timestamp_ns: int) -> int:
        """An OP request, or less than a header."""
        if not data[at]:
            stream.need = HEADER_SIZE
            return 0
        stream.need = need = operation_request_length(data, at, size)
        if not need:
            return self._lose(stream, _UNKNOWN.format(stream.name), timestamp_ns)
        return need if size >= need else 0

    def _joined(self, devid: int, timestamp_ns: int) -> None:
        """URBs of a device whose import was not seen, or of another one than was imported."""
        if self._devid is not None:
            self._count("devid other than that of the import")
            return
        self._devid = devid
        self.info = DeviceInfo("", devid >> 16, devid & 0xFFFF, Speed.UNKNOWN, 0, 0)
        self._events.append(Imported(timestamp_ns, self.info, seen=False))

    def _find(self, stream: Stream, data: Buffer, at: int) -> int:
        if stream is self._client:
            return find_command(data, at, self._devid)
        return find_reply(data, at, self._answerable, self._unlinks)

    def _doubt(self, stream: Stream) -> None:
        if stream is self._server:
            self._doubtful = self._newest  # clients count their messages
            self._listing = 0

    def _make_room(self, timestamp_ns: int) -> None:
        if self._packets > _MAX_PACKETS:
            self._ghosts.clear()
            self._packets = sum(len(urb.packets) for urb in self._pending.values())
            if len(self._pending) < self._max_pending and self._packets <= _MAX_PACKETS:
                return
        for seqnum, urb in _pop_oldest(self._pending):
            self._unlinking.pop(seqnum, None)
            self._count("URB that was never answered")
            self._packets -= len(urb.packets)
            self._events.append(Unanswered(timestamp_ns, seqnum, urb))

    # -- what the server sends

    def _reply(self, stream: Stream, data: Buffer, at: int, size: int, timestamp_ns: int) -> int:
        if size < HEADER_SIZE or data[at] or self._listing:
            return self._operation_reply(stream, data, at, size, timestamp_ns)
        fields: _Reply = RET_SUBMIT.unpack_from(data, at)
        command, seqnum, _, _, _, status, actual, start_frame, count, errors = fields
        if command != USBIP_RET_SUBMIT:
            return self._unlink_reply(stream, data, at, timestamp_ns)
        urb = self._pending.get(seqnum) or self._ghosts.get(seqnum)
        if urb is None:
            return self._lose(stream, "RET_SUBMIT without its CMD_SUBMIT", timestamp_ns)
        try:
            if urb.transfer_type is not _ISO and 0 <= actual <= urb.length:
                length, packets_length = (actual if urb.endpoint & DIR_IN else 0), 0
            else:
                length, packets_length = reply_body_length(urb, actual, count)
        except RemoteProtocolError:
            return self._lose(stream, "RET_SUBMIT that does not fit its CMD_SUBMIT", timestamp_ns)
        body = at + HEADER_SIZE
        total = HEADER_SIZE + length + packets_length
        if size < total:
            stream.need = total
            return 0
        if self._pending.pop(seqnum, None) is None:
            self._packets -= len(self._ghosts.pop(seqnum).packets)
            self._count("RET_SUBMIT after its URB was unlinked")
            return total
        if urb.packets:
            self._packets -= len(urb.packets)
        unlink = self._unlinking.pop(seqnum, 0) if self._unlinking else 0
        if unlink:
            status = -ECONNRESET
        end = min(body + length, at + stream.hole) if stream.hole else body + length
        if not packets_length:
            completion = Completion(status, actual, data[body:end])
        elif stream.hole:
            self._count(_ISO_WITH_HOLE)  # what each packet brought is not known
            completion = Completion(status, actual, b"", start_frame, errors)
        else:
            packets = unpack_iso(data[end : end + packets_length])
            completion = Completion(status, actual, data[body:end], start_frame, errors, packets)
        self._events.append(_event(Completed, (timestamp_ns, seqnum, urb, completion, unlink)))
        if urb.transfer_type is _CONTROL:
            self._learn(urb, completion)
        return total

    def _learn(self, urb: Urb, completion: Completion) -> None:
        self._learner.saw(urb, completion)
        self._forget_kinds()

    def _forget_kinds(self) -> None:
        self._kinds.clear()
        self._unknown.clear()

    def _unlink_reply(self, stream: Stream, data: Buffer, at: int, timestamp_ns: int) -> int:
        command, seqnum, _, _, _, status, *_ = RET_SUBMIT.unpack_from(data, at)
        if command != USBIP_RET_UNLINK:
            return self._lose(stream, _UNKNOWN.format(stream.name), timestamp_ns)
        target = self._unlinks.pop(seqnum, 0)
        if not target:
            self._count("RET_UNLINK without its CMD_UNLINK")
        self._events.append(UnlinkReply(timestamp_ns, seqnum, target, status, bytes(data[at : at + HEADER_SIZE])))
        urb = self._pending.pop(target, None)
        if urb is not None:
            self._unlinking.pop(target, None)
            self._ghosts[target] = urb
            if len(self._ghosts) > _MAX_GHOSTS:
                self._packets -= sum(len(ghost.packets) for _, ghost in _pop_oldest(self._ghosts))
            self._events.append(Completed(timestamp_ns, target, urb, unlinked(urb), seqnum))
        return HEADER_SIZE

    def _operation_reply(self, stream: Stream, data: Buffer, at: int, size: int, timestamp_ns: int) -> int:
        """An OP reply, a device in a list of these, or less than a header."""
        if self._listing:
            stream.need = need = listed_device_length(data, at, size)
            if size < need:
                return 0
            self._listing -= 1
            return need
        if not data[at]:
            stream.need = HEADER_SIZE
            return 0
        stream.need = need = operation_reply_length(data, at, size)
        if not need:
            return self._lose(stream, _UNKNOWN.format(stream.name), timestamp_ns)
        if size < need:
            return 0
        self._listing = listed_devices(data, at, need)
        if self._listing > MAX_DEVICES:
            return self._lose(stream, _UNKNOWN.format(stream.name), timestamp_ns)
        if imports_device(data, at, need):
            self.info = info = unpack_device(data[at + OP_COMMON.size : at + need])
            self._devid = info.devid
            self._learner = EndpointLearner(info)
            self._forget_kinds()
            self._events.append(Imported(timestamp_ns, info, seen=True))
        return need


def _pop_oldest(table: dict[int, T]) -> list[tuple[int, T]]:
    """Take out a share of what has been there longest."""
    oldest = list(islice(table.items(), max(len(table) // _SHARE, 1)))
    for seqnum, _ in oldest:
        del table[seqnum]
    return oldest
