"""A recorded disk, of Bulk-Only Transport: what it has where, for a host that reads it in other pieces than before.

Ref: USB Mass Storage Class, Bulk-Only Transport 1.0, table 5.1; SBC-3, READ and WRITE (6), (10), (12), (16)
"""

from __future__ import annotations

from dataclasses import dataclass

from usbip_capture.recorded.episodes import Conversation, Episode, Sent
from usbip_capture.recorded.places import Places
from usbip_capture.recorded.rows import MemoryStorage, Rows
from usbip_capture.recorded.tags import is_cbw, is_csw

#: Operation codes: bytes of the logical block address, and of the length, in the command block.
_PLACES = {
    0x08: (slice(2, 4), slice(4, 5)),
    0x28: (slice(2, 6), slice(7, 9)),
    0xA8: (slice(2, 6), slice(6, 10)),
    0x88: (slice(2, 10), slice(10, 14)),
}
#: The operation code of a WRITE is that of the READ, and this.
_WRITE = 0x02
_COMMAND_BLOCK = 15
_GOOD = b"USBS" + bytes(9)


@dataclass(slots=True)
class _Command:
    """READ or WRITE of `count` blocks from `first` on. size: bytes of a block."""

    is_write: bool
    lun: int
    first: int
    count: int
    size: int


@dataclass(slots=True)
class _Recorded:
    """A command that succeeded. places: in what was asked, its own and those that have the data of a WRITE."""

    places: list[int]
    data: bytes
    address: int


class RecordedDisk:
    """What READs can be answered with: the commands of a function, in the order of the recording."""

    def __init__(self, conversation: Conversation, function: int) -> None:
        self._conversation = conversation
        self._function = function
        # Its place in what was asked, block, count, bytes of a block, lun and whether it is a WRITE.
        self._commands = Rows(MemoryStorage(), "<IQIIB")
        self._blocks = 0  # as many as are recorded at most
        at = conversation.following(function, 0)
        while at is not None:
            command = None if conversation.is_long(at) else _parsed(conversation.asked(at).sent)
            if command is not None and not conversation.status(at):
                self._blocks += command.count
                what = command.lun << 1 | command.is_write
                self._commands.append(self._commands.pack(at, command.first, command.count, command.size, what))
            at = conversation.following(function, at + 1)

    def read(self, asked: bytes, used: Places) -> Episode | None:
        """The answer to a READ of what is recorded, in whatever pieces; None if it is something else, or not all is.

        used: places of what was asked so far. Takes time in proportion to the number of commands.
        """
        command = _parsed(asked)
        if command is None or command.is_write or command.count > self._blocks:
            return None
        data = bytearray(command.count * command.size)
        missing = set(range(command.count))
        unknown: set[int] = set()  # blocks that the recording has overwritten, and the host so far has not
        address = 0
        for at, first, count, size, what in self._commands.iterate():
            other = _Command(bool(what & 1), what >> 1, first, count, size)
            common = _common(command, other)
            found = self._succeeded(at, other) if common else None
            if found is None:
                continue
            address = address or found.address
            was_used = all(place in used for place in found.places)
            wanted = [at for at in common if (was_used if other.is_write else at in missing and at not in unknown)]
            if other.is_write:
                (unknown.difference_update if was_used else unknown.update)(common)
            for at in wanted:
                begin = (command.first + at - other.first) * command.size
                data[at * command.size : (at + 1) * command.size] = found.data[begin : begin + command.size]
                missing.discard(at)
        if missing or not address:
            return None
        made = [Sent(address, bytes(data), 0, 0, 0), Sent(address, _GOOD, 0, 0, 0)]
        return Episode(None, -1, self._function, 0, 0, 0, made)

    def _succeeded(self, at: int, command: _Command) -> _Recorded | None:
        """A command, if it has."""
        conversation, length = self._conversation, command.count * command.size
        places, parts = [at], []
        written = 0
        while command.is_write and written < length:
            following = conversation.following(self._function, places[-1] + 1)
            sent = b"" if following is None else conversation.asked(following).sent
            if following is None or is_cbw(sent):
                break
            places.append(following)
            parts.append(sent)
            written += len(sent)
        last = [
            sent
            for _, found in conversation.answers(conversation.episode(places[-1], self._function))
            for sent in found
        ]
        if not last or not is_csw(last[-1].data) or last[-1].data[12] or any(sent.status for sent in last):
            return None
        brought = b"".join(sent.data for sent in last[:-1])
        if (written or len(brought)) != length:
            return None
        return _Recorded(places, b"".join(parts) if command.is_write else brought, last[-1].address)


def _parsed(sent: bytes) -> _Command | None:
    if not is_cbw(sent):
        return None
    code = sent[_COMMAND_BLOCK]
    places = _PLACES.get(code & ~_WRITE)
    if places is None:
        return None
    block = sent[_COMMAND_BLOCK:]
    first, count = (int.from_bytes(block[place], "big") for place in places)
    length = int.from_bytes(sent[8:12], "little")
    if not count or not length or length % count:
        return None
    return _Command(bool(code & _WRITE), sent[13] & 0x0F, first, count, length // count)


def _common(command: _Command, other: _Command) -> range:
    """Places in `command` of the blocks that both have."""
    if (command.lun, command.size) != (other.lun, other.size):
        return range(0)
    begin = max(other.first - command.first, 0)
    return range(begin, min(other.first + other.count - command.first, command.count))
