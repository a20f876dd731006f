"""A recording of TCP into a capture of USB: the way of each packet, from its bytes to its record."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Sequence

from usbip_capture.convert.fragments import Fragments
from usbip_capture.convert.hindsight import Hindsight
from usbip_capture.convert.link import SYN, Segment, hidden_in, ip_finder, tcp_segment, tunnel_in
from usbip_capture.convert.output import Output, UsbInterface
from usbip_capture.convert.runs import OWN_COPY, Runs
from usbip_capture.convert.sessions import Session, SessionTable
from usbip_capture.errors import CaptureError
from usbip_capture.recordings.link_types import link_type_label
from usbip_capture.recordings.reading import read_packets
from usbip_capture.recordings.source import Source
from usbip_capture.records.unlinks import unlink_comment
from usbip_capture.system.shown import one_line
from usbip_capture.usb.urb import Buffer
from usbip_capture.wire.observed import Completed, Ended, Event, Imported, Noted, Submitted, Unlink, UnlinkReply

#: Bytes to read at once: portions are held for a while. A longer packet is a sign of damage: it would be held, too.
CHUNK = 1 << 16
_MAX_PACKET = 16 << 20
#: Remarks on one record, and on a device; what is more is only counted.
_MAX_REMARKS = 4
_MAX_REMARKS_OF_DEVICE = 64
#: Devices of the output: each takes memory until the end. URBs of others are counted.
MAX_DEVICES = 4096


class Converter:
    """Converts `source` into `output`.

    ports: of the servers, None to find sessions by their content.
    on_portion: called after each portion that was read, for progress.
    After `run`: packets, sessions and urbs (submitted ones) that were seen; `remarks` has what was not as it should
    be, `error` why the recording ended early.
    """

    def __init__(
        self,
        source: Source,
        output: Output,
        *,
        ports: Container[int] | None = None,
        on_portion: Callable[[], None] | None = None,
    ) -> None:
        self.urbs = 0
        self._packets = 0  # those that were not taken in a run
        self.unread: Counter[int] = Counter()  # packets by link types that cannot be read
        self.error: CaptureError | None = None
        self._hidden: Counter[str] = Counter()  # packets that can hold TCP where it is not looked for
        self._source = source
        self._output = output
        self._on_portion = on_portion
        self._cut = 0  # packets that were not recorded as a whole
        self._fragments = Fragments()
        self._interfaces: dict[tuple[str, str], UsbInterface] = {}
        # By server and devid; import seen. Ordered: the first of a dict is behind all that were deleted.
        self._places: OrderedDict[tuple[str, int], tuple[UsbInterface, bool]] = OrderedDict()
        self._other_urbs = 0  # URBs of devices that are too many
        self._of_session: dict[Session, UsbInterface] = {}
        self._notes: dict[Session, list[str]] = {}
        self._hindsight = Hindsight(self._write)
        self._table = SessionTable(self._hindsight.add, ports)
        self._runs = Runs(self._table.directions, self._portion)
        source.on_idle = self._idle

    @property
    def packets(self) -> int:
        """Packets so far."""
        return self._packets + self._runs.packets

    @property
    def sessions(self) -> int:
        """USB/IP connections that were found."""
        return self._table.sessions

    @property
    def counts(self) -> Counter[str]:
        """What was wrong in the sessions, see `Observer.counts`."""
        return self._table.counts

    @property
    def devices(self) -> int:
        """Devices in the output."""
        return len(self._output.devices)

    @property
    def remarks(self) -> list[str]:
        """What was not as it should be, and how often."""
        return [*_spoken(self._table.counts, self._table.retransmitted), *self._of_all()]

    def _of_all(self) -> list[str]:
        """Remarks that are of no session."""
        found = [f"{link_type_label(kind)} cannot be read: {n} packets" for kind, n in sorted(self.unread.items())]
        if not self.sessions:
            found += [f"{what} is not looked into: {n} packets" for what, n in self._hidden.most_common(_MAX_REMARKS)]
        if self._cut:
            found.append(f"packets of which only the beginning was recorded (tcpdump -s 0 records all): {self._cut}")
        if self._other_urbs:
            found.append(f"URBs of more than {MAX_DEVICES} devices, which are left out: {self._other_urbs}")
        if self._fragments.incomplete:
            found.append(f"IP packets with a fragment missing: {self._fragments.incomplete}")
        return found

    def run(self) -> None:
        """Convert all of it. Raises CaptureError if there is nothing to begin with, or the output fails."""
        try:
            self._read()
        except CaptureError as error:
            if not self.packets:
                raise
            if not self._source.stopped:
                self.error = error
        self._table.finish()
        self._hindsight.flush()
        for session, interface in self._of_session.items():
            self._over(session, interface)
        for interface in self._output.devices:
            interface.remarks += _spoken(interface.faults, interface.retransmitted)
        self._output.finish(self._of_all())

    def _read(self) -> None:
        directions, runs = self._table.directions, self._runs
        packets = read_packets(self._source, max_packet=_MAX_PACKET, take_run=runs.blocks, take_records=runs.records)
        for interface, now_ns, data, start, end, missing, _ in packets:
            self._packets += 1
            if data is not runs.portion:
                runs.begins(now_ns, data)
            at = self._ip_header(interface.link_type, data, start, end)
            if at < 0:
                continue
            found = tcp_segment(data, at, end)
            if found is None:
                data, found = self._fragment(now_ns, data, at, end, missing)
                if found is None:
                    continue
            key, seq, ack, flags, begin, stop, missing = found
            size = stop - begin
            payload: Buffer = b""
            if size > 0:
                own = size < OWN_COPY or data is not runs.portion
                payload = data[begin:stop] if own else runs.view[begin:stop]
            if missing:
                self._cut += 1
            direction = directions.get(key)
            if direction is None or flags & SYN:
                direction = self._table.opened(now_ns, key, seq, ack, flags, payload)
                if direction is None:
                    continue
            direction.segment(now_ns, seq, ack, flags, payload, missing)

    def _fragment(self, now_ns: int, data: bytes, at: int, end: int, missing: int) -> tuple[bytes, Segment | None]:
        """Not a segment by itself: feed the reassembler. Returns the packet, and its segment once it is complete."""
        if missing:
            self._cut += 1
        if tunnel := tunnel_in(data, at, end):
            self._hidden[tunnel] += 1
        whole = self._fragments.add(now_ns, data, at, end)
        return (data, None) if whole is None else (whole, tcp_segment(whole, 0, len(whole)))

    def _ip_header(self, link_type: int, data: bytes, start: int, end: int) -> int:
        finder = ip_finder(link_type)
        if finder is None:
            self.unread[link_type] += 1
            return -1
        found = finder(data, start, end)
        if found < 0 and (hidden := hidden_in(link_type, data, start, end)):
            self._hidden[hidden] += 1
        return found

    def _portion(self, now_ns: int, size: int) -> None:
        self._hindsight.portion(now_ns, size)
        self._table.portion(now_ns, size)
        if self._on_portion is not None:
            self._on_portion()

    def _idle(self) -> None:
        """Nothing comes at the moment: what there is should be seen."""
        self._hindsight.flush()
        self._output.flush()

    # -- events, when they are old enough

    def _write(self, session: Session, event: Event) -> None:
        comments: Sequence[str] = ()
        if type(event) is Submitted:
            interface = self._of_session.get(session)
            if interface is None:
                self._other_urbs += 1
                return
            timestamp_ns, seqnum, urb, data = event
            self.urbs += 1
            if self._notes:
                comments = self._notes.pop(session, ())
            self._output.submitted(interface, timestamp_ns, session.number << 32 | seqnum, urb, data, comments)
        elif type(event) is Completed:
            interface = self._of_session.get(session)
            if interface is None:
                return
            timestamp_ns, seqnum, urb, completion, unlink = event
            if self._notes:
                comments = self._notes.pop(session, ())
            if unlink:
                comments = (*comments, unlink_comment(unlink))
            self._output.completed(interface, timestamp_ns, session.number << 32 | seqnum, urb, completion, comments)
        else:
            self._write_rare(session, event)

    def _write_rare(self, session: Session, event: Event) -> None:
        if isinstance(event, Imported):
            self._imported(session, event)
        elif isinstance(event, Noted):
            notes = self._notes.setdefault(session, [])
            if len(notes) < _MAX_REMARKS:
                notes.append(f"usbip-capture: {event.text}")
        elif isinstance(event, (Unlink, UnlinkReply)):
            interface = self._of_session.get(session)
            if interface is not None:
                self._output.unlink(interface, event.timestamp_ns, event.message)
        elif isinstance(event, Ended):
            interface = self._of_session.pop(session, None)
            notes = self._notes.pop(session, [])
            if interface is not None:
                interface.remarks += notes[: _MAX_REMARKS_OF_DEVICE - len(interface.remarks)]
                self._over(session, interface)

    def _over(self, session: Session, interface: UsbInterface) -> None:
        """What was wrong in a session is reported with its device."""
        interface.faults += session.observer.counts
        interface.retransmitted += session.client.retransmitted + session.peer.retransmitted

    def _imported(self, session: Session, event: Imported) -> None:
        info = event.info
        name = info.busid if event.seen else f"device {info.devnum} of bus {info.busnum}"
        key = session.server, name
        interface = self._interfaces.get(key) or self._same_place(session, event)
        if interface is None and len(self._output.devices) >= MAX_DEVICES:
            self._of_session.pop(session, None)
            return
        if interface is None:
            seen = f" {info.idVendor:04x}:{info.idProduct:04x}"
            what = seen if event.seen else ", whose import is not in the recording"
            description = f"USB/IP {session.server} {one_line(name)}{what}"
            interface = self._output.device(info, description, event.timestamp_ns)
        else:
            self._output.again(interface, info)
        self._interfaces[key] = interface
        self._places[session.server, info.devid] = interface, event.seen
        if len(self._places) > 4 * MAX_DEVICES:
            self._places.popitem(last=False)
        self._of_session[session] = interface

    def _same_place(self, session: Session, event: Imported) -> UsbInterface | None:
        """The interface of a device with this number on this bus of the server, if either import was not seen."""
        interface, seen = self._places.get((session.server, event.info.devid), (None, True))
        return None if seen and event.seen else interface


def _spoken(counts: Counter[str], retransmitted: int) -> list[str]:
    found = [f"{what}: {f'{n} times' if n > 1 else 'once'}" for what, n in sorted(counts.items())]
    return [*found, f"bytes that TCP sent again: {retransmitted}"] if retransmitted else found
