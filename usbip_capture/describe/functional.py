"""Functional descriptors of smart card readers, firmware upgrade and networks, as `lsusb -v` prints them.

Ref: CCID 1.1, 5.1; DFU 1.1, 4.1.3; CDC ECM 1.2, 5.4; NCM 1.0, 5.2.1; MBIM 1.0, 6.4 and 6.5
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from usbip_capture.describe.fields import Field, table_lines
from usbip_capture.describe.layout import field, number, string
from usbip_capture.describe.naming import version

CHIP_CARD = 0x0B
APPLICATION, FIRMWARE_UPGRADE = 0xFE, 0x01

_DFU_WIDTH = 37
_ETHERNET_WIDTH = 34
_NETWORK = (
    "packet filter", "net address", "encapsulated commands", "max cts", "crc mode", "8-byte ntb input size",
)  # fmt: skip
_CARD_FEATURES = {
    1: "Auto configuration based on ATR",
    2: "Auto activation on insert",
    3: "Auto voltage selection",
    4: "Auto clock change",
    5: "Auto baud rate change",
    6: "Auto parameter negotiation made by CCID",
    7: "Auto PPS made by CCID",
    8: "CCID can set ICC in clock stop mode",
    9: "NAD value other than 0x00 accepted",
    10: "Auto IFSD exchange",
}
_EXCHANGES = {1: "TPDU level exchange", 2: "Short APDU level exchange", 4: "Short and extended APDU level exchange"}


def _set(words: Sequence[str]) -> Callable[[int], str]:
    """The words whose bits are set, after a blank."""
    return lambda value: "".join(f" {word}" for bit, word in enumerate(words) if value >> bit & 1)


_CARD = (
    Field("bcdCCID", 2, "v", lambda value: "" if value == 0x100 else " (Warning: Only accurate for version 1.0)"),
    Field("nMaxSlotIndex"),
    Field("bVoltageSupport", meaning=_set(("5.0V", "3.0V", "1.8V"))),
    Field("dwProtocols", 4, meaning=_set(("T=0", "T=1"))),
    Field("dwDefaultClock", 4),
    Field("dwMaxiumumClock", 4),  # which is how lsusb spells it
    Field("bNumClockSupported"),
    Field("dwDataRate", 4, meaning=lambda value: "bps"),
    Field("dwMaxDataRate", 4, meaning=lambda value: "bps"),
    Field("bNumDataRatesSupp."),
    Field("dwMaxIFSD", 4),
)
_CARD_END = (Field("bPINSupport", meaning=_set(("verification", "modification"))), Field("bMaxCCIDBusySlots"))
_CARD_LENGTH = 54


def card_lines(indent: int, piece: bytes, strings: Mapping[int, str]) -> Iterator[str]:
    """The class descriptor of a smart card reader; nothing if it is too short."""
    if len(piece) < _CARD_LENGTH:
        return
    pad, inner = " " * indent, indent + 2
    yield f"{pad}ChipCard Interface Descriptor:"
    yield number(inner, "bLength", piece[0])
    yield number(inner, "bDescriptorType", piece[1])
    yield from table_lines(inner, _CARD, piece[2:32], strings)
    words = [int.from_bytes(piece[at : at + 4], "little") for at in (32, 36, 40)]
    for name, value in zip(("dwSyncProtocols", "dwMechanical", "dwFeatures"), words, strict=True):
        yield field(inner, name, f"{value:08X}")
    features = words[2]
    # Negotiation is either the reader's own or the proposal of one.
    shown = features & ~0x80 if features & 0x40 else features
    yield from (f"{pad}    {text}" for bit, text in _CARD_FEATURES.items() if shown >> bit & 1)
    yield f"{pad}    {_EXCHANGES.get(features >> 16 & 7, 'Character level exchange')}"
    yield number(inner, "dwMaxCCIDMsgLen", int.from_bytes(piece[44:48], "little"))
    for name, value in (("bClassGetResponse", piece[48]), ("bClassEnvelope", piece[49])):
        yield field(inner, name, "echo" if value == 0xFF else f"{value:02X}")
    lines, columns = piece[51], piece[50]
    layout = f"{columns} cols {lines} lines" if lines or columns else "none"
    yield field(inner, "wlcdLayout", layout)
    yield from table_lines(inner, _CARD_END, piece[52:54], strings)


def firmware_lines(indent: int, piece: bytes) -> Iterator[str]:
    """The functional descriptor of device firmware upgrade; nothing if it is too short."""
    if len(piece) < 7:
        return
    pad, inner = " " * indent, indent + 2
    able = piece[2]
    yield f"{pad}Device Firmware Upgrade Interface Descriptor:"
    yield field(inner, "bLength", str(piece[0]), _DFU_WIDTH)
    yield field(inner, "bDescriptorType", str(piece[1]), _DFU_WIDTH)
    yield field(inner, "bmAttributes", str(able), _DFU_WIDTH)
    yield f"{pad}    Will {'' if able & 8 else 'Not '}Detach"
    yield f"{pad}    Manifestation {'Tolerant' if able & 4 else 'Intolerant'}"
    yield f"{pad}    Upload {'Supported' if able & 2 else 'Unsupported'}"
    yield f"{pad}    Download {'Supported' if able & 1 else 'Unsupported'}"
    yield field(inner, "wDetachTimeout", str(piece[3] | piece[4] << 8), _DFU_WIDTH) + " milliseconds"
    yield field(inner, "wTransferSize", str(piece[5] | piece[6] << 8), _DFU_WIDTH) + " bytes"
    if len(piece) >= 9:
        yield field(inner, "bcdDFUVersion", version(piece[7] | piece[8] << 8), _DFU_WIDTH - 1)


def ethernet_lines(indent: int, data: bytes, strings: Mapping[int, str]) -> Iterator[str]:
    """The Ethernet functional descriptor, `data` beginning behind its subtype; nothing if it is too short."""
    if len(data) < 10:
        return
    yield f"{' ' * indent}CDC Ethernet:"
    table = (
        ("bmEthernetStatistics", f"{int.from_bytes(data[1:5], 'little'):#010x}"),
        ("wMaxSegmentSize", str(data[5] | data[6] << 8)),
        ("wNumberMCFilters", f"{data[7] | data[8] << 8:#06x}"),
        ("bNumberPowerFilters", str(data[9])),
    )
    yield string(indent + 2, "iMacAddress", data[0], strings, _ETHERNET_WIDTH)
    yield from (field(indent + 2, name, value, _ETHERNET_WIDTH) for name, value in table)


#: bDescriptorSubtype -> title, fields, width of further networks and of what describes them.
TABLES: dict[int, tuple[str, Sequence[Field], int]] = {
    0x07: ("Country Selection", (Field("iCountryCodeRelDate", style="s"), Field("wCountryCode", 2, "x")), 25),
    0x14: ("CDC Device Management", (Field("bcdVersion", 2, "v"), Field("wMaxCommand", 2)), 25),
    0x1A: ("CDC NCM", (Field("bcdNcmVersion", 2, "v"), Field("bmNetworkCapabilities", 1, "x", bits=_NETWORK)), 25),
    0x1B: (
        "CDC MBIM",
        (
            Field("bcdMBIMVersion", 2, "v"), Field("wMaxControlMessage", 2), Field("bNumberFilters"),
            Field("bMaxFilterSize"), Field("wMaxSegmentSize", 2),
            Field("bmNetworkCapabilities", 1, "x", bits=_NETWORK),
        ),
        25,
    ),
    0x1C: (
        "CDC MBIM Extended",
        (Field("bcdMBIMExtendedVersion", 2, "v"), Field("bMaxOutstandingCommandMessages"), Field("wMTU", 2)),
        _DFU_WIDTH,
    ),
}  # fmt: skip
