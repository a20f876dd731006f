"""The recorder: a bounded queue that taps fill without ever blocking, and one thread that packs and writes.

The thread sleeps until something is queued, gathers what comes in the next COALESCE seconds, and writes all of it.
When the queue is full, events are dropped and counted; a URB's completion finds the room that its submit reserved.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from usbip_capture.capture.sinks import ReaderGone, Sink, SinkAborted
from usbip_capture.errors import CaptureError
from usbip_capture.records.pcapng import Section
from usbip_capture.records.usbmon import UsbmonPacker
from usbip_capture.tap import Tap
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.status import GONE, status_name
from usbip_capture.usb.urb import DIR_IN, Buffer, Completion, Urb

log = logging.getLogger(__name__)

#: Seconds that the writer waits for more before it writes.
COALESCE = 0.01
#: Seconds between two looks, while nothing is captured, whether there is still a reader.
READER_CHECK = 0.1
#: Bytes that a queued event takes beside its data, and those of each isochronous packet.
EVENT_COST = 512
PACKET_COST = 160
#: A write is about this long, and made of at most so many events: packing them keeps other threads waiting.
_WRITE_SIZE = 128 << 10
_WRITE_EVENTS = 256
#: The end takes at most so many times the patience of the sink, however slowly the reader still reads.
_SLOW_READER = 20
_ABORT_TIME = 0.1

# channel, packer, cost, time stamp, URB id, URB, data of an outward URB, completion (None: submit), comments
Event: TypeAlias = "tuple[UsbChannel, UsbmonPacker, int, int, int, Urb, Buffer, Completion | None, tuple[str, ...]]"
# Besides events: a block that is packed already, and the sign that a `flush` has been reached.
Item: TypeAlias = "Event | bytes | threading.Event"


class Recorder:
    """Owns the queue, the writer thread, the section and the sink. The reasons of `on_end`: reader, error, count.

    `ended` tells that nothing is recorded any more; `error` is set when the output failed. `lock` guards all that
    channels change: the queue, its accounts, and theirs.
    """

    def __init__(
        self,
        sink: Sink,
        section: Section,
        *,
        snaplen: int,
        queue_bytes: int,
        max_packets: int = 0,
        on_end: Callable[[str], None] | None = None,
    ) -> None:
        self.lock = threading.Lock()
        self.ended = False
        self.error: CaptureError | None = None
        self.channels: list[UsbChannel] = []
        self.budget = queue_bytes
        # Half of the queue may be spoken for by completions to come: more would turn submits away for nothing.
        self.max_reserved = queue_bytes // 2
        self.used = self.reserved = 0
        self.last_urb_id = 0
        self.queue: list[Item] = [section.header()]
        self.idle = False
        self.wake = threading.Event()
        self._sink = sink
        self._section = section
        self._snaplen = snaplen
        self._max_packets = max_packets
        self._packed = 0
        self._on_end = on_end
        self._closing = False
        self._hurry = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usbip-capture writer", daemon=True)
        self._thread.start()

    def add_channel(self, info: DeviceInfo, description: str) -> UsbChannel:
        """A new interface of the capture, `usbip0` and so on, for one device."""
        with self.lock:
            interface_id, block = self._section.interface(
                name=f"usbip{len(self.channels)}",
                description=description,
                snaplen=self._snaplen,
                speed=info.speed.bits_per_second,
            )
            channel = UsbChannel(self, interface_id, self._snaplen, info)
            if not self.ended:
                self.channels.append(channel)
                self.queue.append(block)
        self.wake.set()
        return channel

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was captured so far is written; False after `timeout` seconds or the end."""
        written = threading.Event()
        with self.lock:
            if self.ended:
                return False
            self.queue.append(written)
        self._hurry_up()
        deadline = None if timeout is None else time.monotonic() + timeout
        while not written.wait(READER_CHECK if deadline is None else min(READER_CHECK, deadline - time.monotonic())):
            if self._done.is_set() or (deadline is not None and time.monotonic() >= deadline):
                return written.is_set()
        return True

    def close(self, timeout: float | None = None) -> None:
        """Write what is queued and the statistics, close the sink. May be called again, and from `on_end`.

        Gives up when the reader takes nothing for `timeout` seconds (None: what suits the sink).
        """
        with self.lock:
            self.ended = self._closing = True
        self._hurry_up()
        if threading.current_thread() is not self._thread and self._wait_done(
            self._sink.patience if timeout is None else timeout
        ):
            self._thread.join()

    def _wait_done(self, patience: float) -> bool:
        progress = -1
        quiet_since = started = time.monotonic()
        while not self._done.wait(min(0.02, patience)):
            now = time.monotonic()
            if self._sink.written != progress:
                progress, quiet_since = self._sink.written, now
            if now - quiet_since >= patience or now - started >= patience * _SLOW_READER:
                self._sink.abort()
                return self._done.wait(_ABORT_TIME)
        return True

    def _hurry_up(self) -> None:
        self._hurry.set()
        self.wake.set()

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
        except Exception as error:
            log.exception("the writer of the capture failed")
            reason, lost = "error", True
            self.error = CaptureError(f"the capture to {self._sink.name} ended because of our own fault: {error!r}")
        self._finish(lost)
        self._close_sink()
        if reason and self._on_end is not None:
            try:
                self._on_end(reason)
            except Exception:
                log.exception("on_end failed")
        self._done.set()

    def _record(self) -> str:
        """Write until closed, or until there are enough packets: `count`."""
        while True:
            closing = self._closing
            enough = self._drain()
            if enough or closing:
                self._finish(lost=False)
                with self.lock:
                    trailer = self._trailer()
                self._sink.write(trailer)
                return "count" if enough else ""
            self._wait()

    def _wait(self) -> None:
        """Until something is queued, and then a little longer for more."""
        with self.lock:
            self.idle = not self.queue
        if self.idle:
            while not self.wake.wait(READER_CHECK):
                if self._sink.reader_gone():
                    raise ReaderGone(f"the reader of {self._sink.name} is gone")
        self.wake.clear()
        self._hurry.wait(COALESCE)
        self._hurry.clear()

    def _drain(self) -> bool:
        """Write all that is queued. True as soon as there are enough packets."""
        with self.lock:
            batch, self.queue = self.queue, []
        batch.reverse()     # taken from the end, so that each event is freed when it is written
        while batch:
            if self._write_some(batch):
                return True
        return False

    def _write_some(self, batch: list[Item]) -> bool:
        out: list[Buffer] = []
        flushed: list[threading.Event] = []
        size = cost = 0
        enough = False
        for _ in range(min(len(batch), _WRITE_EVENTS)):
            item = batch.pop()
            if isinstance(item, tuple):
                size += _pack(out, item)
                cost += item[2]
                self._packed += 1
                enough = self._packed == self._max_packets
                if enough or size >= _WRITE_SIZE:
                    break
            elif isinstance(item, threading.Event):
                flushed.append(item)
            else:
                out.append(item)
        self._sink.write(out)
        for channel in self.channels:
            channel.written = channel.packed
        with self.lock:
            self.used -= cost
        for event in flushed:
            event.set()
        return enough

    def _trailer(self) -> list[Buffer]:
        """Statistics of each interface; an interface, if there was none: without one the file is not valid."""
        end_ns = time.time_ns()
        if not self.channels:
            return [self._section.interface(name="usbip0", description="", snaplen=self._snaplen, speed=0)[1]]
        return [
            self._section.statistics(
                channel.interface_id,
                start_ns=channel.start_ns,
                end_ns=end_ns,
                received=channel.received,
                dropped=channel.dropped,
                comments=channel.remarks,
            )
            for channel in self.channels
        ]

    def _finish(self, lost: bool) -> None:
        """Nothing is queued any more. What was counts as dropped if it is lost, else as not captured."""
        with self.lock:
            self.ended = True
            self.queue = []
            for channel in self.channels:
                if lost:
                    channel.dropped = channel.received - channel.written
                else:
                    channel.received = channel.written + channel.dropped

    def _close_sink(self) -> None:
        try:
            self._sink.close()
        except ReaderGone:
            pass
        except CaptureError as error:
            self.error = self.error or error


class UsbChannel(Tap):
    """One device on one interface of the capture.

    received, dropped, written: events so far; `dropped` is a part of `received`.
    label: a comment for each URB submitted while it is set, on its submit and its completion.
    """

    def __init__(self, recorder: Recorder, interface_id: int, snaplen: int, info: DeviceInfo) -> None:
        self.interface_id = interface_id
        self.start_ns = time.time_ns()
        self.received = self.dropped = self.packed = self.written = 0
        self.label: str | None = None
        self.remarks: list[str] = []            # for the next event
        self._recorder = recorder
        self._snaplen = snaplen
        self._labels: dict[int, str] = {}       # of URBs that are out
        self._gone = False
        self._packer = UsbmonPacker(interface_id, snaplen, info.busnum, info.devnum)

    def device(self, info: DeviceInfo) -> None:
        """The device is (back) at this bus and device number, for all events to come."""
        with self._recorder.lock:
            self._packer = UsbmonPacker(self.interface_id, self._snaplen, info.busnum, info.devnum)
            self._gone = False

    def comment(self, text: str) -> None:
        """Say something at this moment: on the next event, or in the statistics if there is none."""
        with self._recorder.lock:
            self.remarks.append(text)

    def gone(self, reason: str) -> None:
        """Say that the device is away, unless the completion of a URB has said it."""
        with self._recorder.lock:
            if not self._gone:
                self._gone = True
                self.remarks.append(f"device gone: {reason}")

    def submitted(self, urb: Urb) -> int:
        recorder = self._recorder
        if recorder.ended:
            return 0
        data = urb.data
        if type(data) is not bytes:
            data = bytes(data)      # its owner may change it as soon as the URB is done
        cost = EVENT_COST + len(data) + PACKET_COST * len(urb.packets)
        room = _completion_cost(urb)
        with recorder.lock:
            if recorder.ended:
                return 0
            self.received += 1
            room += recorder.reserved
            if recorder.used + cost + min(room, recorder.max_reserved) > recorder.budget:
                self.dropped += 1
                return 0
            recorder.reserved = room
            recorder.used += cost
            recorder.last_urb_id = urb_id = recorder.last_urb_id + 1
            comments: tuple[str, ...] = ()
            if self.remarks or self.label is not None:
                comments = self._comments(self.label)
                if self.label is not None:
                    self._labels[urb_id] = self.label
            recorder.queue.append((self, self._packer, cost, time.time_ns(), urb_id, urb, data, None, comments))
            wake, recorder.idle = recorder.idle, False
        if wake:
            recorder.wake.set()
        return urb_id

    def completed(self, urb_id: int, urb: Urb, completion: Completion) -> None:
        recorder = self._recorder
        if recorder.ended:
            return
        status = completion.status
        cost = EVENT_COST + len(completion.data) + PACKET_COST * len(completion.packets)
        room = _completion_cost(urb)
        with recorder.lock:
            if recorder.ended:
                return
            self.received += 1
            if urb_id:
                recorder.reserved -= room
            label = self._labels.pop(urb_id, None) if self._labels else None
            if not urb_id or recorder.used + cost > recorder.budget:
                self.dropped += 1
                return
            recorder.used += cost
            comments: tuple[str, ...] = ()
            if status in GONE and not self._gone:
                self._gone = True
                self.remarks.append(f"device gone: {status_name(status)}")
            if self.remarks or label is not None:
                comments = self._comments(label)
            recorder.queue.append((self, self._packer, cost, time.time_ns(), urb_id, urb, b"", completion, comments))
            wake, recorder.idle = recorder.idle, False
        if wake:
            recorder.wake.set()

    def _comments(self, label: str | None) -> tuple[str, ...]:
        remarks, self.remarks = self.remarks, []
        return tuple(remarks) if label is None else (*remarks, label)


def _pack(out: list[Buffer], event: Event) -> int:
    channel, packer, _, timestamp_ns, urb_id, urb, data, completion, comments = event
    channel.packed += 1
    if completion is None:
        return packer.submit(out, timestamp_ns, urb_id, urb, data, comments)
    return packer.complete(out, timestamp_ns, urb_id, urb, completion, comments)


def _completion_cost(urb: Urb) -> int:
    """Room for what may come back."""
    data = urb.length if urb.endpoint & DIR_IN else 0
    return EVENT_COST + data + PACKET_COST * len(urb.packets)
