"""The capture of what clients do with lent devices: each session on an interface of its own."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence

from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.files import RotatingSink, file_sink, misleading_ending
from usbip_capture.capture.rotation import Rotation
from usbip_capture.capture.sinks import Sink, open_sink
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.device import Device
from usbip_capture.errors import LocalProtocolError
from usbip_capture.lending.lender import Exported
from usbip_capture.sessions.observed import ObservedDevice
from usbip_capture.system.shown import shell_word

log = logging.getLogger(__name__)

#: Interfaces of one capture: from then on, a session has one of an ended session of the same device.
_MAX_INTERFACES = 256
_NAMED_PIPE = "\\\\.\\pipe\\"


class SessionCaptures:
    """A capture into `target`, as PcapWriter has it. rotate: as `-b` of `usbip-capture capture` has it.

    server: for the descriptions of interfaces. A failure ends the capture only. Raises CaptureError.
    """

    def __init__(self, target: str | os.PathLike[str], server: str, rotate: Sequence[str] = ()) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._ended: dict[str, list[UsbChannel]] = {}
        self._count = 0
        self._opened = threading.Event()
        try:
            self.writer = PcapWriter(_sink(os.fspath(target), rotate), on_end=self._on_end)
        finally:
            self._opened.set()

    def tapped(self, device: Device, exported: Exported) -> Device:
        """`device`, with all that it does in the capture."""
        key = f"{exported.info} {exported.serial}"
        with self._lock:
            ended = self._ended.get(key, [])
            channel = ended.pop(0) if ended and self._count >= _MAX_INTERFACES else None
            self._count += channel is None
        if channel is None:
            channel = self.writer.add_usb_interface(device.info, server=self._server, product=exported.product)
        else:
            channel.device(device.info)
            channel.comment("usbip-capture: a further session begins")
        return ObservedDevice(device, channel, lambda loss: self._session_ended(key, channel, loss))

    def close(self) -> None:
        """Complete the capture. Raises CaptureError if it has failed."""
        self.writer.close()

    def _session_ended(self, key: str, channel: UsbChannel, loss: str) -> None:
        if loss:
            channel.gone(loss)
        with self._lock:
            self._ended.setdefault(key, []).append(channel)

    def _on_end(self, reason: str) -> None:
        self._opened.wait()  # a full disk may be noticed before there is a `writer`
        what = "nobody reads it any more" if reason == "reader" else str(self.writer.error)
        log.warning("the capture has ended: %s; devices are lent on", what)


def _sink(path: str, rotate: Sequence[str]) -> Sink:
    """Raises CaptureError, LocalProtocolError."""
    if wrong := misleading_ending(path):
        raise LocalProtocolError(f"pcap: {shell_word(path)} {wrong}")
    if rotate:
        if path == "-":
            raise LocalProtocolError("-b is for files: name one with --pcap")
        return RotatingSink(path, Rotation.parse(rotate))
    if path != "-" and path.lower().endswith(".gz") and not path.lower().startswith(_NAMED_PIPE):
        return file_sink(path)
    return open_sink(path)
