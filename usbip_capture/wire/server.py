"""The server's side of one connection, sans-IO: bytes in, requests out; replies to bytes.

A connection begins with OP requests. After a granted import it carries URBs only.

The race between UNLINK and completion, and who wins: the device decides. It finishes each URB once, either with what
came of it or with -ECONNRESET because it was cancelled. `complete` answers for both parties at that moment:
  - not unlinked: RET_SUBMIT.
  - unlinked, and the device cancelled it: RET_UNLINK -ECONNRESET, and no RET_SUBMIT ever.
  - unlinked, but done all the same: RET_SUBMIT, then RET_UNLINK 0.
An UNLINK of what is not pending (any more) is answered at once: RET_UNLINK 0.

A request that no device can run is refused alone, as long as it is known where it ends; the session goes on.

Ref: Linux Documentation/usb/usbip_protocol.rst; drivers/usb/usbip/stub_rx.c, stub_tx.c
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple, TypeAlias

from usbip_capture.errors import RemoteProtocolError
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.status import ECONNRESET, EINVAL, ENOENT, EXDEV
from usbip_capture.usb.urb import DIR_IN, NO_SETUP, Buffer, Completion, IsoPacket, TransferType, Urb
from usbip_capture.wire import structs


class State(Enum):
    """Life of a connection."""

    OPERATIONS = "waiting for an OP request"
    LISTED = "the list of devices was asked for: the connection ends"
    IMPORTING = "an import was asked for"
    IMPORTED = "URBs"


#: Each legal step; anything not in this table is the peer's mistake or ours.
TRANSITIONS = {
    (State.OPERATIONS, structs.OP_REQ_DEVLIST): State.LISTED,
    (State.OPERATIONS, structs.OP_REQ_IMPORT): State.IMPORTING,
    (State.IMPORTING, structs.OP_REP_IMPORT): State.IMPORTED,
}


class DevlistRequested(NamedTuple):
    """Answer with `devlist`."""


class ImportRequested(NamedTuple):
    """Answer with `import_reply`, or with `import_refused` and close."""

    busid: str


class UrbSubmitted(NamedTuple):
    """A URB to run; answer with `complete` when it is finished."""

    seqnum: int
    urb: Urb


class UrbRefused(NamedTuple):
    """A URB that cannot be run; answer with `complete` and this completion."""

    seqnum: int
    completion: Completion


class UnlinkRequested(NamedTuple):
    """Cancel the pending URB `target`; `complete` answers this request as well."""

    target: int


Event: TypeAlias = "DevlistRequested | ImportRequested | UrbSubmitted | UrbRefused | UnlinkRequested"

#: Bytes that the pending URBs of a client may take: their buffers, and what each URB and packet needs with us and in a
#: device. No more than 32768 URBs.
MAX_PENDING = 128 << 20
_URB_COST, _PACKET_COST = 4 << 10, 128
#: Bytes of data that are joined with what they follow: below that, copying costs less than two parts do.
_JOIN_UP_TO = 4 << 10

#: Returns what kind of endpoint a bEndpointAddress is now; None if there is no such endpoint.
EndpointLookup: TypeAlias = Callable[[int], "TransferType | None"]


class ServerConnection:
    """Raises RemoteProtocolError for what a Linux server would close the connection for."""

    def __init__(self) -> None:
        self.state = State.OPERATIONS
        self._data = bytearray()
        self._version = structs.VERSION  # the client's, once it has sent a request
        self._devid = 0
        self._lookup: EndpointLookup = lambda address: None
        self._pending: dict[int, tuple[Urb, int, int]] = {}  # with number_of_packets, and what it costs
        # Two counts, each with one writer: who reads requests is not who answers them.
        self._taken_bytes = self._answered_bytes = 0
        self._unlinks: dict[int, int] = {}  # target -> seqnum of the UNLINK

    def receive_data(self, data: Buffer) -> list[Event]:
        """The requests that are complete with these bytes."""
        held = self._data
        held += data
        events: list[Event] = []
        while self.state != State.IMPORTED and held:
            if not self._operation(events):
                return events
        while len(held) >= structs.HEADER_SIZE and self._message(events):
            pass
        return events

    @property
    def pending_bytes(self) -> int:
        """What the pending URBs take; from any thread."""
        return self._taken_bytes - self._answered_bytes

    def devlist(self, devices: Sequence[DeviceInfo]) -> bytes:
        """OP_REP_DEVLIST."""
        reply = [
            structs.OP_COMMON.pack(self._version, structs.OP_REP_DEVLIST, 0),
            structs.DEVLIST_COUNT.pack(len(devices)),
        ]
        for info in devices:
            reply.append(structs.pack_device(info))
            for codes in info.interfaces[: info.bNumInterfaces]:
                reply.append(
                    structs.INTERFACE.pack(codes.bInterfaceClass, codes.bInterfaceSubClass, codes.bInterfaceProtocol)
                )
        return b"".join(reply)

    def import_reply(self, info: DeviceInfo, lookup: EndpointLookup) -> bytes:
        """OP_REP_IMPORT; from now on URBs are for `info`, whose endpoints `lookup` knows."""
        self._step(structs.OP_REP_IMPORT)
        self._devid = info.devid
        self._lookup = lookup
        # No interfaces follow: Linux clients lose their place if they do.
        return structs.OP_COMMON.pack(self._version, structs.OP_REP_IMPORT, 0) + structs.pack_device(info)

    def import_refused(self, status: structs.OpStatus) -> bytes:
        """OP_REP_IMPORT of an import that is refused."""
        return structs.OP_COMMON.pack(self._version, structs.OP_REP_IMPORT, status)

    def complete(self, seqnum: int, completion: Completion) -> list[Buffer]:
        """The device finished a URB: the bytes that answer its SUBMIT, its UNLINK, or both; in parts."""
        urb, count, cost = self._pending.pop(seqnum)
        self._answered_bytes += cost
        unlink = self._unlinks.pop(seqnum, None)
        if unlink is not None and completion.status == -ECONNRESET:
            return [structs.RET_UNLINK.pack(structs.USBIP_RET_UNLINK, unlink, 0, 0, 0, -ECONNRESET)]
        parts = _ret_submit(seqnum, urb, count, completion)
        if unlink is not None:
            parts.append(structs.RET_UNLINK.pack(structs.USBIP_RET_UNLINK, unlink, 0, 0, 0, 0))
        return parts

    def unlinked(self, target: int) -> bytes:
        """The answer to an UNLINK whose target is not pending (any more). Empty if it is, or was until just now:
        `complete` answers then, or has answered."""
        unlink = None if target in self._pending else self._unlinks.pop(target, None)
        if unlink is None:
            return b""
        return structs.RET_UNLINK.pack(structs.USBIP_RET_UNLINK, unlink, 0, 0, 0, 0)

    # -- reading

    def _step(self, code: int) -> None:
        following = TRANSITIONS.get((self.state, code))
        if following is None:
            raise RemoteProtocolError(f"OP code {code:#06x} does not fit here: {self.state.value}")
        self.state = following

    def _operation(self, events: list[Event]) -> bool:
        data, common = self._data, structs.OP_COMMON
        if self.state != State.OPERATIONS:
            raise RemoteProtocolError(f"the client sent more than it may: {self.state.value}")
        if len(data) < common.size:
            return False
        version, code, _ = common.unpack_from(data)
        structs.check_version(version)
        self._version = version
        if code == structs.OP_REQ_DEVLIST:
            self._step(code)
            del data[: common.size]
            events.append(DevlistRequested())
            return True
        size = common.size + structs.BUSID_SIZE
        if code == structs.OP_REQ_IMPORT and len(data) < size:
            return False
        self._step(code)
        busid = bytes(data[common.size : size]).split(b"\0", 1)[0]
        del data[:size]
        events.append(ImportRequested(busid.decode("utf-8", "replace")))
        return True

    def _message(self, events: list[Event]) -> bool:
        data = self._data
        command, seqnum, devid = structs.BASIC.unpack_from(data)
        if devid != self._devid:
            raise RemoteProtocolError(f"a request is for device {devid:#x}, but {self._devid:#x} was imported")
        if command == structs.USBIP_CMD_UNLINK:
            target = structs.CMD_UNLINK.unpack_from(data)[5]
            del data[: structs.HEADER_SIZE]
            self._unlinks[target] = seqnum
            events.append(UnlinkRequested(target))
            return True
        if command != structs.USBIP_CMD_SUBMIT:
            raise RemoteProtocolError(f"the client sent a message of unknown kind {command:#x}")
        return self._submit(events)

    def _submit(self, events: list[Event]) -> bool:
        data = self._data
        _, seqnum, _, direction, ep, flags, length, start_frame, count, interval, setup = (
            structs.CMD_SUBMIT.unpack_from(data)
        )
        if not 0 <= length <= structs.MAX_TRANSFER or ep > 15 or direction > 1:
            raise RemoteProtocolError(f"request {seqnum} is impossible: endpoint {ep}, {length} bytes")
        if seqnum in self._pending:
            raise RemoteProtocolError(f"request {seqnum} is pending already")
        address = ep | (DIR_IN if direction else 0)
        kind = TransferType.CONTROL if ep == 0 else self._lookup(address)
        body = end = structs.HEADER_SIZE + (0 if direction else length)
        if kind == TransferType.ISOCHRONOUS:
            end += _checked_count(seqnum, count) * structs.ISO_PACKET_SIZE
        if len(data) < end:
            return False
        payload = data[structs.HEADER_SIZE : body]  # a copy already
        packets = structs.unpack_iso(data[body:end]) if end > body else []
        del data[:end]
        refused = 0
        if kind is None:
            refused, kind = ENOENT, TransferType.BULK
        elif kind == TransferType.CONTROL:
            refused = EINVAL if setup[6] | setup[7] << 8 != length else 0
            address = DIR_IN if setup[0] & DIR_IN and length else 0
        elif packets and any(p.offset + p.length > length for p in packets):
            refused = EINVAL
        if kind != TransferType.CONTROL:
            setup = NO_SETUP
        urb = Urb(kind, address, length, payload, setup, flags, interval, start_frame, packets)
        cost = _URB_COST + length + _PACKET_COST * len(packets)
        self._taken_bytes += cost
        if self._taken_bytes - self._answered_bytes > MAX_PENDING:
            raise RemoteProtocolError(f"{len(self._pending) + 1} requests are pending, more than can be kept")
        self._pending[seqnum] = (urb, count, cost)
        if refused:
            nothing = [IsoPacket(p.offset, p.length, 0, -EXDEV) for p in packets]
            events.append(UrbRefused(seqnum, Completion(-refused, packets=nothing)))
        else:
            events.append(UrbSubmitted(seqnum, urb))
        return True


def _checked_count(seqnum: int, count: int) -> int:
    """Packet descriptors that follow. Off isochronous endpoints the field is 0, -1 or left over from an earlier URB."""
    if not 0 <= count <= structs.MAX_ISO_PACKETS:
        raise RemoteProtocolError(f"request {seqnum} has {count} isochronous packets")
    return count


def _ret_submit(seqnum: int, urb: Urb, count: int, completion: Completion) -> list[Buffer]:
    """RET_SUBMIT with what follows it: data of IN, descriptors of packets; number_of_packets as the client had it."""
    header = structs.RET_SUBMIT.pack(
        structs.USBIP_RET_SUBMIT,
        seqnum,
        0,
        0,
        0,
        completion.status,
        completion.actual_length,
        completion.start_frame,
        count,
        completion.error_count,
    )
    if not urb.endpoint & DIR_IN or not completion.actual_length:
        parts: list[Buffer] = [header]
    elif completion.actual_length <= _JOIN_UP_TO:
        parts = [header + completion.data]
    else:
        parts = [header, completion.data]
    if urb.packets:
        parts.append(structs.pack_iso(completion.packets))
    return parts
