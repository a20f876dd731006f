"""URBs from usbmon's packets of one device, in the order in which they were recorded, for a channel of ours. Pure.

Ref: Linux Documentation/usb/usbmon.rst; drivers/usb/mon/mon_bin.c;
https://www.tcpdump.org/linktypes/LINKTYPE_USB_LINUX.html and LINKTYPE_USB_LINUX_MMAPPED.html
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from functools import cache
from struct import Struct
from typing import NamedTuple

from usbip_capture.capture.channel import IN_FLIGHT, UsbChannel
from usbip_capture.errors import RemoteProtocolError
from usbip_capture.recordings.link_types import USB_LINUX, USB_LINUX_MMAPPED, link_type_label
from usbip_capture.recordings.packets import Packet
from usbip_capture.records.usbmon import COMPLETE, ERROR, ISO_DESCRIPTOR_SIZE, SUBMIT
from usbip_capture.usb.setup import DT_CONFIGURATION, DT_DEVICE, GET_DESCRIPTOR, SET_CONFIGURATION, Setup
from usbip_capture.usb.urb import DIR_IN, NO_SETUP, Completion, IsoPacket, TransferType, Urb

#: The comment on what a capture begins with.
DESCRIPTORS = "usbip-capture: descriptors and configuration, as that machine's kernel has them"
#: The comment on the completion of a URB that never was in flight.
REFUSED = "usbip-capture: the kernel of that machine has refused to submit this URB"
#: URBs in flight that are remembered. Completions that usbmon has dropped never come.
MAX_IN_FLIGHT = 65536
#: Isochronous packets of a URB that are believed. Ref: Linux drivers/usb/usbip/usbip_common.h, USBIP_MAX_ISO_PACKETS
_MAX_ISO_PACKETS = 1024
_DEVICE_SIZE = 18
# id, type, xfer_type, epnum, devnum, busnum, flag_setup, flag_data, status, length, setup; then, where it is there:
# interval, start_frame, xfer_flags, ndesc
_SHORT = "QBBBBHBB12xiI4x8s"
_LONG = _SHORT + "iiII"
_CONTROL, _ISOCHRONOUS = TransferType.CONTROL, TransferType.ISOCHRONOUS
_ENDPOINT = DIR_IN | 0x0F


class Record(NamedTuple):
    """A packet of usbmon. descriptors: status, offset and length of isochronous packets."""

    id: int
    type: int
    kind: TransferType
    endpoint: int
    devnum: int
    status: int
    length: int
    setup: bytes | None
    iso_counts: tuple[int, int]
    interval: int
    start_frame: int
    flags: int
    descriptors: list[tuple[int, int, int]]
    data: bytes


@cache
def _layouts(link_type: int, order: str) -> tuple[Struct, Struct, Struct]:
    """The header, a descriptor, and the two counts of an isochronous URB."""
    header = _LONG if link_type == USB_LINUX_MMAPPED else _SHORT
    return Struct(order + header), Struct(order + "iII4x"), Struct(order + "ii")


def parse_record(link_type: int, order: str, raw: bytes) -> Record | None:
    """The record in a packet; None if it is shorter than its header. Raises RemoteProtocolError: not of usbmon."""
    if link_type not in (USB_LINUX, USB_LINUX_MMAPPED):
        raise RemoteProtocolError(f"what was captured there is not of usbmon: {link_type_label(link_type)}")
    header, descriptor, counts = _layouts(link_type, order)
    if len(raw) < header.size:
        return None
    number, event, kind, endpoint, devnum, _, no_setup, _, status, length, setup, *rest = header.unpack_from(raw)
    interval, start_frame, flags, ndesc = rest or (0, 0, 0, 0)
    shown = min(ndesc if kind == _ISOCHRONOUS else 0, (len(raw) - header.size) // ISO_DESCRIPTOR_SIZE)
    end = header.size + shown * ISO_DESCRIPTOR_SIZE
    return Record(
        number, event, TransferType(kind & 3), endpoint & _ENDPOINT, devnum, status, length,
        None if no_setup else setup, counts.unpack(setup), interval, start_frame, flags,
        list(descriptor.iter_unpack(raw[header.size : end])), raw[end:],
    )  # fmt: skip


def submitted_urb(record: Record) -> Urb:
    """What was asked for."""
    inward = record.endpoint & DIR_IN
    data = b"" if inward else record.data
    if record.kind != _ISOCHRONOUS:
        return Urb(
            record.kind, record.endpoint, record.length, data, record.setup or NO_SETUP, record.flags, record.interval
        )
    packets = [IsoPacket(offset, length) for _, offset, length in record.descriptors]
    # usbmon shows no more than the first 128, and counts all of them.
    packets += [IsoPacket(0, 0)] * (min(record.iso_counts[1], _MAX_ISO_PACKETS) - len(packets))
    return Urb(
        record.kind, record.endpoint, record.length, data, NO_SETUP, record.flags, record.interval,
        record.start_frame, packets,
    )  # fmt: skip


def completion_of(record: Record) -> Completion:
    """What came of it."""
    data = record.data if record.endpoint & DIR_IN else b""
    if record.kind != _ISOCHRONOUS:
        return Completion(record.status, record.length, data)
    packets = [IsoPacket(offset, length, length, status) for status, offset, length in record.descriptors]
    if data and all(p.offset + p.actual_length <= len(data) for p in packets if p.actual_length):
        data = b"".join(data[p.offset : p.offset + p.actual_length] for p in packets)
    return Completion(record.status, record.length, data, record.start_frame, record.iso_counts[0], packets)


class UrbFeed:
    """Feeds `channel`, one for each time that the device is there: URBs of an earlier one do not come back.

    strays: control transfers whose submit was before the capture, of which only the end is known.
    """

    def __init__(self, channel: UsbChannel) -> None:
        self.strays = 0
        self._channel = channel
        self._devnum = channel.info.devnum
        self._in_flight: OrderedDict[int, tuple[int, Urb]] = OrderedDict()

    def begin(self, descriptors: bytes, configuration: int, timestamp_ns: int) -> None:
        """What is known of the device before the first packet, marked."""
        channel = self._channel
        channel.label = DESCRIPTORS
        try:
            for urb, completion in _known(descriptors, configuration):
                channel.completed(channel.submitted(urb, b"", timestamp_ns), urb, completion, timestamp_ns)
        finally:
            channel.label = None

    def packet(self, packet: Packet) -> None:
        """The next packet. Raises RemoteProtocolError if it is not of usbmon."""
        interface, timestamp_ns, portion, start, end, _, _ = packet
        record = parse_record(interface.link_type, interface.order, portion[start:end])
        if record is None or record.devnum != self._devnum:
            return
        if record.type == SUBMIT:
            urb = submitted_urb(record)
            number = self._channel.submitted(urb, urb.data, timestamp_ns)
            self._in_flight[record.id] = number, urb
            if len(self._in_flight) > MAX_IN_FLIGHT:
                self._in_flight.popitem(last=False)
        elif record.type == COMPLETE:
            self._completed(record, timestamp_ns)
        elif record.type == ERROR:
            self._completed(record._replace(length=0, data=b"", descriptors=[]), timestamp_ns, REFUSED)

    def _completed(self, record: Record, timestamp_ns: int, comment: str = "") -> None:
        known = self._in_flight.pop(record.id, None)
        if known is None:
            if record.kind == _CONTROL:  # without its request it would be shown as another one
                self.strays += 1
                return
            known = self._earlier(record, timestamp_ns)
        number, urb = known
        self._channel.completed(number, urb, completion_of(record), timestamp_ns, comment)

    def _earlier(self, record: Record, timestamp_ns: int) -> tuple[int, Urb]:
        """A URB that was in flight when the capture began: of its submit is known what its end has."""
        length = max((offset + moved for _, offset, moved in record.descriptors), default=record.length)
        urb = submitted_urb(record._replace(data=b"", length=length, iso_counts=(0, len(record.descriptors))))
        self._channel.label = IN_FLIGHT
        try:
            return self._channel.submitted(urb, b"", timestamp_ns), urb
        finally:
            self._channel.label = None


def _known(descriptors: bytes, configuration: int) -> Iterator[tuple[Urb, Completion]]:
    """Requests as a host makes them, and their answers, of sysfs's file `descriptors`."""
    if len(descriptors) < _DEVICE_SIZE:
        return
    yield _read(DT_DEVICE, 0, descriptors[:_DEVICE_SIZE])
    rest, index = descriptors[_DEVICE_SIZE:], 0
    while len(rest) >= 9 and rest[1] == DT_CONFIGURATION and (total := int.from_bytes(rest[2:4], "little")) >= 9:
        yield _read(DT_CONFIGURATION, index, rest[:total])
        rest, index = rest[total:], index + 1
    if configuration:
        yield Urb.control(Setup(0, SET_CONFIGURATION, configuration & 0xFF, 0, 0).pack()), Completion(0)


def _read(kind: int, index: int, answer: bytes) -> tuple[Urb, Completion]:
    urb = Urb.control(Setup(DIR_IN, GET_DESCRIPTOR, kind << 8 | index, 0, len(answer)).pack())
    return urb, Completion(0, len(answer), answer)
