"""SETUP packets, standard requests, and the few requests that change what the host must know.

Ref: USB 2.0 specification, 9.3 (USB Device Requests) and 9.4 (Standard Device Requests)
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple, TypeAlias

_SETUP = Struct("<BBHHH")

# bRequest, table 9-4
GET_STATUS = 0
CLEAR_FEATURE = 1
SET_FEATURE = 3
SET_ADDRESS = 5
GET_DESCRIPTOR = 6
SET_DESCRIPTOR = 7
GET_CONFIGURATION = 8
SET_CONFIGURATION = 9
GET_INTERFACE = 10
SET_INTERFACE = 11
SYNCH_FRAME = 12

# Feature selectors, table 9-6, and of a hub, table 11-17
ENDPOINT_HALT = 0
DEVICE_REMOTE_WAKEUP = 1
PORT_RESET = 4

# bDescriptorType, table 9-5 and the class specifications
DT_DEVICE = 1
DT_CONFIGURATION = 2
DT_STRING = 3
DT_INTERFACE = 4
DT_ENDPOINT = 5
DT_DEVICE_QUALIFIER = 6
DT_OTHER_SPEED_CONFIGURATION = 7
DT_INTERFACE_ASSOCIATION = 11
DT_BOS = 15
DT_DEVICE_CAPABILITY = 16
DT_HID = 0x21
DT_REPORT = 0x22
DT_CS_INTERFACE = 0x24
DT_CS_ENDPOINT = 0x25
DT_SS_ENDPOINT_COMPANION = 0x30

# bmRequestType, low bits
RECIPIENT_DEVICE = 0
RECIPIENT_INTERFACE = 1
RECIPIENT_ENDPOINT = 2
_PORT = 0x23  # class request to a port of a hub
#: Inward, or the vendor's: `classify` finds nothing in a request with any of these bits.
PLAIN_DATA = 0xC0


class Setup(NamedTuple):
    """The 8 bytes of a control transfer's setup stage, little-endian."""

    bmRequestType: int
    bRequest: int
    wValue: int
    wIndex: int
    wLength: int

    def pack(self) -> bytes:
        """As on the bus."""
        return _SETUP.pack(*self)

    @classmethod
    def unpack(cls, raw: bytes) -> Setup:
        """Inverse of `pack`; `raw` is 8 bytes."""
        return cls(*_SETUP.unpack(raw))


class SetConfiguration(NamedTuple):
    """SET_CONFIGURATION: `value` is bConfigurationValue, 0 for none."""

    value: int


class SetInterface(NamedTuple):
    """SET_INTERFACE: an alternate setting of an interface."""

    interface: int
    alternate: int


class ClearHalt(NamedTuple):
    """CLEAR_FEATURE(ENDPOINT_HALT): `endpoint` is bEndpointAddress."""

    endpoint: int


class PortReset(NamedTuple):
    """SET_FEATURE(PORT_RESET), as sent to a hub."""

    port: int


HostAction: TypeAlias = "SetConfiguration | SetInterface | ClearHalt | PortReset"


def classify(setup: bytes) -> HostAction | None:
    """What a request means to the host controller's side; None for plain data."""
    kind = setup[0]
    if kind & PLAIN_DATA or kind > _PORT or not _ACTION_CODES >> setup[1] & 1:
        return None
    request = (kind, setup[1])
    value = setup[2] | setup[3] << 8
    index = setup[4] | setup[5] << 8
    if request == (RECIPIENT_DEVICE, SET_CONFIGURATION):
        return SetConfiguration(value & 0xFF)
    if request == (RECIPIENT_INTERFACE, SET_INTERFACE):
        return SetInterface(index, value)
    if request == (RECIPIENT_ENDPOINT, CLEAR_FEATURE) and value == ENDPOINT_HALT:
        return ClearHalt(index & 0x8F)
    if request == (_PORT, SET_FEATURE) and value == PORT_RESET:
        return PortReset(index & 0xFF)
    return None


_ACTION_CODES = 1 << SET_CONFIGURATION | 1 << SET_INTERFACE | 1 << CLEAR_FEATURE | 1 << SET_FEATURE


def port_reset(port: int) -> Setup:
    """SET_FEATURE(PORT_RESET), which a device of this machine takes for a reset of its own port."""
    return Setup(_PORT, SET_FEATURE, PORT_RESET, port, 0)


def get_descriptor(kind: int, index: int, w_index: int, length: int, recipient: int = RECIPIENT_DEVICE) -> Setup:
    """GET_DESCRIPTOR; `w_index` is a language for strings, an interface for class descriptors, else 0."""
    return Setup(0x80 | recipient, GET_DESCRIPTOR, kind << 8 | index, w_index, length)


def get_configuration() -> Setup:
    """GET_CONFIGURATION, one byte."""
    return Setup(0x80, GET_CONFIGURATION, 0, 0, 1)


def set_configuration(value: int) -> Setup:
    """SET_CONFIGURATION."""
    return Setup(0, SET_CONFIGURATION, value, 0, 0)


def set_interface(interface: int, alternate: int) -> Setup:
    """SET_INTERFACE."""
    return Setup(RECIPIENT_INTERFACE, SET_INTERFACE, alternate, interface, 0)


def clear_halt(endpoint: int) -> Setup:
    """CLEAR_FEATURE(ENDPOINT_HALT); `endpoint` is bEndpointAddress."""
    return Setup(RECIPIENT_ENDPOINT, CLEAR_FEATURE, ENDPOINT_HALT, endpoint, 0)
