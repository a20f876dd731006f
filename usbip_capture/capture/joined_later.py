"""A capture that others join while it is written: what they have to know of each device, and the moment they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from usbip_capture.capture.seen import SeenRequests
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.urb import Buffer, Completion, Urb

if TYPE_CHECKING:
    from usbip_capture.capture.channel import UsbChannel


class SoFar:
    """What of one device is to be known. Changed with the lock of the queue.

    out: URBs whose submit is in the capture and whose completion is not, with their outward data.
    """

    __slots__ = ("out", "seen")

    def __init__(self) -> None:
        self.out: dict[int, tuple[Urb, Buffer]] = {}
        self.seen = SeenRequests()

    def forget(self) -> None:
        """The session is over."""
        self.seen = SeenRequests()

    def known(self, channel: UsbChannel, held: Sequence[int]) -> Known:
        """All of it now. held: URBs whose submit is not in the capture yet."""
        # What is outward may be changed by its owner once the URB is done.
        out = {number: (urb, bytes(data)) for number, (urb, data) in self.out.items() if number not in held}
        return Known(channel, channel.info, self.seen.requests, out)


class Known(NamedTuple):
    """What is known of the device of a channel, at one moment."""

    channel: UsbChannel
    info: DeviceInfo
    requests: Sequence[tuple[Urb, Completion]]
    out: dict[int, tuple[Urb, bytes]]


class Moment:
    """Queued for the writer's thread, which calls `reached` when all before it is written, and nothing after it."""

    __slots__ = ("reached",)

    def __init__(self, reached: Callable[[], None]) -> None:
        self.reached = reached
