"""What the readers of capture files hand out: interfaces and their packets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from usbip_capture.errors import CaptureError

#: Longest packet that is believed: several times what a URB has, and a quarter of what `stats` may need of memory.
MAX_PACKET = 64 << 20
#: Other blocks, such as name lists or secrets, are skipped piece by piece up to this length.
MAX_BLOCK = 1 << 30
#: Of all sections of a capture, as far as they are kept, else of one.
MAX_INTERFACES = 4096
#: Longest text that is kept of a name, a description or a comment, in characters; all comments of the statistics
#: blocks of a capture together.
MAX_TEXT = 2000
MAX_COMMENT_TEXT = 1 << 20

NANOSECONDS: Final = 1_000_000_000
#: Nanoseconds that no clock shows: such a time stamp is damaged, and reads as 0.
END_OF_TIME: Final = 0x8000000000000000


@dataclass(slots=True, eq=False)
class Interface:
    """An interface of a capture; a classic pcap file has one without a name.

    order: byte order of its headers, as `struct` writes it: the section's, or that of the classic file.
    multiplier, divisor, offset_ns: nanoseconds of a time stamp are ticks * multiplier // divisor + offset_ns; in a
    classic file those of what is beside its seconds.
    received, dropped: as its statistics block has them, None before or without one.
    snaplen: bytes that were kept of a packet at most; 0: no limit.
    """

    link_type: int
    order: str
    multiplier: int
    divisor: int
    offset_ns: int = 0
    snaplen: int = 0
    name: str = ""
    description: str = ""
    received: int | None = None
    dropped: int | None = None
    comments: list[str] = field(default_factory=list)


#: Interface, time stamp (ns), portion of the capture that was read, where the packet begins and ends in it, bytes of
#: the packet that were not captured, comments. Bytes are not copied: `portion[start:end]` is the packet. The latest
#: portion ends where reading has come to, so that a packet's place in the file follows from its place in it.
#: A tuple: millions are made.
Packet: TypeAlias = "tuple[Interface, int, bytes, int, int, int, list[str]]"
#: Takes a run of packets before they are handed out one by one: given a portion, where in it a packet begins, with its
#: block (of a little-endian section) or its record (of a classic file), and the interfaces, it returns where the first
#: packet begins that is not taken.
TakeRun: TypeAlias = "Callable[[bytes, int, list[Interface]], int]"


class Damaged(CaptureError):
    """The rest of the capture cannot be understood; what came before can."""


class CutOff(Damaged):
    """The capture ends in the middle."""
