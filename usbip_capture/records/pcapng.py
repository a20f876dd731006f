"""pcapng blocks: section, interface and statistics through python-pcapng; packet blocks are packed with their record.

Ref: IETF draft-ietf-opsawg-pcapng, sections 3.5 (options), 4.1 to 4.3, 4.6
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from io import BytesIO
from struct import Struct
from typing import Final

from pcapng import FileWriter
from pcapng.blocks import InterfaceDescription as UntypedInterfaceDescription
from pcapng.blocks import InterfaceStatistics, SectionHeader
from pcapng.structs import OptionsField, StructField

from usbip_capture.system.shown import lines, one_line

LINKTYPE_USB_LINUX_MMAPPED = 220
LINKTYPE_WIRESHARK_UPPER_PDU = 252
ENHANCED_PACKET: Final = 6
STATISTICS: Final = 5
#: dumpcap ends the capture at a block longer than this.
MAX_BLOCK = 262_144
#: Bytes of an enhanced packet block beside the packet and its options.
PACKET_OVERHEAD: Final = 32
#: Longest text of an option, in bytes, and most comments of a block: they leave room for the packet.
MAX_TEXT = 4096
MAX_COMMENTS = 8

#: Nanoseconds: 10 to the power of -9.
TSRESOL = b"\x09"

_OPT_ENDOFOPT = 0
_OPT_COMMENT = 1
_IF_TSRESOL = 9
_FILTER_IS_TEXT = 0
_OPTION = Struct("<HH")
_ISB_IFDROP = 5
_HEAD = Struct("<II")
_PACKET = Struct("<IIIIIII")
_STATISTICS = Struct("<IIIII")
_TOTAL = Struct("<I")
# Packets up to so many bytes are packed in one call.
_SMALL = 1024


def bounded_text(text: str) -> str:
    """`text` as an option takes it: valid UTF-8 without control characters but line feeds, at most MAX_TEXT bytes."""
    if not text.isprintable():
        text = lines(text.replace("\0", "").encode("utf-8", "replace").decode())
    raw = text.encode()
    return raw[:MAX_TEXT].decode("utf-8", "ignore")


def pack_comments(comments: Sequence[str]) -> bytes:
    """The options of a packet block: MAX_COMMENTS comments and the end of options; nothing if there are none."""
    parts = []
    for comment in comments[:MAX_COMMENTS]:
        raw = bounded_text(comment).encode()
        parts += [_OPTION.pack(_OPT_COMMENT, len(raw)), raw, bytes(-len(raw) % 4)]
    return b"".join([*parts, _OPTION.pack(_OPT_ENDOFOPT, 0)]) if parts else b""


def pack_packet(
    interface_id: int, timestamp_ns: int, data: bytes, comments: Sequence[str] = (), original_length: int = 0
) -> bytes:
    """An enhanced packet block with all of `data`, which must be short enough for it.

    original_length: bytes of the packet before it was cut, 0 if it was not.
    """
    size, stamp = len(data), (timestamp_ns >> 32, timestamp_ns & 0xFFFFFFFF)
    if not comments and size <= _SMALL:
        pack, total = _small(size)
        return pack(ENHANCED_PACKET, total, interface_id, *stamp, size, original_length or size, data, total)
    options = pack_comments(comments)
    padding = bytes(-size % 4)
    total = PACKET_OVERHEAD + size + len(padding) + len(options)
    head = _PACKET.pack(ENHANCED_PACKET, total, interface_id, *stamp, size, original_length or size)
    return b"".join([head, data, padding, options, _TOTAL.pack(total)])


@cache
def _small(size: int) -> tuple[Callable[..., bytes], int]:
    """What packs a block of a packet so long, without options, and its total length."""
    whole = Struct(f"<IIIIIII{size}s{-size % 4}xI")
    return whole.pack, whole.size


def pack_drops(interface_id: int, timestamp_ns: int, dropped: int) -> bytes:
    """A statistics block with nothing but how many packets were dropped since the capture began."""
    options = _OPTION.pack(_ISB_IFDROP, 8) + dropped.to_bytes(8, "little") + _OPTION.pack(_OPT_ENDOFOPT, 0)
    total = _STATISTICS.size + len(options) + _TOTAL.size
    stamp = timestamp_ns >> 32, timestamp_ns & 0xFFFFFFFF
    return _STATISTICS.pack(STATISTICS, total, interface_id, *stamp) + options + _TOTAL.pack(total)


def without_packets(blocks: bytes) -> tuple[int, bytes]:
    """How many packets are among these whole blocks, and the others."""
    count = at = 0
    others = []
    while at < len(blocks):
        kind, size = _HEAD.unpack_from(blocks, at)
        if kind == ENHANCED_PACKET:
            count += 1
        else:
            others.append(blocks[at : at + size])
        at += size
    return count, b"".join(others)


def captured_limit(snaplen: int, options: int = 0) -> int:
    """How much of a packet a block may hold beside `options` bytes of options."""
    return min(snaplen, MAX_BLOCK - PACKET_OVERHEAD - options)


def _typed(field: StructField) -> StructField:
    if not isinstance(field, OptionsField):
        return field
    return OptionsField([o._replace(ftype="bytes") if o.code == _IF_TSRESOL else o for o in field.options_schema])


class InterfaceDescription(UntypedInterfaceDescription):
    """python-pcapng's, but if_tsresol has a type: without one each use of it is a DeprecationWarning."""

    __slots__: list[str] = []
    schema = [(name, _typed(field), default) for name, field, default in UntypedInterfaceDescription.schema]


class Section:
    """One pcapng section: makes the bytes of its blocks, which are to be written in this order.

    begun: the header and the descriptions of interfaces that were made so far.
    """

    def __init__(self, *, application: str, hardware: str, os: str) -> None:
        texts = {"shb_hardware": hardware, "shb_os": os, "shb_userappl": application}
        self._section = SectionHeader(options={name: bounded_text(text) for name, text in texts.items() if text})
        self.begun = b""
        self._stream = BytesIO()
        self._writer = FileWriter(self._stream, self._section)

    def header(self) -> bytes:
        """The section header block. To be taken once, before all others."""
        self.begun = header = self._take()
        return header

    def interface(
        self,
        *,
        name: str,
        description: str,
        snaplen: int,
        speed: int = 0,
        capture_filter: str = "",
        link_type: int = LINKTYPE_USB_LINUX_MMAPPED,
    ) -> tuple[int, bytes]:
        """The number of a new interface, and its description block. `speed` is in bit/s, 0 if unknown."""
        options: dict[str, object] = {"if_name": bounded_text(name), "if_tsresol": TSRESOL}
        if description:
            options["if_description"] = bounded_text(one_line(description))
        if speed:
            options["if_speed"] = speed
        if capture_filter:
            # In a list, for the library takes a tuple for several options.
            options["if_filter"] = [(_FILTER_IS_TEXT, bounded_text(capture_filter).encode())]
        block = self._section.new_member(InterfaceDescription, link_type=link_type, snaplen=snaplen, options=options)
        self._writer.write_block(block)
        self._writer.interfaces.add(block.interface_id)  # FileWriter registers only its own block class: register ours
        description_block = self._take()
        self.begun += description_block
        return block.interface_id, description_block

    def statistics(
        self,
        interface_id: int,
        *,
        start_ns: int,
        end_ns: int,
        received: int,
        dropped: int,
        accepted: int | None = None,
        comments: Sequence[str] = (),
    ) -> bytes:
        """The statistics block of an interface. `received` counts every packet, the dropped ones too.

        accepted: packets that the capture filter let pass, None if there is none.
        """
        options: dict[str, object] = {
            "isb_starttime": swap_words(start_ns),
            "isb_endtime": swap_words(end_ns),
            "isb_ifrecv": received,
            "isb_ifdrop": dropped,
        }
        if accepted is not None:
            options["isb_filteraccept"] = accepted
        if comments:
            options["opt_comment"] = [bounded_text(comment) for comment in comments[:MAX_COMMENTS]]
        block = self._section.new_member(
            InterfaceStatistics,
            interface_id=interface_id,
            timestamp_high=end_ns >> 32,
            timestamp_low=end_ns & 0xFFFFFFFF,
            options=options,
        )
        self._writer.write_block(block)
        return self._take()

    def _take(self) -> bytes:
        raw = self._stream.getvalue()
        self._stream.seek(0)
        self._stream.truncate()
        return raw


def swap_words(timestamp: int) -> int:
    """The times of a statistics block are two words, high first; python-pcapng takes them for one number."""
    return (timestamp & 0xFFFFFFFF) << 32 | timestamp >> 32
