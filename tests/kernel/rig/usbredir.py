"""The USB redirection protocol, as far as a device that a program plays needs it; QEMU is the other side.

Ref: usbredir, docs/usb-redirection-protocol.md, version 0.7
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple


class Kind(IntEnum):
    """Packet types."""

    HELLO = 0
    DEVICE_CONNECT = 1
    RESET = 3
    INTERFACE_INFO = 4
    EP_INFO = 5
    SET_CONFIGURATION = 6
    GET_CONFIGURATION = 7
    CONFIGURATION_STATUS = 8
    SET_ALT_SETTING = 9
    GET_ALT_SETTING = 10
    ALT_SETTING_STATUS = 11
    START_ISO_STREAM = 12
    STOP_ISO_STREAM = 13
    ISO_STREAM_STATUS = 14
    START_INTERRUPT_RECEIVING = 15
    STOP_INTERRUPT_RECEIVING = 16
    INTERRUPT_RECEIVING_STATUS = 17
    CANCEL_DATA_PACKET = 21
    CONTROL_PACKET = 100
    BULK_PACKET = 101
    ISO_PACKET = 102
    INTERRUPT_PACKET = 103


class Status(IntEnum):
    SUCCESS = 0
    CANCELLED = 1
    IOERROR = 3
    STALL = 4


FULL_SPEED, HIGH_SPEED = 1, 2

_CAP_CONNECT_DEVICE_VERSION, _CAP_EP_INFO_MAX_PACKET_SIZE, _CAP_64BITS_IDS, _CAP_32BITS_BULK_LENGTH = 1, 4, 5, 6
_CAPABILITIES = sum(
    1 << bit
    for bit in (_CAP_CONNECT_DEVICE_VERSION, _CAP_EP_INFO_MAX_PACKET_SIZE, _CAP_64BITS_IDS, _CAP_32BITS_BULK_LENGTH)
)
_HEADER_32, _HEADER_64 = struct.Struct("<III"), struct.Struct("<IIQ")
_CONTROL, _BULK = struct.Struct("<BBBBHHH"), struct.Struct("<BBHIH")
_ISO, _INTERRUPT = struct.Struct("<BBH"), struct.Struct("<BBH")
_NO_ENDPOINT, _SLOTS = 0xFF, 32


class Endpoint(NamedTuple):
    """An endpoint as EP_INFO has it; `transfer_type` is that of bmAttributes."""

    transfer_type: int
    interval: int
    interface: int
    wMaxPacketSize: int


class ControlPacket(NamedTuple):
    endpoint: int
    bRequest: int
    bmRequestType: int
    status: int
    wValue: int
    wIndex: int
    wLength: int


class Connection:
    """Packets to and from QEMU. Reading belongs to one thread, sending to any."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._header = _HEADER_32  # until both have sent hello
        self._sending = threading.Lock()
        self.send(Kind.HELLO, 0, struct.pack("<64sI", b"usbip-rig", _CAPABILITIES))

    def receive(self) -> tuple[int, int, bytes]:
        """Type, id and content of the next packet. Raises ConnectionError at the end."""
        kind, size, ident = self._header.unpack(self._read(self._header.size))
        if kind == Kind.HELLO:
            self._header = _HEADER_64
        return kind, ident, self._read(size)

    def send(self, kind: Kind, ident: int, content: bytes) -> None:
        with self._sending:
            self._sock.sendall(self._header.pack(kind, len(content), ident) + content)

    def send_connect(self, speed: int, device_descriptor: bytes) -> None:
        ids = struct.unpack_from("<HHH", device_descriptor, 8)
        self.send(Kind.DEVICE_CONNECT, 0, struct.pack("<BBBBHHH", speed, 0, 0, 0, *ids))

    def send_interfaces(self, interfaces: Sequence[bytes]) -> None:
        """interfaces: the descriptor of each, in its first alternate setting."""
        tables = [bytes(i[field] for i in interfaces).ljust(_SLOTS, b"\0") for field in (2, 5, 6, 7)]
        self.send(Kind.INTERFACE_INFO, 0, struct.pack("<I", len(interfaces)) + b"".join(tables))

    def send_endpoints(self, endpoints: Mapping[int, Endpoint]) -> None:
        """endpoints: those of the current alternate settings, by bEndpointAddress; endpoint 0 is added."""
        kinds = bytearray([_NO_ENDPOINT] * _SLOTS)
        intervals, interfaces, sizes = bytearray(_SLOTS), bytearray(_SLOTS), [0] * _SLOTS
        kinds[0] = kinds[16] = 0
        sizes[0] = sizes[16] = 64
        for address, endpoint in endpoints.items():
            slot = (address & 15) + (16 if address & 0x80 else 0)
            kinds[slot], intervals[slot], interfaces[slot], sizes[slot] = endpoint
        self.send(Kind.EP_INFO, 0, bytes(kinds + intervals + interfaces) + struct.pack("<32H", *sizes))

    def send_control(self, ident: int, packet: ControlPacket, data: bytes) -> None:
        self.send(Kind.CONTROL_PACKET, ident, _CONTROL.pack(*packet) + data)

    def send_bulk(self, ident: int, endpoint: int, status: Status, length: int = 0, data: bytes = b"") -> None:
        header = _BULK.pack(endpoint, status, length & 0xFFFF, 0, length >> 16)
        self.send(Kind.BULK_PACKET, ident, header + data)

    def send_iso(self, ident: int, endpoint: int, status: Status, data: bytes) -> None:
        self.send(Kind.ISO_PACKET, ident, _ISO.pack(endpoint, status, len(data)) + data)

    def send_interrupt(self, endpoint: int, data: bytes) -> None:
        self.send(Kind.INTERRUPT_PACKET, 0, _INTERRUPT.pack(endpoint, Status.SUCCESS, len(data)) + data)

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            chunk = self._sock.recv(size - len(data))
            if not chunk:
                raise ConnectionError("QEMU closed the connection")
            data += chunk
        return bytes(data)


def unpack_control(content: bytes) -> tuple[ControlPacket, bytes]:
    return ControlPacket(*_CONTROL.unpack_from(content)), content[_CONTROL.size :]


def unpack_bulk(content: bytes) -> tuple[int, int, bytes]:
    """Endpoint, length asked for, and the data of an OUT transfer."""
    endpoint, _, low, _, high = _BULK.unpack_from(content)
    return endpoint, low | high << 16, content[_BULK.size :]
