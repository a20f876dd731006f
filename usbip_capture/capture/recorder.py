"""The recorder: a bounded queue that taps fill without ever blocking, and one thread that packs and writes.

The thread sleeps until something is queued, gathers what comes in the next COALESCE seconds, writes all of it, and so
on while there is something each time: it need not be woken for what comes meanwhile.
When the queue is full, events are dropped and counted; a URB's completion finds the room that its submit reserved.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from usbip_capture.capture.channel import Item, UsbChannel, pack_events
from usbip_capture.capture.descriptions import describe, describe_notes
from usbip_capture.capture.dropping import drop, uncount
from usbip_capture.capture.event_queue import EventQueue
from usbip_capture.capture.joined_later import Moment
from usbip_capture.capture.log_channel import LogBatch, LogChannel
from usbip_capture.capture.remarks import NotesInterface, Remark
from usbip_capture.capture.sinks import ReaderGone, Sink, SinkAborted
from usbip_capture.capture.trailer import Part, Trailer
from usbip_capture.capture.unlinks import UnlinkChannel
from usbip_capture.capture.wall_clock import WallClock
from usbip_capture.errors import CaptureError
from usbip_capture.filters.language import Filter
from usbip_capture.records.pcapng import Section, pack_packet
from usbip_capture.records.upper_pdu import pack_remark
from usbip_capture.system.forks import disown_in_children, set_event
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.urb import Buffer

log = logging.getLogger(__name__)

#: Seconds that the writer waits for more before it writes.
COALESCE = 0.01
#: Seconds between two looks, while nothing is captured, whether there is still a reader.
READER_CHECK = 0.1
#: Seconds that the writer waits for the name of a device's product, which comes before its packets.
PRODUCT_TIMEOUT = 0.5
#: Seconds that a remark waits for an event to carry it.
REMARK_TIMEOUT = 1.0
#: A write is about this long, and made of at most so many events: packing them keeps other threads waiting.
_WRITE_SIZE = 512 << 10
_WRITE_EVENTS = 256
#: The end takes at most so many times the patience of the sink, however slowly the reader still reads.
_SLOW_READER = 20
_ABORT_TIME = 0.1


class Recorder:
    """Owns the queue, the writer thread, the section and the sink. The reasons of `on_end`: reader, error, count.

    `error` is set when the output failed.
    """

    def __init__(
        self,
        sink: Sink,
        section: Section,
        *,
        snaplen: int,
        queue_bytes: int,
        max_packets: int = 0,
        capture_filter: Filter | None = None,
        record_unlinks: bool = False,
        on_end: Callable[[str], None] | None = None,
    ) -> None:
        self._queue: EventQueue = EventQueue(queue_bytes)
        self._queue.items.append(section.header())
        self.error: CaptureError | None = None
        self.channels: list[UsbChannel] = []
        self.logs: list[LogChannel] = []
        self._sink = sink
        self._sink.on_part_end = self._end_part
        self._section = section
        self._statistics = Trailer(section, is_filtered=capture_filter is not None)
        self._snaplen = snaplen
        self._max_packets = max_packets
        self._filter = capture_filter
        self._record_unlinks = record_unlinks
        self._notes: NotesInterface | None = None
        self.noted = 0  # remarks that are packets of their own
        self._clock = WallClock()
        self._packed = 0
        self._on_end = on_end
        self._closing = False
        self._cut = False  # nothing more of what is queued is to be written
        self._hurry = False  # somebody waits for what is queued
        self._is_busy = False  # something was queued at the last look
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usbip-capture writer", daemon=True)
        disown_in_children(self)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._finish(lost=True)
            self._close_sink()
            raise CaptureError(
                f"the capture to {sink.name} cannot begin: {error}: end other programs, or raise the limit of threads"
            ) from error

    @property
    def everything(self) -> list[UsbChannel | LogChannel]:
        """The channels of devices, of their unlinks, and of logs."""
        unlinks = [channel.unlinks for channel in self.channels if channel.unlinks is not None]
        return [*self.channels, *unlinks, *self.logs]

    def add_channel(self, info: DeviceInfo, description: str, *, product_follows: bool = False) -> UsbChannel:
        """A new interface of the capture, `usbip0` and so on, for one device.

        product_follows: nothing is written until `UsbChannel.product` was called, or PRODUCT_TIMEOUT is over.
        """
        with self._queue.lock:
            number = len(self.channels)
            channel = UsbChannel(self._queue, number, self._snaplen, info, description, self._filter)
            if product_follows:
                channel.settled = time.monotonic() + PRODUCT_TIMEOUT
            if not self._queue.ended:
                self.channels.append(channel)
                self._queue.items.append(channel)
                self._queue.interfaces += 1
                if self._record_unlinks:
                    channel.unlinks = UnlinkChannel(self._queue, number, self._snaplen)
                    self._queue.items.append(channel.unlinks)
                    self._queue.interfaces += 1
        self._queue.rouse()
        return channel

    def add_log(self, description: str, kind: str) -> LogChannel:
        """A new interface of the capture, `syslog0` and so on, for a log of this kind."""
        with self._queue.lock:
            number = sum(channel.name.startswith(kind) for channel in self.logs)
            channel = LogChannel(self._queue, number, self._snaplen, description, kind)
            if not self._queue.ended:
                self.logs.append(channel)
                self._queue.items.append(channel)
                self._queue.interfaces += 1
        self._queue.rouse()
        return channel

    def comment(self, text: str) -> None:
        """Comment on this moment: on the next event of any channel, or by itself if there is none soon."""
        with self._queue.lock:
            self._queue.remark(self._queue.remarks, text)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was captured so far is written; False after `timeout` seconds or the end."""
        written = threading.Event()
        with self._queue.lock:
            if self._queue.ended:
                return False
            self._queue.items.append(Moment(written.set))
        self._hurry_up()
        deadline = None if timeout is None else time.monotonic() + timeout
        while not written.wait(READER_CHECK if deadline is None else min(READER_CHECK, deadline - time.monotonic())):
            if self._done.is_set() or (deadline is not None and time.monotonic() >= deadline):
                return written.is_set()
        return True

    def close(self, timeout: float | None = None, at_most: float | None = None) -> None:
        """Write what is queued and the statistics, close the sink. May be called again, and from `on_end`.

        Gives up when the reader takes nothing for `timeout` seconds (None: what suits the sink). What is still queued
        after `at_most` seconds is dropped, for a reader that is slow.
        """
        for channel in self.channels:
            channel.settle()
        with self._queue.lock:
            if lost := self._queue.remarks_lost:
                self._queue.remarks.append(Remark(f"usbip-capture: {lost} further remarks found no room"))
        self._queue_remarks(0)
        with self._queue.lock:
            self._queue.ended = self._closing = True
        self._hurry_up()
        if threading.current_thread() is not self._thread and self._wait_done(
            self._sink.patience if timeout is None else timeout, at_most
        ):
            self._thread.join()

    def forked(self) -> None:
        """In a child process: nothing is captured there, and what is queued is for the parent to write."""
        self._queue.disown()
        self._done = set_event()
        self._sink.forget()

    def _wait_done(self, patience: float, at_most: float | None) -> bool:
        progress = -1
        quiet_since = started = time.monotonic()
        while not self._done.wait(min(0.02, patience)):
            now = time.monotonic()
            self._cut = self._cut or (at_most is not None and now - started >= at_most)
            if self._sink.written != progress:
                progress, quiet_since = self._sink.written, now
            if now - quiet_since >= patience or now - started >= patience * _SLOW_READER:
                self._sink.abort()
                return self._done.wait(_ABORT_TIME)
        return True

    def _hurry_up(self) -> None:
        self._hurry = True
        self._queue.rouse()

    # -- the writer thread

    def _run(self) -> None:
        reason, lost = "", False
        try:
            reason = self._record()
        except ReaderGone:
            reason = "reader"
        except SinkAborted as error:
            lost = True
            log.info("%s: the end of the capture is lost", error)
        except CaptureError as error:
            reason, lost, self.error = "error", True, error
        except MemoryError:
            reason, lost = "error", True
            self.error = CaptureError(f"the capture to {self._sink.name} ended: memory has run out; what came before"
                                      " is kept")  # fmt: skip
        except Exception as error:
            reason, lost = "error", True
            self.error = CaptureError(f"internal error: the capture to {self._sink.name} ended: {error!r}")
            log.exception("the writer of the capture failed")
        finally:
            try:
                self._end(reason, lost)
            finally:
                self._done.set()

    def _end(self, reason: str, lost: bool) -> None:
        self._finish(lost)
        self._close_sink()
        if reason and self._on_end is not None:
            try:
                self._on_end(reason)
            except Exception:
                log.exception("on_end failed")

    def _record(self) -> str:
        """Write until closed, or until there are enough packets: `count`."""
        while True:
            closing = self._closing
            enough = self._drain()
            if enough or closing:
                self._finish(lost=False)
                with self._queue.lock:
                    trailer = self._trailer()
                self._sink.write(trailer)
                return "count" if enough else ""
            self._wait()

    def _wait(self) -> None:
        """Until something is queued, and then a little longer for more."""
        self._check_clock()
        if not self._is_busy:
            with self._queue.lock:
                idle = self._queue.idle = not self._queue.items
            while idle and not self._queue.sleep(READER_CHECK):
                self._check_clock()
                if self._sink.reader_gone():
                    raise ReaderGone(f"the reader of {self._sink.name} is gone")
                self._queue_remarks(REMARK_TIMEOUT)
        if not self._hurry:  # set before it rouses us: it is seen here, or ends this sleep
            self._queue.sleep(COALESCE)
        self._hurry = False

    def _check_clock(self) -> None:
        if jump := self._clock.jump():
            self.comment(jump)

    def _queue_remarks(self, age: float) -> None:
        """Let remarks that have waited for `age` seconds go into the capture by themselves."""
        with self._queue.lock:
            if self._queue.ended:
                return
            latest = time.time_ns() - int(age * 1e9)
            sources: list[EventQueue | UsbChannel] = [self._queue, *self.channels]
            for source in sources:
                due = [remark for remark in source.remarks if remark.timestamp_ns <= latest]
                if due:
                    self._begin_notes()
                if due:
                    source.remarks = source.remarks[len(due) :]
                    self._queue.items += due
                    self._queue.rouse()

    def _begin_notes(self) -> None:
        """Have an interface for remarks. The queue is locked."""
        if self._notes is None:
            self._notes = NotesInterface(self._queue.interfaces)
            self._queue.interfaces += 1
            self._queue.items.append(self._notes)

    def _drain(self) -> bool:
        """Write all that is queued. True as soon as there are enough packets."""
        with self._queue.lock:
            if not self._closing and any(c.settled and c.settled > time.monotonic() for c in self.channels):
                return False
            batch, self._queue.items = self._queue.items, []
        self._is_busy = bool(batch)
        batch.reverse()  # taken from the end, so that each event is freed when it is written
        while batch:
            if self._cut:
                drop(self._queue, batch)
            elif self._write_some(batch):
                with self._queue.lock:
                    uncount(batch)
                return True
        return False

    def _write_some(self, batch: list[Item]) -> bool:
        out: list[Buffer] = []
        moment: Moment | None = None
        size = cost = log_cost = remark_cost = 0
        enough, left = False, _WRITE_EVENTS
        while batch and left and size < _WRITE_SIZE and not enough and moment is None:
            if isinstance(batch[-1], tuple):
                most = min(left, self._max_packets - self._packed) if self._max_packets else left
                count, packed, taken = pack_events(out, batch, most, _WRITE_SIZE - size)
                size, cost, left = size + packed, cost + taken, left - count
                self._packed += count
                enough = self._packed == self._max_packets
                continue
            item, left = batch.pop(), left - 1
            if isinstance(item, LogBatch):
                enough = self._take_log(out, item)
                size += item.cost
                log_cost += item.cost
            elif isinstance(item, (UsbChannel, LogChannel)):
                out.append(describe(self._section, item, self._snaplen, self._filter))
            elif isinstance(item, NotesInterface):
                out.append(describe_notes(self._section))
            elif isinstance(item, Remark):
                out.append(self._note(item))
                remark_cost += item.cost
            elif isinstance(item, Moment):
                moment = item
            elif isinstance(item, bytes):
                out.append(item)
        self._sink.write(out)
        for channel in self.everything:
            channel.written = channel.packed
        with self._queue.lock:
            self._queue.used -= cost + log_cost
            self._queue.log_used -= log_cost
            self._queue.remark_used -= remark_cost
        if moment is not None:
            moment.reached()
        return enough

    def _take_log(self, out: list[Buffer], batch: LogBatch) -> bool:
        """True when there are enough packets."""
        left = self._max_packets - self._packed if self._max_packets else len(batch.blocks) + 1
        blocks = batch.blocks[:left]
        out += blocks
        batch.channel.packed += len(blocks)
        self._packed += len(blocks)
        return len(blocks) == left

    def _note(self, remark: Remark) -> bytes:
        self.noted += 1
        number = self._notes.interface_id if self._notes is not None else 0
        return pack_packet(number, remark.timestamp_ns, pack_remark(remark.text), [remark.text])

    def _trailer(self) -> list[Buffer]:
        """Statistics of each interface; an interface, if there was none: without one the file is not valid."""
        if not self.everything:
            return [self._section.interface(name="usbip0", description="", snaplen=self._snaplen, speed=0)[1]]
        return self._statistics.blocks(self.everything, self._sink.part)

    def _end_part(self, part: Part) -> list[Buffer]:
        """Statistics of one file of several, at its end."""
        with self._queue.lock:
            return self._statistics.blocks(self.everything, part, is_last=False)

    def _finish(self, lost: bool) -> None:
        """Stop the queue. Queued events count as dropped if `lost`, else they leave `received`."""
        with self._queue.lock:
            self._queue.ended = True
            uncount(self._queue.items)
            self._queue.items = []
            for channel in self.everything:
                if lost:
                    channel.dropped = channel.received - channel.written - channel.filtered
                else:
                    channel.received = channel.written + channel.dropped + channel.filtered

    def _close_sink(self) -> None:
        try:
            self._sink.close()
        except ReaderGone:
            pass
        except CaptureError as error:
            self.error = self.error or error
        except Exception as error:  # noqa: BLE001  close never raises
            self.error = self.error or CaptureError(f"internal error: {self._sink.name} cannot be closed: {error!r}")
