"""Counts what passes by in a capture, per device and endpoint, in bounded memory. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias

from usbip_capture.filters.language import ENUMERATION_LABEL, Filter
from usbip_capture.recordings.link_types import UPPER_PDU, USBPCAP
from usbip_capture.recordings.packets import Interface, Packet
from usbip_capture.recordings.urb_events import AS_REQUESTED, LATE_COMPLETE, SUBMIT, Decode, Event, decoder, split_key
from usbip_capture.report.devices import SeenDevice
from usbip_capture.report.log import Log, LogLine, log_line
from usbip_capture.report.timeline import BYTES, ERRORS, TIME_MAX_NS, TIME_SUM_NS, TIMED, URBS, Series, Timeline
from usbip_capture.usb.histogram import Histogram
from usbip_capture.usb.status import EINPROGRESS, GONE, UNLINKED, status_name
from usbip_capture.usb.urb import DIR_IN, NO_SETUP, TransferType

#: More endpoints than any host has devices for; those beyond are counted together.
MAX_ENDPOINTS = 1024
#: URBs that are out at a time, of all interfaces together, and endpoints that have some; of more, the oldest will not
#: come back any more.
MAX_PENDING = 1 << 16
MAX_WITH_PENDING = 2048
_BUDGET_STEP = 63
#: Bytes of configuration descriptors that are learnt from, of all devices together.
MAX_LEARNT = 4 << 20
MAX_LOG_LINES = 4000
MAX_FAILURES = 1000

_CONTROL = int(TransferType.CONTROL)
CONTROL_BITS = _CONTROL << 8
_ISOCHRONOUS_BITS = int(TransferType.ISOCHRONOUS) << 8
TYPE_BITS = 0xFF00
#: Above the key of an endpoint there is room for its interface's number.
_KEY_BITS = 48
#: Longest answer that is shown to a device in any case: no configuration with more than a few endpoints.
_SHORT = 255


@dataclass(slots=True, eq=False)
class EndpointTotals:
    """One endpoint of a device, control split by direction.

    urbs: all that were seen. bytes: moved by those that came back. errors: failed, other than by being unlinked;
    cancelled: unlinked; unfinished: out at the end. times: from submit to completion, of those that came back by
    themselves. in_flight: most that were out at a time. only_sent, only_sent_bytes: of the unfinished, those of OUT in
    USBPcap's captures, see `finish`.
    """

    device: SeenDevice
    transfer_type: int
    address: int
    series: Series
    urbs: int = 0
    bytes: int = 0
    errors: int = 0
    cancelled: int = 0
    unfinished: int = 0
    in_flight: int = 1
    only_sent: int = 0
    only_sent_bytes: int = 0
    times: Histogram = field(default_factory=Histogram)


#: A URB that is out: interface, time of its submission, key of its endpoint, bytes asked for, setup, whether it is one
#: of the capture's own requests at its start. A tuple: millions are made.
Pending: TypeAlias = "tuple[InterfaceTotals, int, int, int, bytes, bool]"


class InFlight:
    """The URBs of an endpoint that are out, by their ids, and the most there have been."""

    __slots__ = ("most", "urbs")

    def __init__(self) -> None:
        self.urbs: dict[int, Pending] = {}
        self.most = 1


@dataclass(slots=True, eq=False)
class InterfaceTotals:
    """One interface of the capture. `unread` counts packets too short to parse; `beyond` URBs of further endpoints.

    key: what stands above the keys of its endpoints. completes_out: whether a completion of OUT, other than control's,
    was seen.
    """

    interface: Interface
    key: int
    decode: Decode | None
    packets: int = 0
    unread: int = 0
    beyond: int = 0
    first_ns: int = 0
    last_ns: int = 0
    devices: dict[int, SeenDevice] = field(default_factory=dict)
    endpoints: dict[int, EndpointTotals] = field(default_factory=dict)
    completes_out: bool = False
    comments: frozenset[int] = frozenset()  # hashes of those of the latest packet


class Statistics:
    """Show it each packet by `add`, then call `finish`; what it found is in its attributes.

    capture_filter: which URBs are counted. It decides when a URB has come back, or at the end.
    """

    def __init__(self, capture_filter: Filter | None = None) -> None:
        self.interfaces: dict[Interface, InterfaceTotals] = {}
        self.timeline = Timeline()
        self.log = Log(MAX_LOG_LINES)
        self.failures = Log(MAX_FAILURES)
        self.filtered = 0
        #: How often the oldest endpoints were given up that had URBs out.
        self.evictions = 0
        self._test = capture_filter.test if capture_filter is not None else None
        self._endpoints = 0
        self._devices = 0
        self._learnt = 0
        # By interface and endpoint, together with which a URB's id is unique: usbipd-win, QEMU and merged captures have
        # equal ids on different devices. Control transfers of both directions together, as USBPcap's completions have
        # none.
        self._in_flight: dict[int, InFlight] = {}

    def add(self, packet: Packet) -> None:
        """Count one packet."""
        interface, timestamp_ns, portion, start, end, _, comments = packet
        totals = self.interfaces.get(interface) or self.see(interface)
        totals.packets += 1
        if timestamp_ns:
            if timestamp_ns > totals.last_ns or not totals.last_ns:
                totals.last_ns = timestamp_ns
            if timestamp_ns < totals.first_ns or not totals.first_ns:
                totals.first_ns = timestamp_ns
        if totals.decode is None:
            self._no_urb(totals, timestamp_ns, portion[start:end])
            return
        if comments or totals.comments:
            self._remark(totals, timestamp_ns, comments)
        event = totals.decode(portion, start, end)
        if event is None:
            totals.unread += 1
        elif event[0] == SUBMIT:
            self._submitted(totals, timestamp_ns, event, ENUMERATION_LABEL in comments)
        else:
            self._completed(totals, timestamp_ns, event, packet)

    def see(self, interface: Interface) -> InterfaceTotals:
        """An interface is there, with packets or without."""
        if interface not in self.interfaces:
            decode = decoder(interface.link_type, interface.order)
            self.interfaces[interface] = InterfaceTotals(interface, len(self.interfaces) << _KEY_BITS, decode)
        return self.interfaces[interface]

    def finish(self) -> None:
        """The capture has ended: what is still out has not come back.

        USBPcap before 1.2 records OUT transfers when they are submitted only: where no completion of any is there,
        they count as done.
        """
        for in_flight in self._in_flight.values():
            self._drop(in_flight, len(in_flight.urbs))
        for totals in self.interfaces.values():
            for key, endpoint in totals.endpoints.items():
                known = self.in_flight_of(totals, key)
                endpoint.in_flight = 1 if known is None else known.most
                if endpoint.only_sent and not totals.completes_out:
                    endpoint.in_flight = 1
                    endpoint.unfinished -= endpoint.only_sent
                    endpoint.bytes += endpoint.only_sent_bytes
            if totals.last_ns:
                self.timeline.cover(totals.first_ns)
                self.timeline.cover(totals.last_ns)

    def _submitted(self, totals: InterfaceTotals, timestamp_ns: int, event: Event, described: bool) -> None:
        _, urb_id, key, _, length, setup, _, _ = event
        where = totals.key | (key if key & TYPE_BITS != CONTROL_BITS else key & ~DIR_IN)
        in_flight = self._in_flight.get(where)
        if in_flight is None:
            in_flight = self._new_in_flight(where)
        urbs = in_flight.urbs
        if urb_id in urbs:
            self._lost(urbs.pop(urb_id))
        urbs[urb_id] = totals, timestamp_ns, key, length, setup, described
        if len(urbs) > in_flight.most:
            in_flight.most = len(urbs)
        if not totals.packets & _BUDGET_STEP:
            self.keep_budget()

    def keep_budget(self) -> None:
        """Bound the URBs that are out. Only now and then: to count each up and down would cost more than all else."""
        while sum([len(in_flight.urbs) for in_flight in self._in_flight.values()]) > MAX_PENDING:
            longest = max(self._in_flight.values(), key=lambda in_flight: len(in_flight.urbs))
            self._drop(longest, (len(longest.urbs) + 1) // 2)

    def in_flight_of(self, totals: InterfaceTotals, key: int) -> InFlight | None:
        """Those of an endpoint, control's of both directions together. They stay the same until the next eviction."""
        return self._in_flight.get(totals.key | (key if key & TYPE_BITS != CONTROL_BITS else key & ~DIR_IN))

    def _new_in_flight(self, where: int) -> InFlight:
        if len(self._in_flight) >= MAX_WITH_PENDING:
            self.evictions += 1
            for oldest in list(islice(self._in_flight, MAX_WITH_PENDING // 2)):
                dropped = self._in_flight.pop(oldest)
                self._drop(dropped, len(dropped.urbs))
        return self._in_flight.setdefault(where, InFlight())

    def _drop(self, in_flight: InFlight, count: int) -> None:
        """The oldest of an endpoint will not come back. Many at a time, as finding the oldest takes long."""
        urbs = in_flight.urbs
        for urb_id in list(islice(urbs, count)):
            self._lost(urbs.pop(urb_id))

    def _completed(self, totals: InterfaceTotals, timestamp_ns: int, event: Event, packet: Packet) -> None:
        stage, urb_id, key, status, length, _, failed, data_at = event
        where = totals.key | (key if key & TYPE_BITS != CONTROL_BITS else key & ~DIR_IN)
        in_flight = self._in_flight.get(where)
        pending = in_flight.urbs.pop(urb_id, None) if in_flight is not None else None
        took_ns = None
        if pending is not None:
            _, submitted_ns, key, requested, setup, _ = pending
            if 0 < submitted_ns <= timestamp_ns and status not in GONE:
                took_ns = timestamp_ns - submitted_ns
        elif stage == LATE_COMPLETE:
            return
        kind = key & TYPE_BITS
        if not key & DIR_IN:
            if kind != CONTROL_BITS:
                totals.completes_out = True
            # USBPcap has no length then, and QEMU 0: what succeeded without moving anything was not asked to.
            if length == AS_REQUESTED or (not length and kind != _ISOCHRONOUS_BITS):
                length = 0 if pending is None or status else requested
        elif length == AS_REQUESTED:
            length = 0
        if kind == CONTROL_BITS and pending is not None:
            self._saw_control(totals, key, setup, status, packet, data_at)
        if self._test is not None and not self._passes(totals, key, status, length, pending):
            self.filtered += 1
            return
        endpoint = totals.endpoints.get(key) or self._new_endpoint(totals, key)
        if endpoint is None:
            totals.beyond += 1
            return
        self._count(endpoint, timestamp_ns, took_ns, status, length, failed)

    def _count(
        self, endpoint: EndpointTotals, timestamp_ns: int, took_ns: int | None, status: int, length: int, failed: bool
    ) -> None:
        endpoint.urbs += 1
        endpoint.bytes += length
        # As `Timeline.cell`, without its call where there is one.
        cell = endpoint.series.get(timestamp_ns // self.timeline.width_ns) if timestamp_ns else [0] * 6
        if cell is None:
            cell = self.timeline.cell(endpoint.series, timestamp_ns)
        cell[URBS] += 1
        cell[BYTES] += length
        if status in UNLINKED:
            endpoint.cancelled += 1
            return
        if status or failed:
            endpoint.errors += 1
            cell[ERRORS] += 1
            self._failure(endpoint, timestamp_ns, status)
        if took_ns is not None:
            endpoint.times.add(took_ns)
            cell[TIMED] += 1
            cell[TIME_SUM_NS] += took_ns
            if took_ns > cell[TIME_MAX_NS]:
                cell[TIME_MAX_NS] = took_ns

    def _lost(self, pending: Pending) -> None:
        """A URB has not come back within the capture."""
        totals, timestamp_ns, key, length, _, _ = pending
        if self._test is not None and not self._passes(totals, key, -EINPROGRESS, 0, pending):
            self.filtered += 1
            return
        endpoint = totals.endpoints.get(key) or self._new_endpoint(totals, key)
        if endpoint is None:
            totals.beyond += 1
            return
        endpoint.urbs += 1
        endpoint.unfinished += 1
        only_sent = not key & DIR_IN and key & TYPE_BITS != CONTROL_BITS
        if only_sent and totals.interface.link_type == USBPCAP and not totals.completes_out:
            endpoint.only_sent += 1
            endpoint.only_sent_bytes += length
            if timestamp_ns:
                cell = self.timeline.cell(endpoint.series, timestamp_ns)
                cell[URBS] += 1
                cell[BYTES] += length

    def _saw_control(
        self, totals: InterfaceTotals, key: int, setup: bytes, status: int, packet: Packet, data_at: int
    ) -> None:
        """A device learns from its descriptors, as long as they are not more than any host has devices for."""
        _, _, portion, start, end, _, _ = packet
        size = end - start - data_at
        if size > _SHORT:
            self._learnt += size
            if self._learnt > MAX_LEARNT:
                return
        begin = min(start + data_at, end)
        self._device(totals, key).saw_control(setup, status, portion[begin:end])

    def _passes(self, totals: InterfaceTotals, key: int, status: int, length: int, pending: Pending | None) -> bool:
        assert self._test is not None
        _, _, _, requested, setup, described = pending or (totals, 0, key, None, NO_SETUP, False)
        facts = self._device(totals, key).facts(key, status, length, requested, setup)
        facts.descriptors = described
        return bool(self._test(facts))

    def _device(self, totals: InterfaceTotals, key: int) -> SeenDevice:
        device = totals.devices.get(key >> 16)
        if device is None:
            busnum, devnum, _, _ = split_key(key)
            device = SeenDevice(busnum, devnum, totals.interface.description)
            if self._devices < MAX_ENDPOINTS:
                self._devices += 1
                totals.devices[key >> 16] = device
        return device

    def _new_endpoint(self, totals: InterfaceTotals, key: int) -> EndpointTotals | None:
        if self._endpoints >= MAX_ENDPOINTS:
            return None
        self._endpoints += 1
        _, _, transfer_type, address = split_key(key)
        series = self.timeline.new_series()
        totals.endpoints[key] = EndpointTotals(self._device(totals, key), transfer_type, address, series)
        return totals.endpoints[key]

    def _failure(self, endpoint: EndpointTotals, timestamp_ns: int, status: int) -> None:
        what = status_name(status) if status else "isochronous packets failed"
        text = f"{endpoint_name(endpoint.transfer_type, endpoint.address)}: {what}"
        self.failures.add(LogLine(timestamp_ns, endpoint.device.name, "error", text))

    def _remark(self, totals: InterfaceTotals, timestamp_ns: int, comments: list[str]) -> None:
        """Comments of packets are remarks; one that many packets have in turn is one remark."""
        for comment in comments:
            if hash(comment) not in totals.comments:
                self.log.add(LogLine(timestamp_ns, _name(totals), "notice", comment))
        totals.comments = frozenset(map(hash, comments))

    def _no_urb(self, totals: InterfaceTotals, timestamp_ns: int, data: bytes) -> None:
        if totals.interface.link_type == UPPER_PDU:
            line = log_line(timestamp_ns, _name(totals), data)
            if line is not None:
                self.log.add(line)
                return
        totals.unread += 1


def endpoint_name(transfer_type: int, address: int) -> str:
    """As `0x81 bulk IN`."""
    kind = TransferType(transfer_type).name.lower() if transfer_type <= max(TransferType) else f"type {transfer_type}"
    return f"{address:#04x} {kind} {'IN' if address & DIR_IN else 'OUT'}"


def _name(totals: InterfaceTotals) -> str:
    return totals.interface.name or "capture"
