"""A capture file as the devices that it has, ready to be replayed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from usbip_capture.errors import CaptureError, DeviceNotFound
from usbip_capture.recorded.conversation import Exchange, RecordedDevice
from usbip_capture.recorded.descriptors import RecordedDescriptors, descriptors_of, info_of
from usbip_capture.recorded.episodes import Conversation, conversation_of
from usbip_capture.recorded.exchanges import indexed
from usbip_capture.recorded.reading import read_devices
from usbip_capture.recordings.link_types import is_usb, link_type_label, may_hold_tcp
from usbip_capture.recordings.packets import Damaged, Interface, Packet
from usbip_capture.recordings.reading import read_packets
from usbip_capture.recordings.source import Source
from usbip_capture.replayed.storage import CaptureContent, FileStorage
from usbip_capture.system.shown import one_line
from usbip_capture.usb.info import DeviceInfo

_HUB = 9
#: bmRequestType and bRequest. Ref: USB 2.0, table 11-15
_GET_PORT_STATUS = bytes((0xA3, 0))
#: A hub is asked for that as soon as it is configured: so many requests are looked at.
_FIRST_REQUESTS = 256
#: Part of the sentence about transfers whose data is not there as a whole.
CUT = "was cut by the snapshot length of the capture"


@dataclass(slots=True)
class Recording:
    """One device of a capture. flaws: sentences about what the capture lacks."""

    name: str
    info: DeviceInfo
    known: RecordedDescriptors
    exchanges: Sequence[Exchange]
    flaws: list[str]
    _conversation: Conversation | None = field(default=None, repr=False)

    @property
    def conversation(self) -> Conversation:
        """What was asked and answered; found out once."""
        if self._conversation is None:
            self._conversation = conversation_of(self.exchanges, self.known)
        return self._conversation


def read_recordings(path: str | os.PathLike[str]) -> list[Recording]:
    """The devices of a capture of any program. Raises CaptureError: it has none, or cannot be read."""
    with Source(path) as source:
        name = source.name
        interfaces: list[Interface] = []
        content = CaptureContent(source)
        damage: list[Damaged] = []
        found = read_devices(_before(damage, read_packets(source, interfaces)), content, FileStorage())
        content.ended()
        lost = sum(interface.dropped or 0 for interface in interfaces)
    # Number 0 is what every device has until it gets one of its own.
    devices = [device for device in found if device.number and indexed(device.exchanges).answered]
    if not devices and damage:
        raise damage[0]
    if not devices and any(may_hold_tcp(interface.link_type) for interface in interfaces):
        raise CaptureError(f"{name} is a recording of a network: make one of USB of it with usbip-capture convert")
    foreign = sorted({interface.link_type for interface in interfaces if not is_usb(interface.link_type)})
    if not devices and foreign and len(foreign) == len({interface.link_type for interface in interfaces}):
        found_there = " and ".join(map(link_type_label, foreign))
        raise CaptureError(f"{name} has {found_there}, which is not replayed: give a capture of usbmon or USBPcap")
    if not devices:
        raise CaptureError(f"{name} has no device that answers: give a capture with USB traffic")
    taken: set[str] = set()
    recordings = [_recording(name, device, taken, lost) for device in devices]
    for recording in recordings:
        recording.flaws += [f"{error}: what came before is replayed" for error in damage]
    return [one for one in recordings if not _is_hub(one)] or recordings


def _before(damage: list[Damaged], packets: Iterator[Packet]) -> Iterator[Packet]:
    """What can be read: a capture may have been ended by a crash, or still be written."""
    try:
        yield from packets
    except Damaged as error:
        damage.append(error)


def chosen(recordings: list[Recording], device: str) -> Recording:
    """The one that is meant by a busid or VID:PID; without, the only one. Raises DeviceNotFound."""
    wanted = device.strip().lower()
    found = [one for one in recordings if not wanted or wanted in (one.info.busid, _vid_pid(one.info))]
    if len(found) == 1:
        return found[0]
    there = ", ".join(str(one.info) for one in recordings)
    what = f"device {one_line(device)}" if wanted else "one device"
    raise DeviceNotFound(f"{recordings[0].name} does not have exactly {what}: it has {there}")


def _is_hub(recording: Recording) -> bool:
    """By its descriptors, or by what only a hub is asked: the status of a port."""
    if recording.info.bDeviceClass == _HUB or any(one.bInterfaceClass == _HUB for one in recording.info.interfaces):
        return True
    requests = indexed(recording.exchanges).control_requests()
    return any(one.setup[:2] == _GET_PORT_STATUS for one in islice(requests, _FIRST_REQUESTS))


def _vid_pid(info: DeviceInfo) -> str:
    return f"{info.idVendor:04x}:{info.idProduct:04x}"


def _recording(name: str, device: RecordedDevice, taken: set[str], lost: int) -> Recording:
    known = descriptors_of(device)
    busid = device.busid or f"{device.bus}-{device.number}"
    while busid in taken:
        head, _, last = busid.rpartition("-")
        busid = f"{head}-{int(last) + 1}" if last.isdigit() else f"{device.bus}-{len(taken) + 1}"
    taken.add(busid)
    flaws = list(known.missing)
    exchanges = indexed(device.exchanges)
    if exchanges.cut:
        flaws.append(f"data of {exchanges.cut} transfers {CUT}, first in packet {exchanges.first_cut}")
    if device.strays:
        flaws.append(f"{device.strays} completions have no submit: they were under way when the capture began, or lost")
    if lost:
        flaws.append(f"{lost} packets were lost when it was captured")
    return Recording(name, info_of(device, known, busid), known, exchanges, flaws)
