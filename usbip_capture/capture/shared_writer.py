"""A capture that is packed once for all who see it, and that others join while it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from usbip_capture.capture.channel import IN_FLIGHT, UsbChannel, pack_events
from usbip_capture.capture.event_queue import EventQueue
from usbip_capture.capture.joined_later import Known, Moment, SoFar
from usbip_capture.capture.recorder import Recorder
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.records.pcapng import pack_packet
from usbip_capture.records.upper_pdu import pack_remark
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.urb import Buffer

#: The interface of remarks is the first one: those for one of the viewers only are on it, too.
NOTES_INTERFACE = 0
#: The ids of requests that were seen before are above those of all URBs.
_EARLIER = 1 << 48
#: There is always room for what is shown of one device.
_BUDGET = 1 << 40


class SharedRecorder(Recorder):
    """Keeps what those who join later are to know."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        with self._queue.lock:
            self._begin_notes()
        self._queue.rouse()

    def add_channel(self, info: DeviceInfo, description: str, *, product_follows: bool = False) -> UsbChannel:
        channel = super().add_channel(info, description, product_follows=product_follows)
        channel.so_far = SoFar()  # before anybody has the channel
        return channel

    def show_so_far(self, label: str, begin: Callable[[bytes], None]) -> bool:
        """See `SharedWriter.show_so_far`."""
        with self._queue.lock:
            if self._queue.ended:
                return False
            known = [one.so_far.known(one, one.held) for one in self.channels if one.so_far is not None]
            self._queue.items.append(Moment(lambda: begin(self._begun(known, label))))
        self._hurry_up()
        return True

    def _begun(self, known: list[Known], label: str) -> bytes:
        """On the writer's thread: the interfaces that are described by now are those of `known`, and of logs."""
        blocks = (block for one in known for block in _blocks(one, self._snaplen, label))
        return b"".join([self._section.begun, *blocks])


class SharedWriter(PcapWriter):
    """As PcapWriter; its first interface is that of remarks."""

    _recorder_class = SharedRecorder

    def show_so_far(self, label: str, begin: Callable[[bytes], None]) -> bool:
        """Have `begin` called between two writes, with blocks that all later ones may follow; False at the end.

        These are the header, the interfaces, descriptors and settings of the devices with the comment `label`, and
        the submits of the URBs that are out. `begin` is called on the writer's thread, and must not wait.
        """
        recorder = self._recorder
        return isinstance(recorder, SharedRecorder) and recorder.show_so_far(label, begin)


def _blocks(known: Known, snaplen: int, label: str) -> list[Buffer]:
    """What is known of a device, as packets of its interface; `label` is the comment of requests that were answered."""
    queue: EventQueue = EventQueue(_BUDGET)
    queue.interfaces = known.channel.interface_id
    shown = UsbChannel(queue, 0, snaplen, known.info, "", known.channel.capture_filter)
    queue.last_urb_id = _EARLIER
    shown.label = label
    for urb, completion in known.requests:
        shown.completed(shown.submitted(urb), urb, completion)
    unfiltered = UsbChannel(queue, 0, snaplen, known.info, "")
    unfiltered.label = IN_FLIGHT
    for number, (urb, data) in known.out.items():
        queue.last_urb_id = number - 1
        unfiltered.submitted(urb, data)
    out: list[Buffer] = []
    batch = queue.items[::-1]
    pack_events(out, batch, len(batch), _BUDGET)
    return out


def pack_note(text: str, time_ns: int) -> bytes:
    """A remark for one of those who see a shared capture."""
    return pack_packet(NOTES_INTERFACE, time_ns, pack_remark(text), [text])
