"""`PcapWriter`: a pcapng capture of USB devices, written while they are used."""

from __future__ import annotations

import io
import os
import platform
import weakref
from collections.abc import Callable
from typing import BinaryIO

from usbip_capture import __version__
from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.log_channel import LogChannel
from usbip_capture.capture.recorder import Recorder
from usbip_capture.capture.sinks import Sink, StreamSink, open_sink
from usbip_capture.errors import CaptureError, LocalProtocolError
from usbip_capture.filters.language import parse
from usbip_capture.records.pcapng import MAX_BLOCK, Section
from usbip_capture.records.usbmon import HEADER_SIZE
from usbip_capture.usb.info import DeviceInfo

QUEUE_BYTES = 64 << 20


class PcapWriter:
    """Writes a capture into `target`: a path (`-` is standard output), a binary stream or a Sink.

    snaplen: bytes kept of each packet, its 64-byte header included; 0 keeps what a pcapng block holds.
    queue_bytes: memory for what is captured and not yet written; what does not fit is dropped and counted.
    capture_filter: which URBs are written, such as `bulk and ep == 0x81` (see `usbip_capture.filters.language`).
    max_packets: end after exactly so many packets; 0 is without limit.
    record_unlinks: also write CMD_UNLINK and RET_UNLINK, on an interface `unlink0` beside `usbip0` and so on.
    on_end: called once, from the writer's thread, when the capture ends by itself, with the reason: `reader` (nobody
    reads it any more), `error` (see `error`) or `count` (there are max_packets).

    Raises TypeError for an argument of another type, LocalProtocolError for a snaplen that a header does not fit into,
    CaptureError when the target cannot be opened, FilterError when the filter cannot be understood. Opening a FIFO
    waits for its reader. A stream stays open at the end; a path or a Sink is closed. A writer that is not closed is
    when it is collected or when Python ends.
    """

    _recorder_class = Recorder

    def __init__(
        self,
        target: str | os.PathLike[str] | BinaryIO | Sink,
        *,
        snaplen: int = MAX_BLOCK,
        queue_bytes: int = QUEUE_BYTES,
        capture_filter: str = "",
        max_packets: int = 0,
        record_unlinks: bool = False,
        on_end: Callable[[str], None] | None = None,
    ) -> None:
        _check(snaplen, capture_filter, on_end)
        section = Section(
            application=f"usbip-capture {__version__}",
            hardware=platform.machine(),
            os=f"{platform.system()} {platform.release()}",
        )
        parsed = parse(capture_filter)
        self._recorder = self._recorder_class(
            _sink(target),
            section,
            snaplen=min(snaplen, MAX_BLOCK) if snaplen > 0 else MAX_BLOCK,
            queue_bytes=queue_bytes,
            max_packets=max_packets,
            capture_filter=parsed,
            record_unlinks=record_unlinks,
            on_end=on_end,
        )
        self._closer = weakref.finalize(self, self._recorder.close)

    def add_usb_interface(self, info: DeviceInfo, *, server: str, product: str | None = "") -> UsbChannel:
        """A tap for one device, on an interface of its own: `usbip0`, `usbip1`, ... `server` is HOST or HOST:PORT.

        product: what the device calls itself; None if that comes later, by the channel's `product`.
        """
        description = f"USB/IP {server} {info.busid} {info.idVendor:04x}:{info.idProduct:04x} {product or ''}"
        return self._recorder.add_channel(info, description.strip(), product_follows=product is None)

    def add_log_interface(self, description: str) -> LogChannel:
        """A channel for the messages of a log, on an interface of its own: `syslog0`, `syslog1`, ..."""
        return self._recorder.add_log(description, "syslog")

    def add_event_interface(self, description: str) -> LogChannel:
        """The same for what happens at a server: `events0`, `events1`, ..."""
        return self._recorder.add_log(description, "events")

    def comment(self, text: str) -> None:
        """Comment on this moment: on the next packet, or as a packet of its own if there is none within 1 s."""
        self._recorder.comment(text)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was captured so far is written; False after `timeout` seconds or the end."""
        return self._recorder.flush(timeout)

    def close(self, timeout: float | None = None, at_most: float | None = None) -> None:
        """Complete the capture and close what was opened for it. May be called again.

        timeout: give up when nothing can be written for so many seconds; None is 0.2 for a pipe, 10 for a file.
        at_most: after so many seconds, what is still queued is dropped and the capture completed without it.
        Raises CaptureError, the first time, if the output has failed: nobody should believe in a capture that is lost.
        """
        first = self._closer.detach() is not None
        self._recorder.close(timeout, at_most)
        if first and self.error is not None:
            raise self.error

    @property
    def received(self) -> int:
        """Packets offered, of USB and of logs, the dropped and the filtered ones too."""
        return sum(channel.received for channel in self._recorder.everything)

    @property
    def dropped(self) -> int:
        """Packets that found no room in the queue, or were lost with the output."""
        return sum(channel.dropped for channel in self._recorder.everything)

    @property
    def urbs(self) -> int:
        """URBs that came back and were captured."""
        return sum(channel.urbs for channel in self._recorder.channels)

    @property
    def bytes(self) -> int:
        """Bytes that these URBs moved."""
        return sum(channel.bytes for channel in self._recorder.channels)

    @property
    def filtered(self) -> int:
        """Packets that the capture filter did not let pass."""
        return sum(channel.filtered for channel in self._recorder.channels)

    @property
    def written(self) -> int:
        """Packets that are in the output."""
        return sum(channel.written for channel in self._recorder.everything)

    @property
    def notes(self) -> int:
        """Packets in the output beside these, which hold nothing but a comment."""
        return self._recorder.noted

    @property
    def error(self) -> CaptureError | None:
        """Why the output failed, None while all is well."""
        return self._recorder.error

    def __enter__(self) -> PcapWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except CaptureError:
            if kind is None:  # else it would hide what has gone wrong first
                raise


def _check(snaplen: int, capture_filter: str, on_end: Callable[[str], None] | None) -> None:
    if not isinstance(capture_filter, str):
        raise TypeError(f"capture_filter must be text such as 'bulk and ep == 0x81', not {capture_filter!r}")
    if on_end is not None and not callable(on_end):
        raise TypeError(f"on_end must be a function of the reason, not {on_end!r}")
    if snaplen < 0 or 0 < snaplen < HEADER_SIZE:
        raise LocalProtocolError(
            f"snaplen must leave room for the header of each packet: give {HEADER_SIZE} or more, or 0 for all,"
            f" not {snaplen}"
        )


def _sink(target: str | os.PathLike[str] | BinaryIO | Sink) -> Sink:
    if isinstance(target, Sink):
        return target
    if isinstance(target, (str, os.PathLike)):
        return open_sink(target)
    if isinstance(target, io.TextIOBase) or not hasattr(target, "write"):
        raise TypeError(f"a capture needs a path or a binary stream, not {target!r}")
    if isinstance(target, io.IOBase) and not target.writable():
        raise CaptureError(f"the capture cannot be written to {target!r}: it is open for reading only")
    return StreamSink(target)
