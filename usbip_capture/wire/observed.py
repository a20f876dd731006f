"""What the observer of a session reports, and where it is in each of the two streams."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.urb import Buffer, Completion, Urb


class Imported(NamedTuple):
    """URBs of this device follow. seen: False if the session was joined in its middle: little is known of it then."""

    timestamp_ns: int
    info: DeviceInfo
    seen: bool


class Submitted(NamedTuple):
    """A URB is on its way. `data` is that of an outward one; shorter than `urb.length` if the recording has a gap."""

    timestamp_ns: int
    seqnum: int
    urb: Urb
    data: Buffer


class Completed(NamedTuple):
    """A URB is completed. unlink: seqnum of the CMD_UNLINK that asked for it, 0 if none did.

    The completion's data is shorter than its `actual_length` if the recording has a gap.
    """

    timestamp_ns: int
    seqnum: int
    urb: Urb
    completion: Completion
    unlink: int


class Unanswered(NamedTuple):
    """A URB that is waited for no longer, because too many others are: no Completed follows for it."""

    timestamp_ns: int
    seqnum: int
    urb: Urb


class Unlink(NamedTuple):
    """CMD_UNLINK: the client unlinks its URB `target`. If that is completed already, the two have crossed."""

    timestamp_ns: int
    seqnum: int
    target: int
    message: bytes


class UnlinkReply(NamedTuple):
    """RET_UNLINK. target: 0 if its CMD_UNLINK was not seen."""

    timestamp_ns: int
    seqnum: int
    target: int
    status: int
    message: bytes


class Noted(NamedTuple):
    """Something is wrong or missing here, in words."""

    timestamp_ns: int
    text: str


class Ended(NamedTuple):
    """No event follows."""

    timestamp_ns: int
    reason: str


Event: TypeAlias = "Imported | Submitted | Completed | Unanswered | Unlink | UnlinkReply | Noted | Ended"


class Stream:
    """One direction of a session.

    parts, have: bytes at hand of a message that is not complete, and how many. need: how many it takes to go on.
    skip: bytes of the rest of a message that are to be left out.
    hole: from where on the message at hand is not known, 0 if all of it is.
    lost: the beginning of the next message is to be searched. skipped: for how many bytes so far.
    """

    __slots__ = ("have", "hole", "lost", "name", "need", "parts", "skip", "skipped")

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts: list[Buffer] = []
        self.have = self.need = self.skip = self.hole = self.skipped = 0
        self.lost = False
