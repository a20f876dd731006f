"""Events for a recorder, and a sink that holds its writer up."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from tests.oracles.pcapng_reader import CapturedRecord, read_capture, read_items
from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.sinks import Sink
from usbip_capture.capture.writer import QUEUE_BYTES, PcapWriter
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.urb import Buffer, Completion, TransferType, Urb

INFO = DeviceInfo("1-1", 3, 4, Speed.HIGH, 0x1209, 0x0001)
URB = Urb(TransferType.INTERRUPT, 0x81, 8, interval=4)
DONE = Completion(0, 8, b"12345678")


def run(channel: UsbChannel, urb: Urb = URB, completion: Completion = DONE) -> int:
    urb_id = channel.submitted(urb)
    channel.completed(urb_id, urb, completion)
    return urb_id


def events(path: Path) -> list[tuple[str, int]]:
    return [(chr(r.usb.type), r.usb.id) for r in read_capture(path) if r.usb]


def statistics(path: Path) -> tuple[int | None, int | None, list[str]]:
    """Received, dropped and comments of the first interface."""
    interface, *_ = read_items(path)  # its counts are at the end
    assert not isinstance(interface, CapturedRecord)
    return interface.received, interface.dropped, interface.comments


class HeldSink(Sink):
    """Takes nothing until it is let go; then keeps all, or fails."""

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__("the held sink")
        self.taken = bytearray()
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.failure = failure
        self.closed = 0

    def write(self, buffers: Sequence[Buffer]) -> None:
        self.entered.set()
        assert self.go_on.wait(20)
        if self.failure is not None:
            raise self.failure
        self.taken += b"".join(buffers)
        self.written = len(self.taken)

    def close(self) -> None:
        self.closed += 1


class HeldWriter:
    """A writer whose thread is held up in its first write, with an interface."""

    def __init__(
        self, failure: Exception | None = None, *, queue_bytes: int = QUEUE_BYTES, max_packets: int = 0
    ) -> None:
        self.sink = HeldSink(failure)
        self.reasons: list[str] = []
        self.writer = PcapWriter(
            self.sink, on_end=self.reasons.append, queue_bytes=queue_bytes, max_packets=max_packets
        )

    def __enter__(self) -> tuple[PcapWriter, UsbChannel, HeldSink]:
        channel = self.writer.add_usb_interface(INFO, server="pi")
        assert self.sink.entered.wait(20)
        return self.writer, channel, self.sink

    def __exit__(self, *_: object) -> None:
        self.sink.go_on.set()
        self.writer.close()


def finish(writer: PcapWriter, sink: HeldSink) -> bytes:
    """What was captured, after all of it was written."""
    sink.go_on.set()
    writer.close()
    return bytes(sink.taken)
