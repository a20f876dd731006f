"""USB/IP messages found by their content: which TCP connection is a session, and where its next message begins.

Nothing marks the beginning of a message. A header is taken for one when every field of it has a value that peers
send, and when the message after it, as far as it is there, looks like one too.

Ref: Linux Documentation/usb/usbip_protocol.rst; drivers/usb/usbip/stub_rx.c, valid_request
"""

from __future__ import annotations

from collections.abc import Container

from usbip_capture.usb.urb import Buffer
from usbip_capture.wire.operations import MAX_DEVICES
from usbip_capture.wire.structs import (
    BUSID_SIZE,
    CMD_SUBMIT,
    CMD_UNLINK,
    DEVICE,
    DEVLIST_COUNT,
    HEADER_SIZE,
    INTERFACE,
    ISO_PACKET,
    ISO_PACKET_SIZE,
    MAX_ISO_PACKETS,
    NOT_ISO,
    OP_COMMON,
    OP_REP_DEVLIST,
    OP_REP_IMPORT,
    OP_REQ_DEVLIST,
    OP_REQ_IMPORT,
    RET_SUBMIT,
    USBIP_CMD_SUBMIT,
    USBIP_CMD_UNLINK,
    USBIP_RET_SUBMIT,
    USBIP_RET_UNLINK,
    VERSIONS,
)

#: Longer transfers are taken for nonsense. Linux takes no more than 4 MiB, others may.
MAX_OBSERVED = 16 << 20
#: Longest interval of a URB, in microframes. Ref: Linux drivers/usb/core/urb.c, usb_submit_urb
_MAX_INTERVAL = 1 << 15
_NOTHING = bytes(24)
_RET_PADDING = bytes(8)
_SUBMIT_START = USBIP_CMD_SUBMIT.to_bytes(4, "big")
_UNLINK_START = USBIP_CMD_UNLINK.to_bytes(4, "big")
_RET_SUBMIT_START = USBIP_RET_SUBMIT.to_bytes(4, "big")
_RET_UNLINK_START = USBIP_RET_UNLINK.to_bytes(4, "big")


def is_operation_request(data: Buffer) -> bool:
    """Whether a connection that begins with these bytes, 8 or more, is one of USB/IP."""
    if len(data) < OP_COMMON.size:
        return False
    version, code, _ = OP_COMMON.unpack_from(data)
    return version in VERSIONS and code in (OP_REQ_DEVLIST, OP_REQ_IMPORT)


def command_length(data: Buffer, at: int, devid: int | None) -> int:
    """Bytes of the CMD_SUBMIT or CMD_UNLINK at `at`, its packet descriptors left out; 0 if there is none.

    devid: that of the session, None if it is not known. At least HEADER_SIZE bytes must be there.
    """
    command, seqnum, device, direction, ep, flags, length, _, packets, interval, setup = CMD_SUBMIT.unpack_from(
        data, at
    )
    if not seqnum or not device or (devid is not None and device != devid):
        return 0
    if command == USBIP_CMD_UNLINK:
        target = CMD_UNLINK.unpack_from(data, at)[5]
        return HEADER_SIZE if target and bytes(data[at + 24 : at + HEADER_SIZE]) == _NOTHING else 0
    if command != USBIP_CMD_SUBMIT or direction > 1 or ep > 15 or not 0 <= length <= MAX_OBSERVED:
        return 0
    if not NOT_ISO <= packets <= MAX_ISO_PACKETS or not 0 <= interval <= _MAX_INTERVAL or flags >> 24:
        return 0
    if not ep and setup[6] | setup[7] << 8 != length:
        return 0
    return HEADER_SIZE + (0 if direction else length)


def find_command(data: Buffer, at: int, devid: int | None) -> int:
    """Where the first CMD_SUBMIT or CMD_UNLINK begins, from `at` on; -1 if there is none."""
    raw = bytes(data)
    while (at := _earliest(raw, at, _SUBMIT_START, _UNLINK_START)) >= 0:
        if len(raw) - at < HEADER_SIZE:
            return -1
        length = command_length(raw, at, devid)
        if length and _command_follows(raw, at + length, at, devid):
            return at
        at += 1
    return -1


def find_reply(data: Buffer, at: int, submits: Container[int], unlinks: Container[int]) -> int:
    """Where the first RET_SUBMIT or RET_UNLINK begins that answers one of these seqnums; -1 if there is none."""
    raw = bytes(data)
    while (at := _earliest(raw, at, _RET_SUBMIT_START, _RET_UNLINK_START)) >= 0:
        if len(raw) - at < HEADER_SIZE:
            return -1
        if _is_reply(raw, at, submits, unlinks):
            return at
        at += 1
    return -1


def is_first_packet(data: Buffer, at: int, length: int) -> bool:
    """Whether the first isochronous packet descriptor lies at `at`, of a buffer of `length` bytes.

    What can lie there instead is the next message, whose first four bytes are not 0.
    """
    offset, packet_length, _, _ = ISO_PACKET.unpack_from(data, at)
    return bool(offset == 0 and packet_length <= length)


def operation_request_length(data: Buffer, at: int, size: int) -> int:
    """Bytes of the OP request at `at`, as far as `size` bytes tell; 0 if it is none."""
    if size < OP_COMMON.size:
        return OP_COMMON.size
    version, code, _ = OP_COMMON.unpack_from(data, at)
    if version not in VERSIONS or code not in (OP_REQ_DEVLIST, OP_REQ_IMPORT):
        return 0
    return OP_COMMON.size + (BUSID_SIZE if code == OP_REQ_IMPORT else 0)


def operation_reply_length(data: Buffer, at: int, size: int) -> int:
    """Bytes of the OP reply at `at`, as far as `size` bytes tell; 0 if it is none."""
    need = OP_COMMON.size
    if size < need:
        return need
    version, code, status = OP_COMMON.unpack_from(data, at)
    if version not in VERSIONS or code not in (OP_REP_DEVLIST, OP_REP_IMPORT):
        return 0
    if status:
        return need
    if code == OP_REP_IMPORT:
        return need + DEVICE.size
    need += DEVLIST_COUNT.size
    if size < need:
        return need
    (count,) = DEVLIST_COUNT.unpack_from(data, at + OP_COMMON.size)
    if count > MAX_DEVICES:
        return 0
    for left in range(count, 0, -1):
        if size < need + DEVICE.size:
            return need + left * DEVICE.size  # so much at least: not a new attempt for each device
        need += DEVICE.size
        need += INTERFACE.size * data[at + need - 1]  # bNumInterfaces, the last field of a device
    return need


def imports_device(data: Buffer, at: int, length: int) -> bool:
    """Whether the OP reply at `at`, of `length` bytes, hands a device over."""
    _, code, status = OP_COMMON.unpack_from(data, at)
    return bool(length == OP_COMMON.size + DEVICE.size and code == OP_REP_IMPORT and not status)


def _earliest(raw: bytes, at: int, one: bytes, other: bytes) -> int:
    first = raw.find(one, at)
    second = raw.find(other, at, None if first < 0 else first + len(other))
    return second if first < 0 or 0 <= second < first else first


def _command_follows(raw: bytes, end: int, start: int, devid: int | None) -> bool:
    """Whether a message can begin at `end`, right behind the one at `start` or behind its packet descriptors."""
    packets = int.from_bytes(raw[start + 32 : start + 36], "big")
    places = [end, end + packets * ISO_PACKET_SIZE] if 0 < packets <= MAX_ISO_PACKETS else [end]
    return any(len(raw) - place < HEADER_SIZE or command_length(raw, place, devid) for place in places)


def _is_reply(raw: bytes, at: int, submits: Container[int], unlinks: Container[int]) -> bool:
    command, seqnum, _, direction, ep, status, actual, _, _, _ = RET_SUBMIT.unpack_from(raw, at)
    if direction > 1 or ep > 15 or not -4096 < status <= 0:
        return False
    if command == USBIP_RET_UNLINK:
        return seqnum in unlinks and raw[at + 24 : at + HEADER_SIZE] == _NOTHING
    padding = raw[at + 40 : at + HEADER_SIZE]
    return seqnum in submits and 0 <= actual <= MAX_OBSERVED and padding == _RET_PADDING
