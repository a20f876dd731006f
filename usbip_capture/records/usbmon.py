"""The events that Linux's usbmon shows of URBs, as libpcap records them (LINKTYPE_USB_LINUX_MMAPPED, 220).

An event is a 64-byte header, the descriptors of isochronous packets, then data; all little-endian. The model is usbmon
on the bus of the host that imported the device.

Ref: Linux Documentation/usb/usbmon.rst; drivers/usb/mon/mon_bin.c; drivers/usb/core/hcd.c, __usb_hcd_giveback_urb;
https://www.tcpdump.org/linktypes/LINKTYPE_USB_LINUX_MMAPPED.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from struct import Struct
from typing import Final, NamedTuple

from usbip_capture.errors import CaptureError
from usbip_capture.records.pcapng import ENHANCED_PACKET, PACKET_OVERHEAD, captured_limit, pack_comments
from usbip_capture.usb.status import EINPROGRESS, EREMOTEIO, EXDEV
from usbip_capture.usb.urb import (
    DIR_IN,
    FLAG_DIR_IN,
    NO_SETUP,
    SHORT_NOT_OK,
    Buffer,
    Completion,
    IsoPacket,
    TransferType,
    Urb,
    spread,
)

# id, type, xfer_type, epnum, devnum, busnum, flag_setup, flag_data, ts_sec, ts_usec, status, length, len_cap, setup,
# interval, start_frame, xfer_flags, ndesc
_FIELDS = "QBBBBHBBqiiII8siiII"
HEADER = Struct("<" + _FIELDS)
HEADER_SIZE: Final = 64
# status, offset, length; 4 bytes of padding
ISO_DESCRIPTOR = Struct("<iII4x")
ISO_DESCRIPTOR_SIZE = ISO_DESCRIPTOR.size
#: usbmon shows no more of them; the header still counts all of them.
MAX_ISO_DESCRIPTORS = 128
#: Data from this size on is handed out as a buffer of its own; below, joining is cheaper.
OWN_BUFFER: Final = 4096

SUBMIT: Final = 0x53  # S
COMPLETE: Final = 0x43  # C
ERROR: Final = 0x45  # E

_NO_SETUP_FLAG: Final = 0x2D  # -
_DATA_LATER: Final = 0x3C  # <, submit of an inward URB
_DATA_EARLIER: Final = 0x3E  # >, completion of an outward URB

# Head of the enhanced packet block (type, total length, interface, timestamp high and low, captured length, original
# length), then the header: one call packs both.
_BLOCK: Final = Struct("<IIIIIII" + _FIELDS).pack
# Up to so much data, one call packs the whole block, where nothing is cut and nothing is commented.
_SMALL = 512
_ISO_COUNTS: Final = Struct("<ii")
_TOTAL: Final = Struct("<I").pack
_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")
# The kernel sets URB_DIR_IN itself, and USBIP_URB_DMA_MAP_SG only on the way to the wire.
_KEPT_FLAGS: Final = 0xFFFFFFFF & ~0x40000 & ~FLAG_DIR_IN

_CONTROL: Final = TransferType.CONTROL
_BULK: Final = TransferType.BULK
_ISOCHRONOUS: Final = TransferType.ISOCHRONOUS


class IsoDescriptor(NamedTuple):
    """One isochronous packet of an event: 0 or -errno, its place in the buffer, bytes asked for or moved."""

    status: int
    offset: int
    length: int


@dataclass(slots=True)
class UsbmonRecord:
    """An event as read from a capture, its fields named as usbmon does."""

    id: int
    type: int
    xfer_type: int
    epnum: int
    devnum: int
    busnum: int
    flag_setup: int
    flag_data: int
    ts_sec: int
    ts_usec: int
    status: int
    length: int
    len_cap: int
    setup: bytes
    interval: int
    start_frame: int
    xfer_flags: int
    ndesc: int
    packets: list[IsoDescriptor]
    data: bytes

    @classmethod
    def parse(cls, raw: bytes) -> UsbmonRecord:
        """The event in `raw`; descriptors and data as far as they were captured.

        Raises CaptureError if the header was not.
        """
        if len(raw) < HEADER_SIZE:
            raise CaptureError(f"a record of {len(raw)} bytes is shorter than the header of a usbmon event")
        fields = HEADER.unpack_from(raw)
        ndesc = min(fields[-1], (len(raw) - HEADER_SIZE) // ISO_DESCRIPTOR_SIZE)
        end = HEADER_SIZE + ndesc * ISO_DESCRIPTOR_SIZE
        packets = [IsoDescriptor(*d) for d in ISO_DESCRIPTOR.iter_unpack(raw[HEADER_SIZE:end])]
        data = raw[end:] if ndesc == fields[-1] else b""
        return cls(*[*fields, packets, data])

    @property
    def iso_counts(self) -> tuple[int, int]:
        """error_count and number_of_packets of an isochronous event, which lie where others have `setup`."""
        error_count, packets = _ISO_COUNTS.unpack(self.setup)
        return error_count, packets


class UsbmonPacker:
    """Packs the events of one device on one pcapng interface, each as an enhanced packet block.

    A block is appended to a list, in one buffer or, when its data is large, in three; its length is returned.
    """

    __slots__ = ("_busnum", "_devnum", "_interface_id", "_limit", "_small", "_snaplen")

    def __init__(self, interface_id: int, snaplen: int, busnum: int, devnum: int) -> None:
        self._interface_id = interface_id
        self._snaplen = snaplen
        self._limit = captured_limit(snaplen)
        self._small = min(_SMALL, self._limit - HEADER_SIZE)
        self._busnum = busnum & 0xFFFF
        # usbmon has a byte for it; 0 stays for a device without an address.
        self._devnum = (devnum - 1) % 255 + 1 if devnum else 0

    def submit(
        self, out: list[Buffer], timestamp_ns: int, urb_id: int, urb: Urb, data: Buffer, comments: Sequence[str] = ()
    ) -> int:
        """A URB is on its way. `data` is that of an outward one."""
        kind = urb.transfer_type
        epnum = urb.endpoint
        setup, flag_setup = NO_SETUP, _NO_SETUP_FLAG
        interval = start_frame = 0
        descriptors = b""
        if kind is _CONTROL:
            setup, flag_setup = urb.setup, 0
            epnum = epnum | DIR_IN if setup[0] & DIR_IN and (setup[6] or setup[7]) else epnum & ~DIR_IN
        elif kind is not _BULK:
            interval = _rounded_down(urb.interval)
            if kind is _ISOCHRONOUS:
                start_frame = urb.start_frame
                setup = _ISO_COUNTS.pack(0, len(urb.packets))
                shown = urb.packets[:MAX_ISO_DESCRIPTORS]
                descriptors = _pack_descriptors([(-EXDEV, p.offset, p.length) for p in shown])
        if epnum & DIR_IN:
            data, whole = b"", 0
            flag_data, flags = _DATA_LATER, urb.flags & _KEPT_FLAGS | FLAG_DIR_IN
        else:
            whole = urb.length
            flag_data, flags = 0, urb.flags & _KEPT_FLAGS
        return self._append(
            out, timestamp_ns, urb_id, SUBMIT, kind, epnum, flag_setup, flag_data, -EINPROGRESS, urb.length,
            setup, interval, start_frame, flags, descriptors, data, whole, comments,
        )  # fmt: skip

    def complete(
        self,
        out: list[Buffer],
        timestamp_ns: int,
        urb_id: int,
        urb: Urb,
        completion: Completion,
        comments: Sequence[str] = (),
    ) -> int:
        """A URB came back."""
        kind = urb.transfer_type
        epnum = urb.endpoint
        status, length, data = completion.status, completion.actual_length, completion.data
        setup = NO_SETUP
        interval = start_frame = 0
        descriptors, whole = b"", length
        if kind is _CONTROL:
            asked = urb.setup
            epnum = epnum | DIR_IN if asked[0] & DIR_IN and (asked[6] or asked[7]) else epnum & ~DIR_IN
        elif kind is not _BULK:
            interval = _rounded_down(urb.interval)
            if kind is _ISOCHRONOUS:
                start_frame = completion.start_frame
                setup = _ISO_COUNTS.pack(completion.error_count, len(urb.packets))
                shown = _done_packets(urb, completion)
                descriptors = _pack_descriptors([(p.status, p.offset, p.actual_length) for p in shown])
                data = _shown_buffer(urb, shown, data)
                whole = len(data)
        if epnum & DIR_IN:
            flag_data, flags = 0, urb.flags & _KEPT_FLAGS | FLAG_DIR_IN
            if flags & SHORT_NOT_OK and not status and length < urb.length and kind is not _ISOCHRONOUS:
                status = -EREMOTEIO
        else:
            data, whole = b"", 0
            flag_data, flags = _DATA_EARLIER, urb.flags & _KEPT_FLAGS
        return self._append(
            out, timestamp_ns, urb_id, COMPLETE, kind, epnum, _NO_SETUP_FLAG, flag_data, status, length,
            setup, interval, start_frame, flags, descriptors, data, whole, comments,
        )  # fmt: skip

    def _append(
        self, out: list[Buffer], timestamp_ns: int, urb_id: int, event: int, kind: int, epnum: int, flag_setup: int,
        flag_data: int, status: int, length: int, setup: bytes, interval: int, start_frame: int, flags: int,
        descriptors: bytes, data: Buffer, whole: int, comments: Sequence[str],
    ) -> int:  # fmt: skip
        """`whole`: the true length of the data, of which `data` may be but a part."""
        seconds, rest = timestamp_ns // 1_000_000_000, timestamp_ns % 1_000_000_000
        if type(data) is bytes and (size := len(data)) <= self._small and not comments and not descriptors:
            pack, captured, total = _small(size)
            block = pack(
                ENHANCED_PACKET, total, self._interface_id, timestamp_ns >> 32, timestamp_ns & 0xFFFFFFFF, captured,
                HEADER_SIZE + whole if whole > size else captured, urb_id, event, kind, epnum, self._devnum,
                self._busnum, flag_setup, flag_data, seconds, rest // 1000, status, length, size, setup, interval,
                start_frame, flags, 0, data, total,
            )  # fmt: skip
            out.append(block)
            return total
        body = len(descriptors) + len(data)
        captured = HEADER_SIZE + body
        original = HEADER_SIZE + len(descriptors) + whole
        if original < captured:
            original = captured  # a reader takes anything else for a broken file
        options = b""
        if comments or captured > self._limit:
            options = pack_comments(comments)
            limit = captured_limit(self._snaplen, len(options))
            if captured > limit:
                descriptors, data = _cut(descriptors, data, limit - HEADER_SIZE)
                body = len(descriptors) + len(data)
                captured = min(HEADER_SIZE + body, limit)
        padding = _PADDING[captured & 3]
        total = PACKET_OVERHEAD + captured + len(padding) + len(options)
        head = _BLOCK(
            ENHANCED_PACKET, total, self._interface_id, timestamp_ns >> 32, timestamp_ns & 0xFFFFFFFF, captured,
            original, urb_id, event, kind, epnum, self._devnum, self._busnum, flag_setup, flag_data, seconds,
            rest // 1000, status, length, body, setup, interval, start_frame, flags,
            len(descriptors) // ISO_DESCRIPTOR_SIZE,
        )  # fmt: skip
        if captured < HEADER_SIZE:
            head = head[: captured - HEADER_SIZE]
        if len(data) < OWN_BUFFER:
            out.append(b"".join((head, descriptors, data, padding, options, _TOTAL(total))))
        else:
            out += (head + descriptors, data, padding + options + _TOTAL(total))
        return total


@cache
def _small(size: int) -> tuple[Callable[..., bytes], int, int]:
    """What packs a block with so much data, without descriptors; what that captures, and its total length."""
    captured = HEADER_SIZE + size
    padding = -captured & 3
    whole = Struct(f"<IIIIIII{_FIELDS}{size}s{padding}xI")
    return whole.pack, captured, whole.size


def _rounded_down(interval: int) -> int:
    """To a power of two, as the kernel does before it submits."""
    return 1 << interval.bit_length() - 1 if interval > 0 else interval


def _pack_descriptors(descriptors: list[tuple[int, int, int]]) -> bytes:
    return b"".join([ISO_DESCRIPTOR.pack(*d) for d in descriptors])


def _done_packets(urb: Urb, completion: Completion) -> list[IsoPacket]:
    """What came of the packets that are shown, at the request's offsets; not done if the reply has none."""
    asked = urb.packets[:MAX_ISO_DESCRIPTORS]
    done = [
        IsoPacket(packet.offset, packet.length, result.actual_length, result.status)
        for packet, result in zip(asked, completion.packets, strict=False)
    ]
    return done + [IsoPacket(p.offset, p.length, 0, -EXDEV) for p in asked[len(done) :]]


def _shown_buffer(urb: Urb, packets: list[IsoPacket], data: Buffer) -> Buffer:
    """The transfer buffer, each packet in its place; the data as it came if the packets do not lie in that buffer."""
    fits = all(p.offset + p.actual_length <= urb.length for p in packets if p.actual_length)
    if not fits or sum(p.actual_length for p in packets) > len(data):
        return data
    return spread(packets, data)


def _cut(descriptors: bytes, data: Buffer, room: int) -> tuple[bytes, Buffer]:
    """What `room` bytes hold: data goes first, then descriptors, each as a whole."""
    if room >= len(descriptors):
        return descriptors, data[: room - len(descriptors)]
    return descriptors[: max(room, 0) // ISO_DESCRIPTOR_SIZE * ISO_DESCRIPTOR_SIZE], b""
