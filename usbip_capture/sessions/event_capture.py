"""What happens at a server, beside what is done with its devices: as packets on an interface of their own."""

from __future__ import annotations

from functools import lru_cache

from usbip_capture.capture.writer import PcapWriter
from usbip_capture.records.upper_pdu import pack_remark
from usbip_capture.server.described import sentence
from usbip_capture.server.events import Event, Events
from usbip_capture.sessions.session_capture import DeviceChoice

#: Events that are kept as they are packed, for the captures that still have to write them.
_PACKED = 64


class EventCapture:
    """Captures into `writer` what happens at the server from now on, until `close`: clients, devices, refusals.

    choice: those that name another device are left out. server: its address, for people.
    """

    def __init__(self, events: Events, writer: PcapWriter, server: str, choice: DeviceChoice) -> None:
        self._choice = choice
        self._channel = writer.add_event_interface(f"events of the server {server}")
        self._watch = events.watch(self._happened)

    def close(self) -> None:
        """Capture no more of them. May be called again."""
        self._watch.close()

    def _happened(self, event: Event) -> None:
        if not event.busid or self._choice.may_mean(event.busid, event.device):
            self._channel.write([(round(event.time * 1e9), _packed(event), ())])


@lru_cache(_PACKED)
def _packed(event: Event) -> bytes:
    return pack_remark(sentence(event), event.severity)
