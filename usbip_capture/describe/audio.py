"""Descriptors of audio and MIDI functions as `lsusb -v` prints them.

Ref: USB Audio 1.0, 4.3 and 4.5; Audio Data Formats 1.0; USB Audio 2.0, 4.7 and 4.9; MIDI Devices 1.0, 6.1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from usbip_capture.describe import usbids
from usbip_capture.describe.fields import Field, table_lines
from usbip_capture.describe.layout import number
from usbip_capture.usb.descriptors import InterfaceDescriptor
from usbip_capture.usb.setup import DT_CS_INTERFACE

AUDIO = 1
CONTROL, STREAMING, MIDI = 1, 2, 3
_UAC2, _UAC3 = 0x20, 0x30  # bInterfaceProtocol; devices of version 1 have all others
DT_CS_ENDPOINT = 0x25

_CHANNELS = (
    "Left Front (L)", "Right Front (R)", "Center Front (C)", "Low Frequency Enhancement (LFE)", "Left Surround (LS)",
    "Right Surround (RS)", "Left of Center (LC)", "Right of Center (RC)", "Surround (S)", "Side Left (SL)",
    "Side Right (SR)", "Top (T)",
)  # fmt: skip
_CHANNELS_2 = (
    "Front Left (FL)", "Front Right (FR)", "Front Center (FC)", "Low Frequency Effects (LFE)", "Back Left (BL)",
    "Back Right (BR)", "Front Left of Center (FLC)", "Front Right of Center (FRC)", "Back Center (BC)",
    "Side Left (SL)", "Side Right (SR)",
)  # fmt: skip
_FEATURES = (
    "Mute", "Volume", "Bass", "Mid", "Treble", "Graphic Equalizer", "Automatic Gain", "Delay", "Bass Boost", "Loudness",
)  # fmt: skip
_FEATURES_2 = (*_FEATURES, "Input Gain", "Input Gain Pad", "Phase Inverter")
_FORMATS = {
    0x0001: "PCM", 0x0002: "PCM8", 0x0003: "IEEE_FLOAT", 0x0004: "ALAW", 0x0005: "MULAW", 0x1001: "MPEG",
    0x1002: "AC-3", 0x2001: "IEC1937_AC-3",
}  # fmt: skip
_CLOCKS = ("External", "Internal fixed", "Internal variable", "Internal programmable")
_PROCESSES = (
    "Undefined", "Up/Down-mix", "Dolby Prologic", "3D-Stereo Extender", "Reverberation", "Chorus", "Dyn Range Comp",
)  # fmt: skip
_LOCK_UNITS = ("Undefined", "Milliseconds", "Decoded PCM samples")


def _of(words: Sequence[str], value: int) -> str:
    return words[value] if value < len(words) else "Reserved"


_TERMINAL = Field("wTerminalType", 2, "x", usbids.terminal_name)
_CLUSTER = (Field("bNrChannels"), Field("wChannelConfig", 2, "x", bits=_CHANNELS), Field("iChannelNames", style="s"))
_CLUSTER_2 = (
    Field("bNrChannels"), Field("bmChannelConfig", 4, "x", bits=_CHANNELS_2), Field("iChannelNames", style="s"),
)  # fmt: skip
_PINS = (Field("bNrInPins"), Field("baSourceID", count="bNrInPins"))
_FORMAT_TYPE = Field("bFormatType", meaning=lambda value: f"(FORMAT_TYPE_{('?', 'I', 'II', 'III')[value & 3]})")
_HEADER = (
    Field("bcdADC", 2, "v"), Field("wTotalLength", 2, "x"), Field("bInCollection"),
    Field("baInterfaceNr", count="bInCollection"),
)  # fmt: skip
_LOCK = (Field("bLockDelayUnits", meaning=lambda value: _of(_LOCK_UNITS, value)), Field("wLockDelay", 2, "x"))

Table = tuple[str, Sequence[Field]]
_CONTROL_1: dict[int, Table] = {
    1: ("HEADER", _HEADER),
    2: (
        "INPUT_TERMINAL",
        (Field("bTerminalID"), _TERMINAL, Field("bAssocTerminal"), *_CLUSTER, Field("iTerminal", style="s")),
    ),
    3: (
        "OUTPUT_TERMINAL",
        (Field("bTerminalID"), _TERMINAL, Field("bAssocTerminal"), Field("bSourceID"), Field("iTerminal", style="s")),
    ),
    4: (
        "MIXER_UNIT",
        (
            Field("bUnitID"), *_PINS, *_CLUSTER, Field("bmControls", 1, "x", count="rest"), Field("iMixer", style="s"),
        ),
    ),
    5: ("SELECTOR_UNIT", (Field("bUnitID"), *_PINS, Field("iSelector", style="s"))),
    6: (
        "FEATURE_UNIT",
        (
            Field("bUnitID"), Field("bSourceID"), Field("bControlSize"),
            Field("bmaControls", "bControlSize", "x", bits=[f"{name} Control" for name in _FEATURES], count="rest"),
            Field("iFeature", style="s"),
        ),
    ),
    7: (
        "PROCESSING_UNIT",
        (
            Field("bUnitID"), Field("wProcessType", 2, "x", lambda value: _of(_PROCESSES, value)), *_PINS, *_CLUSTER,
            Field("bControlSize"), Field("bmControls", 1, "x", count="bControlSize"), Field("iProcessing", style="s"),
        ),
    ),
    8: (
        "EXTENSION_UNIT",
        (
            Field("bUnitID"), Field("wExtensionCode", 2, "x"), *_PINS, *_CLUSTER, Field("bControlSize"),
            Field("bmControls", 1, "x", count="bControlSize"), Field("iExtension", style="s"),
        ),
    ),
}  # fmt: skip
_CONTROL_2: dict[int, Table] = {
    1: ("HEADER", (Field("bcdADC", 2, "v"), Field("bCategory"), Field("wTotalLength", 2, "x"),
                   Field("bmControls", 1, "x", controls=("Latency",)))),
    2: (
        "INPUT_TERMINAL",
        (
            Field("bTerminalID"), _TERMINAL, Field("bAssocTerminal"), Field("bCSourceID"), *_CLUSTER_2,
            Field("bmControls", 2, "x",
                  controls=("Copy Protect", "Connector", "Overload", "Cluster", "Underflow", "Overflow")),
            Field("iTerminal", style="s"),
        ),
    ),
    3: (
        "OUTPUT_TERMINAL",
        (
            Field("bTerminalID"), _TERMINAL, Field("bAssocTerminal"), Field("bSourceID"), Field("bCSourceID"),
            Field("bmControls", 2, "x", controls=("Copy Protect", "Connector", "Overload", "Underflow", "Overflow")),
            Field("iTerminal", style="s"),
        ),
    ),
    5: ("SELECTOR_UNIT", (Field("bUnitID"), *_PINS, Field("bmControls", 1, "x", controls=("Selector",)),
                          Field("iSelector", style="s"))),
    6: ("FEATURE_UNIT", (Field("bUnitID"), Field("bSourceID"),
                         Field("bmaControls", 4, "x", controls=_FEATURES_2, count="rest"),
                         Field("iFeature", style="s"))),
    10: (
        "CLOCK_SOURCE",
        (
            Field("bClockID"),
            Field("bmAttributes", meaning=lambda v: f"{_CLOCKS[v & 3]} clock {'(synced to SOF)' if v & 4 else ''}"),
            Field("bmControls", 1, "x", controls=("Clock Frequency", "Clock Validity")),
            Field("bAssocTerminal"), Field("iClockSource", style="s"),
        ),
    ),
    11: (
        "CLOCK_SELECTOR",
        (
            Field("bClockID"), Field("bNrInPins"), Field("baCSourceID", count="bNrInPins"),
            Field("bmControls", 1, "x", controls=("Clock Selector",)), Field("iClockSelector", style="s"),
        ),
    ),
    12: (
        "CLOCK_MULTIPLIER",
        (
            Field("bClockID"), Field("bCSourceID"),
            Field("bmControls", 1, "x", controls=("Clock Numerator", "Clock Denominator")),
            Field("iClockMultiplier", style="s"),
        ),
    ),
}  # fmt: skip
_STREAM_1 = (
    Field("bTerminalLink"), Field("bDelay", meaning=lambda value: "frames"),
    Field("wFormatTag", 2, "x", lambda value: _FORMATS.get(value, "undefined")),
)  # fmt: skip
_STREAM_2 = (
    Field("bTerminalLink"),
    Field("bmControls", 1, "x", controls=("Active Alternate Setting", "Valid Alternate Setting")),
    Field("bFormatType"),
    Field("bmFormats", 4, "x", bits=("PCM", "PCM8", "IEEE_FLOAT", "ALAW", "MULAW")), *_CLUSTER_2,
)  # fmt: skip
_TYPE_1 = (
    _FORMAT_TYPE, Field("bNrChannels"), Field("bSubframeSize"), Field("bBitResolution"),
    Field("bSamFreqType", meaning=lambda value: "Discrete" if value else "Continuous"),
)  # fmt: skip
_DISCRETE = (Field("tSamFreq[{:2d}]", 3, count="bSamFreqType"),)
_CONTINUOUS = (Field("tLowerSamFreq", 3), Field("tUpperSamFreq", 3))
_TYPE_1_OF_2 = (_FORMAT_TYPE, Field("bSubslotSize"), Field("bBitResolution"))
_JACK = (Field("bJackType", meaning=lambda value: _of(("Undefined", "Embedded", "External"), value)), Field("bJackID"))
_ENDPOINT_1 = (
    Field("bmAttributes", 1, "x", bits=("Sampling Frequency", "Pitch", *[""] * 5, "MaxPacketsOnly")), *_LOCK,
)  # fmt: skip
_ENDPOINT_2 = (
    Field("bmAttributes", 1, "x", bits=(*[""] * 7, "MaxPacketsOnly")),
    Field("bmControls", 1, "x", controls=("Pitch", "Data Overrun", "Data Underrun")), *_LOCK,
)  # fmt: skip
_TITLES = {CONTROL: "AudioControl", STREAMING: "AudioStreaming", MIDI: "MIDIStreaming"}


def audio_lines(indent: int, interface: InterfaceDescriptor, piece: bytes, strings: Mapping[int, str]) -> Iterator[str]:
    """One class-specific descriptor, of an interface or an endpoint; nothing for what is not known here."""
    kind = interface.bInterfaceSubClass
    if len(piece) < 3 or kind not in _TITLES or interface.bInterfaceProtocol == _UAC3:
        return
    found = _endpoint(interface, piece) if piece[1] == DT_CS_ENDPOINT else _table(interface, piece)
    if found is None:
        return
    name, fields = found
    what = "Interface" if piece[1] == DT_CS_INTERFACE else "Endpoint"
    yield f"{' ' * indent}{_TITLES[kind]} {what} Descriptor:"
    yield number(indent + 2, "bLength", piece[0])
    yield number(indent + 2, "bDescriptorType", piece[1])
    yield f"{number(indent + 2, 'bDescriptorSubtype', piece[2])} ({name})"
    yield from table_lines(indent + 2, fields, piece[3:], strings)


def _table(interface: InterfaceDescriptor, piece: bytes) -> Table | None:
    second = interface.bInterfaceProtocol == _UAC2
    kind, subtype = interface.bInterfaceSubClass, piece[2]
    if kind == CONTROL:
        return (_CONTROL_2 if second else _CONTROL_1).get(subtype)
    if kind == MIDI:
        return _midi(subtype, piece)
    if subtype == 1:
        return "AS_GENERAL", _STREAM_2 if second else _STREAM_1
    if subtype == 2 and piece[3:4] == b"\x01":
        rates = _DISCRETE if piece[7:8] > b"\0" else _CONTINUOUS
        return "FORMAT_TYPE", _TYPE_1_OF_2 if second else (*_TYPE_1, *rates)
    return None


def _midi(subtype: int, piece: bytes) -> Table | None:
    if subtype == 1:
        return "HEADER", _HEADER[:2]
    if subtype == 2:
        return "MIDI_IN_JACK", (*_JACK, Field("iJack", style="s"))
    if subtype == 3:
        pins = piece[5] if len(piece) > 5 else 0
        pairs = [Field(name.format(pin)) for pin in range(pins) for name in ("baSourceID({:2d})", "BaSourcePin({:2d})")]
        return "MIDI_OUT_JACK", (*_JACK, Field("bNrInputPins"), *pairs, Field("iJack", style="s"))
    return None


def _endpoint(interface: InterfaceDescriptor, piece: bytes) -> Table | None:
    if piece[2] != 1:
        return None
    if interface.bInterfaceSubClass == MIDI:
        return "GENERAL", (Field("bNumEmbMIDIJack"), Field("baAssocJackID({:2d})", count="bNumEmbMIDIJack"))
    return "EP_GENERAL", _ENDPOINT_2 if interface.bInterfaceProtocol == _UAC2 else _ENDPOINT_1
