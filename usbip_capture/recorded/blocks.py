"""A recorded disk, of Bulk-Only Transport: what it has where, for a host that reads it in other pieces than before.

Ref: USB Mass Storage Class, Bulk-Only Transport 1.0, table 5.1; SBC-3, READ and WRITE (6), (10), (12), (16)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from usbip_capture.recorded.episodes import Episode, Sent
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
    """A command that succeeded. episodes: its own, and those that have the data of a WRITE."""

    command: _Command
    episodes: list[Episode]
    address: int = 0

    @property
    def data(self) -> bytes:
        if self.command.is_write:
            return b"".join(one.ask.sent for one in self.episodes[1:] if one.ask is not None)
        return b"".join(sent.data for sent in self.episodes[0].sent[:-1])

    @property
    def used(self) -> bool:
        return all(one.used for one in self.episodes)


@dataclass(slots=True)
class RecordedDisk:
    """What READs can be answered with. commands: in the order of the recording."""

    commands: list[_Recorded] = field(default_factory=list)

    @property
    def blocks(self) -> int:
        """How many are recorded, at most."""
        return sum(recorded.command.count for recorded in self.commands)

    @classmethod
    def of(cls, episodes: Sequence[Episode]) -> RecordedDisk:
        """That of a function; without a command if it is not a disk."""
        return cls(list(_commands(episodes)))

    def read(self, asked: bytes) -> Episode | None:
        """The answer to a READ of what is recorded, in whatever pieces; None if it is something else, or not all is.

        Takes time in proportion to the number of commands.
        """
        command = _parsed(asked)
        if command is None or command.is_write or command.count > self.blocks:
            return None
        data = bytearray(command.count * command.size)
        missing = set(range(command.count))
        unknown: set[int] = set()  # blocks that the recording has overwritten, and the host so far has not
        address = 0
        for recorded in self.commands:
            common = _common(command, recorded.command)
            if not common:
                continue
            address = address or recorded.address
            is_write, used = recorded.command.is_write, recorded.used
            wanted = [at for at in common if (used if is_write else at in missing and at not in unknown)]
            if is_write:
                (unknown.difference_update if used else unknown.update)(common)
            content = recorded.data if wanted else b""
            for at in wanted:
                begin = (command.first + at - recorded.command.first) * command.size
                data[at * command.size : (at + 1) * command.size] = content[begin : begin + command.size]
                missing.discard(at)
        if missing or not address:
            return None
        return Episode(None, b"", [Sent(address, bytes(data), 0, 0, 0), Sent(address, _GOOD, 0, 0, 0)])


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


def _commands(episodes: Sequence[Episode]) -> Iterator[_Recorded]:
    for at, episode in enumerate(episodes):
        command = _parsed(episode.ask.sent) if episode.ask is not None else None
        if command is None or episode.ask is None or episode.ask.status:
            continue
        length = command.count * command.size
        found = _Recorded(command, [episode])
        written = 0
        for place in range(at + 1, len(episodes) if command.is_write else 0):
            following = episodes[place]
            if written >= length or following.ask is None or is_cbw(following.ask.sent):
                break
            found.episodes.append(following)
            written += len(following.ask.sent)
        last = found.episodes[-1].sent
        if not last or not is_csw(last[-1].data) or last[-1].data[12] or any(sent.status for sent in last):
            continue
        if (written or sum(len(sent.data) for sent in last[:-1])) != length:
            continue
        found.address = last[-1].address
        yield found


def _common(command: _Command, other: _Command) -> range:
    """Places in `command` of the blocks that both have."""
    if (command.lun, command.size) != (other.lun, other.size):
        return range(0)
    begin = max(other.first - command.first, 0)
    return range(begin, min(other.first + other.count - command.first, command.count))
