"""One recording of usbmon against another of the same URBs: record by record, field by field.

URBs are matched by pipe, in the order of submission. Of the reference, those of the root hub are left out, SET_ADDRESS
too, and what lies before and after ours. What else is not compared is noted where it is not; docs/fidelity.md has the
list.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

from usbip_capture.recordings.reading import open_capture
from usbip_capture.records.pcapng import LINKTYPE_USB_LINUX_MMAPPED
from usbip_capture.records.usbmon import COMPLETE, HEADER_SIZE, SUBMIT, UsbmonRecord
from usbip_capture.usb.status import ECONNRESET, ENOENT, EREMOTEIO, ESHUTDOWN
from usbip_capture.usb.urb import NO_TRANSFER_DMA_MAP, TransferType

ROOT_HUB = 1
SHORT_NOT_OK, ISO_ASAP, ZERO_PACKET = 0x1, 0x2, 0x40
SET_ADDRESS, SET_CONFIGURATION = b"\0\x05", b"\0\x09"
CONTROL, BULK, ISO = TransferType.CONTROL, TransferType.BULK, TransferType.ISOCHRONOUS


class Event(NamedTuple):
    """A record with the lengths and the time of the file."""

    record: UsbmonRecord
    captured: int
    original: int
    timestamp_ns: int


@dataclass
class SeenUrb:
    """A URB as the recording has it. `completion` is None if it was still out at the end."""

    submission: Event
    completion: Event | None = None

    @property
    def key(self) -> tuple[int, int, bytes, bytes]:
        s = self.submission.record
        return s.xfer_type, s.length, s.setup, s.data


@dataclass
class Report:
    """fields: how many were compared. differences: one sentence for each that is not equal. by_libusb: see compare."""

    by_libusb: bool = False
    fields: int = 0
    urbs: int = 0
    differences: list[str] = field(default_factory=list)

    def equal(self, what: str, got: object, want: object, context: object) -> None:
        self.fields += 1
        if got != want:
            self.differences.append(f"{what}: {got!r}, the reference has {want!r}: {context}")


def read_events(path: Path) -> Iterator[Event]:
    """The usbmon records of a pcap or pcapng file."""
    with open_capture(path) as capture:
        for interface, timestamp_ns, data, start, end, missing, _ in capture.packets:
            if interface.link_type == LINKTYPE_USB_LINUX_MMAPPED:
                size = end - start
                yield Event(UsbmonRecord.parse(data[start:end]), size, size + missing, timestamp_ns)


def urbs_by_pipe(events: Iterator[Event]) -> dict[int, list[SeenUrb]]:
    """By endpoint address; those of both directions of endpoint 0 are one pipe."""
    pipes: dict[int, list[SeenUrb]] = defaultdict(list)
    waiting: dict[int, SeenUrb] = {}
    for event in events:
        record = event.record
        if record.type == SUBMIT:
            waiting[record.id] = seen = SeenUrb(event)
            pipes[record.epnum if record.epnum & 15 else 0].append(seen)
        elif record.type == COMPLETE and record.id in waiting:
            waiting.pop(record.id).completion = event
    return pipes


def compare(
    ours: Path, reference: Path, *, on_server: bool = False, by_libusb: bool = False, device: int | None = None
) -> Report:
    """Each URB of `ours` with that of `reference`, which is of the client's bus, or of the server's.

    by_libusb: the server submits URBs by libusb, which has no way to pass everything on.
    device: number that the device has on the reference's bus, None for all but the root hub.
    """
    report = Report(by_libusb=by_libusb)
    mine = urbs_by_pipe(read_events(ours))
    theirs = urbs_by_pipe(e for e in read_events(reference) if _wanted(e.record, device))
    report.equal("devices", len({(e.record.busnum, e.record.devnum) for e in read_events(ours)}), 1, ours)
    for pipe, urbs in mine.items():
        pairs, extra = _matched(urbs, theirs.get(pipe, []))
        if extra and not on_server:
            report.differences.append(f"pipe {pipe:#x}: {extra} URBs are in the reference only")
        for number, (one, other) in enumerate(pairs):
            report.urbs += 1
            context = f"pipe {pipe:#x}, URB {number}"
            if other is not None:
                _compare_urb(report, one, other, on_server, context)
            elif not (on_server and _cancelled_at_end(one)) and not (by_libusb and _configures(one)):
                report.differences.append(f"{context} is not in the reference: {one.submission.record}")
    if not on_server:
        report.equal("pipes", sorted(mine), sorted(theirs), reference)
    return report


def _wanted(record: UsbmonRecord, device: int | None) -> bool:
    if record.type == SUBMIT and record.xfer_type == CONTROL and record.setup.startswith(SET_ADDRESS):
        return False
    return record.devnum != ROOT_HUB if device is None else record.devnum == device


def _matched(urbs: list[SeenUrb], others: list[SeenUrb]) -> tuple[list[tuple[SeenUrb, SeenUrb | None]], int]:
    """Each URB with its like, in the order of both; and how many of `others` are like none."""
    partners: list[SeenUrb | None] = [None] * len(urbs)
    matcher = SequenceMatcher(None, [u.key for u in urbs], [u.key for u in others], autojunk=False)
    for at, other_at, size in matcher.get_matching_blocks():
        partners[at : at + size] = others[other_at : other_at + size]
    return list(zip(urbs, partners, strict=True)), len(others) - sum(p is not None for p in partners)


def _cancelled_at_end(urb: SeenUrb) -> bool:
    """The connection ended before the server had it."""
    return urb.completion is None or urb.completion.record.status == -ESHUTDOWN


def _configures(urb: SeenUrb) -> bool:
    """SET_CONFIGURATION: to the value that the device has, the server does nothing."""
    return urb.submission.record.setup.startswith(SET_CONFIGURATION)


def _compare_urb(report: Report, one: SeenUrb, other: SeenUrb, on_server: bool, where: str) -> None:
    got, want = one.submission.record, other.submission.record
    context = f"{where}: {got} against {want}"
    for name in ("xfer_type", "epnum", "flag_setup", "flag_data", "status", "length", "len_cap", "setup", "interval"):
        report.equal(f"S {name}", getattr(got, name), getattr(want, name), context)
    for name in ("ndesc", "packets", "data") if report.by_libusb else ("start_frame", "ndesc", "packets", "data"):
        report.equal(f"S {name}", getattr(got, name), getattr(want, name), context)
    flags = _passed_on(report, got) if on_server else got.xfer_flags
    report.equal("S xfer_flags", flags, want.xfer_flags & ~NO_TRANSFER_DMA_MAP, context)
    _compare_frame(report, "S", one.submission, other.submission, context)
    if one.completion is None or other.completion is None:
        pending = one.completion is None and other.completion is None
        ended = other.completion is not None and other.completion.record.status in (-ENOENT, -ECONNRESET, -ESHUTDOWN)
        if not pending and not (one.completion is None and ended):
            report.differences.append(f"completed in one only: {context}")
        return
    _compare_completion(report, one.completion, other.completion, on_server, where)


def _compare_completion(report: Report, one: Event, other: Event, on_server: bool, where: str) -> None:
    got, want = one.record, other.record
    context = f"{where}: {got} against {want}"
    for name in ("xfer_type", "epnum", "flag_setup", "flag_data", "interval"):
        report.equal(f"C {name}", getattr(got, name), getattr(want, name), context)
    flags = _passed_on(report, got) if on_server else got.xfer_flags
    report.equal("C xfer_flags", flags, want.xfer_flags & ~NO_TRANSFER_DMA_MAP, context)
    unlinked = got.status == -ECONNRESET
    wanted = {-ENOENT, -ECONNRESET} if unlinked else {got.status}
    if on_server and unlinked and got.length:
        wanted |= {0}  # the reply was on its way: only the client's kernel calls it unlinked
    if report.by_libusb and got.status == -EREMOTEIO:
        wanted |= {0}  # the server judges short packets by itself
    if got.status == -ESHUTDOWN and not got.length:
        wanted |= {-ENOENT, -ECONNRESET}  # when the connection ends, the server and drivers unlink what waits
    report.equal("C status", got.status, got.status if want.status in wanted else want.status, context)
    if on_server and not got.length and (unlinked or got.status == -ESHUTDOWN):
        return  # what was done already is not on the wire
    for name in ("length", "ndesc", "setup", "start_frame", "packets", "len_cap"):
        if report.by_libusb and name == "start_frame":
            continue  # libusb does not pass it on
        if report.by_libusb and name == "setup" and got.xfer_type == ISO:
            # The count of errors is the server's own: host controllers leave it 0.
            report.equal("C number_of_packets", got.setup[4:], want.setup[4:], context)
            continue
        report.equal(f"C {name}", getattr(got, name), getattr(want, name), context)
    if got.xfer_type == ISO:
        for packet in got.packets:
            place = slice(packet.offset, packet.offset + packet.length)
            report.equal("C data of a packet", got.data[place], want.data[place], context)
    else:
        report.equal("C data", got.data, want.data, context)
    _compare_frame(report, "C", one, other, context)


def _compare_frame(report: Report, kind: str, one: Event, other: Event, context: str) -> None:
    report.equal(f"{kind} captured", one.captured, other.captured, context)
    report.equal(f"{kind} captured and len_cap", one.captured, HEADER_SIZE + one.record.len_cap, context)
    report.equal(f"{kind} original", one.original, other.original, context)
    stamp = one.record.ts_sec * 1_000_000 + one.record.ts_usec
    report.equal(f"{kind} time in record and file", stamp, one.timestamp_ns // 1000, context)


def _passed_on(report: Report, record: UsbmonRecord) -> int:
    """The flags that the server's kernel is to have."""
    flags = _server_flags(record)
    if not report.by_libusb:
        return flags
    return (flags | ISO_ASAP if record.xfer_type == ISO else flags) & ~SHORT_NOT_OK


def _server_flags(record: UsbmonRecord) -> int:
    """What usbip-host lets through. Ref: Linux drivers/usb/usbip/stub_rx.c, masking_bogus_flags"""
    flags, inward = record.xfer_flags, record.epnum & 0x80
    if not (record.xfer_type == BULK and not inward):
        flags &= ~ZERO_PACKET
    if record.xfer_type == ISO or not inward:
        flags &= ~SHORT_NOT_OK
    if record.xfer_type != ISO:
        flags &= ~ISO_ASAP
    return flags
