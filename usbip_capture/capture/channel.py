"""Where taps put events for the recorder's thread: one channel for each device."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final, TypeAlias

from usbip_capture.capture.event_queue import EventQueue
from usbip_capture.capture.joined_later import Moment, SoFar
from usbip_capture.capture.log_channel import LogBatch, LogChannel
from usbip_capture.capture.remarks import NotesInterface, Remark
from usbip_capture.capture.unlinks import UnlinkChannel
from usbip_capture.filters.language import Filter
from usbip_capture.filters.matcher import Matcher
from usbip_capture.records.pcapng import MAX_COMMENTS
from usbip_capture.records.unlinks import unlink_comment
from usbip_capture.records.usbmon import UsbmonPacker
from usbip_capture.tap import Tap
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.status import GONE, status_name
from usbip_capture.usb.urb import DIR_IN, Buffer, Completion, Urb

#: Bytes that a queued event takes beside its data, and those of each isochronous packet.
EVENT_COST: Final = 512
PACKET_COST: Final = 160
#: CMD_UNLINKs that are remembered until they, or their URBs, come to their end.
MAX_UNLINKS = 4096

# channel, packer, cost, time stamp, URB id, URB, data of an outward URB, completion (None: submit), comments
Event: TypeAlias = "tuple[UsbChannel, UsbmonPacker, int, int, int, Urb, Buffer, Completion | None, tuple[str, ...]]"
# Besides events: messages of a log, a block that is packed already, an interface that begins here, and moments that
# somebody waits for.
Item: TypeAlias = "Event | bytes | UsbChannel | LogChannel | LogBatch | NotesInterface | Remark | Moment"

#: A label of URBs that were out when the capture began; those with another one are the capture's descriptors.
IN_FLIGHT = "usbip-capture: submitted before this capture began"
#: Instead of the id of a URB: the filter does not let it pass.
_FILTERED: Final = -1
_time_ns: Final = time.time_ns  # looked up once


class UsbChannel(Tap):
    """One device on one interface of the capture.

    received, dropped, filtered, written: events so far; what was dropped or filtered is a part of `received`.
    urbs, bytes: URBs that came back and are captured, and what they moved.
    label: a comment for each URB submitted while it is set, on its submit and its completion.
    unlinks: where CMD_UNLINK and RET_UNLINK are recorded, None if they are not.
    so_far: what those who join the capture later are shown, None if nobody can.
    """

    def __init__(
        self,
        queue: EventQueue,
        number: int,
        snaplen: int,
        info: DeviceInfo,
        description: str,
        capture_filter: Filter | None = None,
    ) -> None:
        self.name = f"usbip{number}"
        self.interface_id = queue.interfaces
        self.description = description
        self.capture_filter = capture_filter
        self.info = info
        self.speed = info.speed
        self.described = False  # whether the interface is in the output
        self.settled = 0.0  # until then, of time.monotonic(), `product` is waited for
        self.start_ns = time.time_ns()
        self.urbs = self.bytes = 0
        self.received = self.dropped = self.filtered = self.packed = self.written = 0
        self.label: str | None = None
        self.remarks: list[Remark] = []  # for the next event
        self.unlinks: UnlinkChannel | None = None
        self.so_far: SoFar | None = None
        self._queue = queue
        self._snaplen = snaplen
        self._labels: dict[int, str] = {}  # of URBs that are out
        # The comments on those that were unlinked; and CMD_UNLINKs of URBs that the filter does not let pass. An
        # end that never comes must not keep them for ever.
        self._unlinked: OrderedDict[int, str] = OrderedDict()
        self._unseen: OrderedDict[int, None] = OrderedDict()
        self._matcher = None if capture_filter is None else Matcher(capture_filter, info)
        self._held: dict[int, Event] = {}  # submits whose completion decides
        self._gone = False
        self._packer = UsbmonPacker(self.interface_id, snaplen, info.busnum, info.devnum)

    def device(self, info: DeviceInfo) -> None:
        """The device is (back) at this bus and device number, for all events to come."""
        with self._queue.lock:
            self.info = info
            self._packer = UsbmonPacker(self.interface_id, self._snaplen, info.busnum, info.devnum)
            self._gone = False
            if self.capture_filter is not None:
                self._matcher = Matcher(self.capture_filter, info)

    def product(self, name: str) -> None:
        """Complete the description of the interface with the device's own name; no effect once it is written."""
        with self._queue.lock:
            self.description = f"{self.description} {name}".strip()
            self.settled = 0.0

    def comment(self, text: str) -> None:
        """Comment on this moment: on the next event, or by itself if there is none soon."""
        with self._queue.lock:
            self._queue.remark(self.remarks, text)

    def gone(self, reason: str) -> None:
        """Note that the device is gone, unless the completion of a URB has."""
        with self._queue.lock:
            if not self._gone:
                self._gone = True
                # No packet marks the moment itself: the next one may be much later.
                at = time.strftime("%H:%M:%S")
                self._queue.remark(self.remarks, f"usbip-capture: device gone at {at}: {reason}")

    def rest(self) -> None:
        """The session is over: what was learnt in it is not for those who join later."""
        with self._queue.lock:
            if self.so_far is not None:
                self.so_far.forget()

    @property
    def held(self) -> list[int]:
        """URBs of which their completion decides whether they are captured. The queue is locked."""
        return list(self._held)

    def settle(self) -> None:
        """Decide on URBs that are still out at the end of the capture, as if they were asked for their status now."""
        with self._queue.lock:
            held, self._held = self._held, {}
            for urb_id, event in held.items():
                if self._matcher is not None and self._matcher.pending(
                    event[5], _is_descriptor(self._labels.get(urb_id))
                ):
                    self._queue.items.append(event)
                else:
                    self.filtered += 1
                    self._queue.used -= event[2]

    def submitted(self, urb: Urb, data: Buffer | None = None, timestamp_ns: int = 0) -> int:
        """As `Tap.submitted`; or afterwards, with the time when it was, and the data if the URB has none."""
        queue = self._queue
        data = urb.data if data is None else data
        if type(data) is not bytes:
            data = bytes(data)  # its owner may change it as soon as the URB is done
        cost = EVENT_COST + len(data)
        # Room for what may come back, given free by `completed`.
        room = EVENT_COST + urb.length if urb.endpoint & DIR_IN else EVENT_COST
        if urb.packets:
            room += PACKET_COST * len(urb.packets)
            cost += PACKET_COST * len(urb.packets)
        with queue.lock:
            if queue.ended:
                return 0
            self.received += 1
            label = self.label
            verdict = True if self._matcher is None else self._matcher.submitted(urb, _is_descriptor(label))
            if verdict is False:
                self.filtered += 1
                return _FILTERED
            room += queue.reserved
            used = queue.used + cost
            if used + room > queue.budget and used + queue.max_reserved > queue.budget:
                self.dropped += 1
                return 0
            queue.reserved, queue.used = room, used
            queue.last_urb_id = urb_id = queue.last_urb_id + 1
            if label is not None:
                self._labels[urb_id] = label
            comments: tuple[str, ...] = () if label is None else (label,)
            timestamp_ns = timestamp_ns or _time_ns()
            if self.so_far is not None:
                self.so_far.out[urb_id] = urb, data
            if verdict is None:
                self._held[urb_id] = (self, self._packer, cost, timestamp_ns, urb_id, urb, data, None, comments)
                return urb_id
            if self.remarks or queue.remarks:
                comments, more_cost = self._comments(label)
                cost += more_cost
            queue.items.append((self, self._packer, cost, timestamp_ns, urb_id, urb, data, None, comments))
            wake, queue.idle = queue.idle, False
        if wake:
            queue.rouse()
        return urb_id

    def completed(
        self, urb_id: int, urb: Urb, completion: Completion, timestamp_ns: int = 0, comment: str = ""
    ) -> None:
        """As `Tap.completed`; or afterwards, with the time when it was, and a comment."""
        queue = self._queue
        cost = EVENT_COST + len(completion.data)
        if completion.packets:
            cost += PACKET_COST * len(completion.packets)
        with queue.lock:
            if queue.ended:
                return
            self.received += 1
            if urb_id > 0:
                queue.reserved -= EVENT_COST + urb.length if urb.endpoint & DIR_IN else EVENT_COST
                if urb.packets:
                    queue.reserved -= PACKET_COST * len(urb.packets)
            if self.so_far is not None:
                self.so_far.out.pop(urb_id, None)
                self.so_far.seen.saw(urb, completion)
            label = self._labels.pop(urb_id, None) if self._labels else None
            unlinked = self._unlinked.pop(urb_id, None) if self._unlinked else None
            if completion.status in GONE and not self._gone:
                self._gone = True
                queue.remark(self.remarks, f"usbip-capture: device gone: {status_name(completion.status)}")
            if self._matcher is not None and not self._passes(urb_id, urb, completion, label):
                return
            if not urb_id or queue.used + cost > queue.budget:
                self.dropped += 1
                return
            queue.used += cost
            self.urbs += 1
            self.bytes += completion.actual_length
            comments: tuple[str, ...] = () if label is None else (label,)
            if self.remarks or queue.remarks:
                comments, more_cost = self._comments(label)
                cost += more_cost
            if unlinked or comment:
                more = [text for text in (unlinked, comment) if text]
                comments = (*comments, *more)[:MAX_COMMENTS]
            timestamp_ns = timestamp_ns or _time_ns()
            queue.items.append((self, self._packer, cost, timestamp_ns, urb_id, urb, b"", completion, comments))
            wake, queue.idle = queue.idle, False
        if wake:
            queue.rouse()

    def unlink(self, urb_id: int, message: bytes) -> None:
        with self._queue.lock:
            if self._queue.ended:
                return
            seqnum = int.from_bytes(message[4:8], "big")
            if urb_id > 0:
                self._unlinked[urb_id] = unlink_comment(seqnum)
                if len(self._unlinked) > MAX_UNLINKS:
                    self._unlinked.popitem(last=False)
            if urb_id == _FILTERED:
                self._unseen[seqnum] = None
                if len(self._unseen) > MAX_UNLINKS:
                    self._unseen.popitem(last=False)
                return
            if seqnum in self._unseen:  # its reply
                del self._unseen[seqnum]
                return
        if self.unlinks is not None:
            self.unlinks.message(message)

    def _passes(self, urb_id: int, urb: Urb, completion: Completion, label: str | None) -> bool:
        """Whether the filter lets a completion pass; its submit has gone the same way, or goes it now."""
        if self._matcher is not None:
            self._matcher.learn(urb, completion)
        if urb_id == _FILTERED:
            self.filtered += 1
            return False
        event = self._held.pop(urb_id, None)
        if event is None or self._matcher is None:
            return True
        if self._matcher.completed(urb, completion, _is_descriptor(label)):
            self._queue.items.append(event)
            return True
        self.filtered += 2
        self._queue.used -= event[2]
        return False

    def _comments(self, label: str | None) -> tuple[tuple[str, ...], int]:
        """Remarks that wait, as many as a packet holds, and the label; and what they add to the cost of the event."""
        texts: list[str] = []
        cost = 0
        sources: list[EventQueue | UsbChannel] = [self._queue, self]
        for source in sources:
            taken = source.remarks[: MAX_COMMENTS - 1 - len(texts)]
            source.remarks = source.remarks[len(taken) :]
            texts += [remark.text for remark in taken]
            cost += sum(remark.cost for remark in taken)
        self._queue.remark_used -= cost
        self._queue.used += cost
        if label is not None:
            texts.append(label)
        return tuple(texts), cost


def _is_descriptor(label: str | None) -> bool:
    return label is not None and label != IN_FLIGHT


def pack_events(out: list[Buffer], batch: list[Item], most: int, about: int) -> tuple[int, int, int]:
    """Take events off the end of `batch` and append their blocks to `out`, at most so many, and about so many bytes.

    On the writer's thread. Returns how many they are, the bytes of their blocks, and their cost.
    """
    count = size = cost = 0
    while batch and count < most and size < about:
        item = batch.pop()
        if not isinstance(item, tuple):
            batch.append(item)
            break
        channel, packer, event_cost, timestamp_ns, urb_id, urb, data, completion, comments = item
        channel.packed += 1
        count += 1
        cost += event_cost
        if completion is None:
            size += packer.submit(out, timestamp_ns, urb_id, urb, data, comments)
        else:
            size += packer.complete(out, timestamp_ns, urb_id, urb, completion, comments)
    return count, size, cost
