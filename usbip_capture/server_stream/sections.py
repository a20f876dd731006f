"""The streams of a server, one after the other, made one section: each device keeps its interface. Pure.

Ref: IETF draft-ietf-opsawg-pcapng, 4.1 to 4.6
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import TypeAlias

from usbip_capture.capture.descriptions import describe_notes
from usbip_capture.errors import RemoteProtocolError
from usbip_capture.records.pcapng import (
    ENHANCED_PACKET,
    LINKTYPE_USB_LINUX_MMAPPED,
    LINKTYPE_WIRESHARK_UPPER_PDU,
    MAX_BLOCK,
    STATISTICS,
    Section,
    pack_drops,
    pack_packet,
)
from usbip_capture.records.upper_pdu import pack_remark
from usbip_capture.records.usbmon import COMPLETE, HEADER_SIZE

_SECTION, _INTERFACE = 0x0A0D0D0A, 1
_LITTLE_ENDIAN = b"\x4d\x3c\x2b\x1a"
_HEAD, _NUMBER = Struct("<II"), Struct("<I")
_PACKET = Struct("<8xIIII")  # interface, time stamp high and low, captured length
_OPTION = Struct("<HH")
_LONG = Struct("<Q")
#: From the beginning of a block: data of a packet, options of a description and of statistics.
_DATA_AT, _DESCRIPTION_OPTIONS_AT, _STATISTICS_OPTIONS_AT = 28, 16, 20
# Of usbmon's header: type, and bytes that were moved.
_TYPE_AT, _LENGTH_AT = 8, 32
_IF_DESCRIPTION, _ISB_IFDROP = 3, 5
_LEAST = 12
#: Time stamp, packet, comments.
LogPacket: TypeAlias = "tuple[int, bytes, Sequence[str]]"
#: Interfaces of one capture.
_MAX_INTERFACES = 4096


class JoinedSections:
    """Feed it what comes; it returns whole blocks. packets, urbs, bytes, dropped: what these have so far.

    application: of the section, if nothing ever comes. max_packets: after so many it is `full`; 0: no limit.
    last_ns: the time stamp of the last packet or count of drops, 0 before it.
    """

    def __init__(self, application: str, max_packets: int = 0) -> None:
        self.packets = self.urbs = self.bytes = 0
        self._dropped_before = 0
        self._dropped: dict[int, int] = {}  # of each interface, in this stream
        self.last_ns = 0
        self.full = False
        self._max_packets = max_packets
        self._own = Section(application=application, hardware="", os="")
        self._header = self._own.header()
        self._notes_description = describe_notes(self._own)
        self._notes_key = _key(self._notes_description)
        self._begun = False
        self._known: dict[bytes, list[int]] = {}
        self._link_types: list[int] = []
        self._numbers: list[int] = []
        self._rest = b""
        self._early: list[tuple[bytes, Sequence[LogPacket]]] = []  # what came before the section

    @property
    def dropped(self) -> int:
        """Packets that found no room at the server, as far as it has reported that."""
        return self._dropped_before + sum(self._dropped.values())

    def begin(self) -> None:
        """A further stream begins; what was not whole of the one before is dropped."""
        self._dropped_before, self._dropped = self.dropped, {}
        self._rest = b""
        self._numbers = []

    def feed(self, data: bytes) -> bytes:
        """The whole blocks that `data` completes. Raises RemoteProtocolError for what a server of ours never sends."""
        work = bytearray(self._rest + data)
        kept: list[bytes | bytearray] = []
        at = begin = 0
        while len(work) - at >= _LEAST and not self.full:
            kind, size = _HEAD.unpack_from(work, at)
            if size < _LEAST or size & 3 or size > MAX_BLOCK + _LEAST:
                raise RemoteProtocolError(f"the server sends what is not a capture: a block of {size} bytes")
            if at + size > len(work):
                break
            notes = b""
            if kind == ENHANCED_PACKET:
                self._packet(work, at, size)
                keeps = True
            else:
                keeps, notes = self._other(kind, work, at, size)
            if not keeps:
                kept.append(work[begin:at])
                begin = at + size
            at += size
            if notes:
                kept += [work[begin:at], notes]
                begin = at
        kept.append(work[begin:at])
        self._rest = bytes(work[at:])
        return b"".join(kept)

    def note(self, text: str, time_ns: int) -> bytes:
        """A comment of our own as blocks; it follows what was returned before."""
        return self._own_blocks(self._notes_description, [(time_ns, pack_remark(text), [text])])

    def log_interface(self, name: str, description: str) -> bytes:
        """The description of an interface for a log of our own, by which `log` knows it."""
        return self._own.interface(
            name=name, description=description, snaplen=0, link_type=LINKTYPE_WIRESHARK_UPPER_PDU
        )[1]

    def log(self, interface: bytes, messages: Sequence[LogPacket]) -> bytes:
        """Packets of it as blocks, which count; they follow what was returned before."""
        if self._max_packets:
            messages = messages[: self._max_packets - self.packets]
        self.packets += len(messages)
        self.full = self.packets == self._max_packets
        return self._own_blocks(interface, messages)

    def _own_blocks(self, interface: bytes, packets: Sequence[LogPacket]) -> bytes:
        if not self._begun:
            self._early.append((interface, packets))
            return b""
        number, is_new = self._numbered(interface, _key(interface), [])
        blocks = [pack_packet(number, *packet) for packet in packets]
        return b"".join([interface, *blocks] if is_new else blocks)

    def _early_blocks(self) -> bytes:
        early, self._early = self._early, []
        return b"".join(self._own_blocks(interface, packets) for interface, packets in early)

    def end(self) -> bytes:
        """What the capture still needs: how much it lacks; or its beginning, if nothing has come."""
        if self._begun:
            numbers = self._known.get(self._notes_key)
            return pack_drops(numbers[0], self.last_ns, self.dropped) if numbers and self.dropped else b""
        self._begun = True
        return self._header + self._early_blocks()

    def _other(self, kind: int, work: bytearray, at: int, size: int) -> tuple[bool, bytes]:
        """Whether this block is kept, and what is to follow it."""
        if kind == _SECTION:
            if work[at + 8 : at + 12] != _LITTLE_ENDIAN:
                raise RemoteProtocolError("the server sends a capture in another byte order: update it")
            self._numbers = []
            first, self._begun = not self._begun, True
            if not first:
                return False, b""
            return True, self._early_blocks()
        if kind == _INTERFACE:
            block = bytes(work[at : at + size])
            number, is_new = self._numbered(block, _key(block), self._numbers)
            self._numbers.append(number)
            return is_new, b""
        if kind == STATISTICS and size >= _STATISTICS_OPTIONS_AT + 4:
            number = self._renumber(work, at)
            self._count_drops(number, work, at + _STATISTICS_OPTIONS_AT, at + size - 4)
            _, high, low, _ = _PACKET.unpack_from(work, at)
            self.last_ns = high << 32 | low
            return number not in self._known.get(self._notes_key, ()), b""  # those of notes come again and again
        return True, b""

    def _packet(self, work: bytearray, at: int, size: int) -> None:
        if size < _DATA_AT + 4:
            raise RemoteProtocolError("the server sends what is not a capture: a packet without its head")
        number = self._renumber(work, at)
        _, high, low, captured = _PACKET.unpack_from(work, at)
        self.last_ns = high << 32 | low
        self.packets += 1
        self.full = self.packets == self._max_packets
        data = at + _DATA_AT
        if captured >= HEADER_SIZE and self._link_types[number] == LINKTYPE_USB_LINUX_MMAPPED:
            if captured > size - _DATA_AT - 4:
                raise RemoteProtocolError("the server sends what is not a capture: a packet longer than its block")
            if work[data + _TYPE_AT] == COMPLETE:
                self.urbs += 1
                self.bytes += _NUMBER.unpack_from(work, data + _LENGTH_AT)[0]

    def _renumber(self, work: bytearray, at: int) -> int:
        """Give a block the number that its interface has here."""
        number: int = _NUMBER.unpack_from(work, at + 8)[0]
        if number >= len(self._numbers):
            raise RemoteProtocolError(f"the server sends a packet of interface {number}, which is not there")
        ours = self._numbers[number]
        if ours != number:
            _NUMBER.pack_into(work, at + 8, ours)
        return ours

    def _numbered(self, block: bytes, key: bytes, taken: list[int]) -> tuple[int, bool]:
        """The number of an interface, and whether it is new; not one of those `taken`."""
        known = self._known.setdefault(key, [])
        found = next((number for number in known if number not in taken), None)
        if found is not None:
            return found, False
        if len(self._link_types) >= _MAX_INTERFACES:
            raise RemoteProtocolError(f"the server sends more than {_MAX_INTERFACES} interfaces: choose some devices")
        known.append(len(self._link_types))
        self._link_types.append(int.from_bytes(block[8:10], "little"))
        return known[-1], True

    def _count_drops(self, number: int, work: bytearray, at: int, end: int) -> None:
        while at + 4 <= end:
            code, size = _OPTION.unpack_from(work, at)
            if code == _ISB_IFDROP and size == _LONG.size and at + 12 <= end:
                self._dropped[number] = _LONG.unpack_from(work, at + 4)[0]
            at += 4 + size + (-size & 3)


def _key(block: bytes) -> bytes:
    """What stays of a description from stream to stream: link type, and what the interface describes, or all of it."""
    at, end = _DESCRIPTION_OPTIONS_AT, len(block) - 4
    while at + 4 <= end:
        code, size = _OPTION.unpack_from(block, at)
        if code == _IF_DESCRIPTION and size:
            return block[8:10] + block[at + 4 : at + 4 + size]
        at += 4 + size + (-size & 3)
    return block
