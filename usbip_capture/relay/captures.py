"""Captures of what is relayed: any number, each begins and ends when it likes."""

from __future__ import annotations

import time
from typing import TypeAlias

from usbip_capture.capture.channel import IN_FLIGHT, UsbChannel
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.records.unlinks import unlink_comment
from usbip_capture.relay.observation import Observation
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.wire.observed import (
    Completed,
    Ended,
    Event,
    Imported,
    Noted,
    Submitted,
    Unanswered,
    Unlink,
    UnlinkReply,
)

#: The comment on what a capture begins with.
DESCRIPTORS = "usbip-capture: descriptors and settings, seen by the relay before this capture began"
#: Comments on what was not understood of a connection.
_MAX_NOTES = 100

_Ids: TypeAlias = "dict[int, int]"


class RelayCapture:
    """One capture into `writer`, which is not closed here. For the relay's thread alone.

    server, hint: for the descriptions of interfaces: where the devices are, how to attach.
    """

    def __init__(self, writer: PcapWriter, server: str, hint: str) -> None:
        self.writer = writer
        self._server = server
        self._hint = hint
        self._channels: dict[str, list[UsbChannel]] = {}
        self._users: dict[UsbChannel, Observation] = {}
        self._of: dict[Observation, tuple[UsbChannel, _Ids]] = {}
        self._notes: dict[Observation, int] = {}

    def joins(self, observation: Observation) -> None:
        """A connection that is there already: what was seen of it comes first, marked."""
        if observation.info is None or observation in self._of:
            return
        channel, ids = self._channel(observation, observation.info)
        now_ns = time.time_ns()
        channel.label = DESCRIPTORS
        for urb, completion in observation.seen.requests:
            channel.completed(channel.submitted(urb, b"", now_ns), urb, completion, now_ns)
        channel.label = IN_FLIGHT
        for seqnum, urb in observation.waiting.items():
            ids[seqnum] = channel.submitted(urb, b"", now_ns)
        channel.label = None

    def add(self, info: DeviceInfo) -> UsbChannel:
        """A further interface for this device, which nobody has yet."""
        channel = self.writer.add_usb_interface(info, server=self._server, product=f"({self._hint})")
        self._channels.setdefault(key_of(info), []).append(channel)
        return channel

    def adopt(self, observation: Observation, channel: UsbChannel, ids: dict[int, int]) -> None:
        """A connection goes on in `channel`, which has all of it up to now. ids: there, of URBs in flight by seqnum."""
        self._users[channel] = observation
        self._of[observation] = channel, ids

    def event(self, observation: Observation, event: Event) -> None:
        """Something has happened on a connection."""
        if type(event) is Submitted:
            timestamp_ns, seqnum, urb, data = event
            channel, ids = self._of[observation]
            ids[seqnum] = channel.submitted(urb, data, timestamp_ns)
        elif type(event) is Completed:
            timestamp_ns, seqnum, urb, completion, unlink = event
            channel, ids = self._of[observation]
            comment = unlink_comment(unlink) if unlink else ""
            channel.completed(ids.pop(seqnum, 0), urb, completion, timestamp_ns, comment)
        elif isinstance(event, (Unlink, UnlinkReply)):
            unlinks = self._of[observation][0].unlinks
            if unlinks is not None:
                unlinks.message(event.message, event.timestamp_ns)
        elif isinstance(event, Unanswered):
            self._of[observation][1].pop(event.seqnum, None)
        elif isinstance(event, Imported):
            self._channel(observation, event.info)
        elif isinstance(event, Noted) and observation in self._of:
            self._note(observation, event.text)
        elif isinstance(event, Ended):
            found = self._of.pop(observation, None)
            self._notes.pop(observation, None)
            if found is not None:
                self._users.pop(found[0], None)
                found[0].comment(f"usbip-capture: client {observation.peer} gone: {event.reason}")

    def _note(self, observation: Observation, text: str) -> None:
        """A peer decides how many there are, so there is an end to them."""
        number = self._notes[observation] = self._notes.get(observation, 0) + 1
        if number <= _MAX_NOTES:
            more = "; no more such comments on this connection" if number == _MAX_NOTES else ""
            self._of[observation][0].comment(f"usbip-capture: {text}{more}")

    def _channel(self, observation: Observation, info: DeviceInfo) -> tuple[UsbChannel, _Ids]:
        """The interface of a device: that which it had before, unless somebody else still has it."""
        known = self._channels.setdefault(key_of(info), [])
        channel = next((channel for channel in known if self._users.get(channel, observation) is observation), None)
        if channel is None:
            channel = self.add(info)
        else:
            channel.device(info)
        self._users[channel] = observation
        ids: _Ids = {}
        self._of[observation] = channel, ids
        return channel, ids


def key_of(info: DeviceInfo) -> str:
    """The same for one device only, as far as the relay can know that."""
    return f"{info.busid or info.devid} {info.idVendor:04x}:{info.idProduct:04x}"
