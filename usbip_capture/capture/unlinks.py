"""CMD_UNLINK and RET_UNLINK of one device, on an interface of their own beside that of its URBs."""

from __future__ import annotations

import time

from usbip_capture.capture.event_queue import EventQueue
from usbip_capture.capture.log_channel import LogChannel
from usbip_capture.records.unlinks import LINKTYPE_RAW, UnlinkPackets


class UnlinkChannel(LogChannel):
    """`unlink0` is that of `usbip0`, and so on."""

    link_type = LINKTYPE_RAW

    def __init__(self, queue: EventQueue, number: int, snaplen: int) -> None:
        super().__init__(queue, number, snaplen, f"CMD_UNLINK and RET_UNLINK of usbip{number}", "unlink")
        self._packets = UnlinkPackets()

    def message(self, message: bytes, timestamp_ns: int = 0) -> None:
        """A CMD_UNLINK goes out, or a RET_UNLINK has come: now, or at this time."""
        with self._queue.lock:
            packet = self._packets.packet(message)
        self.write([(timestamp_ns or time.time_ns(), packet, ())])
