"""USB/IP messages found by their content: which TCP connection is a session, and where its next message begins.

Nothing marks the beginning of a message. A header is taken for one when every field that means something has a value
that peers send, and when the message after it, as far as it is there, looks like one too. Fields that mean nothing for
this URB hold anything with some peers, so they only make up for what else is missing: number_of_packets, interval and
start_frame where it is not isochronous, the flags, devid in what some clients send (0), the padding of replies.

Ref: Linux Documentation/usb/usbip_protocol.rst; drivers/usb/usbip/stub_rx.c, valid_request
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping

from usbip_capture.errors import RemoteProtocolError
from usbip_capture.usb.urb import Buffer, Urb
from usbip_capture.wire.replies import reply_body_length
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
    USBIP_RET_UNLINK,
    VERSIONS,
)

#: Longer transfers are taken for nonsense. Linux takes no more than 4 MiB, others may.
MAX_OBSERVED = 16 << 20
#: Longest interval of a URB, in microframes. Ref: Linux drivers/usb/core/urb.c, usb_submit_urb
_MAX_INTERVAL = 1 << 15
_NOTHING = bytes(24)
_RET_PADDING = bytes(8)
_NO_SETUP = bytes(8)
#: Status values are errno numbers: negative, but positive ones of some servers are not nonsense.
_MAX_ERRNO = 4096
# Both kinds at once, so that one that is rare does not have all of the rest looked through again for each other one.
_COMMAND_START = re.compile(rb"\0\0\0[\1\2]")
_REPLY_START = re.compile(rb"\0\0\0[\3\4]")
#: Where a header may begin, there are so many bytes less than there are bytes.
_START_SIZE = 4


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
    if not seqnum or (device and devid is not None and device != devid):
        return 0
    if command == USBIP_CMD_UNLINK:
        target = CMD_UNLINK.unpack_from(data, at)[5]
        return HEADER_SIZE if target and (device or devid == 0) and data[at + 24 : at + HEADER_SIZE] == _NOTHING else 0
    if command != USBIP_CMD_SUBMIT or direction > 1 or ep > 15 or not 0 <= length <= MAX_OBSERVED:
        return 0
    if ep:
        # One of the two has to be as it is meant: a client that leaves both to chance is not known.
        if setup != _NO_SETUP and not _usual(packets, interval, flags):
            return 0
    elif setup[6] | setup[7] << 8 != length or not (device or any(setup)):
        return 0
    return HEADER_SIZE + (0 if direction else length)


def _usual(packets: int, interval: int, flags: int) -> bool:
    """Whether fields that mean something in some URBs only are as they would have to be there."""
    return NOT_ISO <= packets <= MAX_ISO_PACKETS and 0 <= interval <= _MAX_INTERVAL and not flags >> 24


def find_command(data: Buffer, at: int, devid: int | None) -> int:
    """Where the first CMD_SUBMIT or CMD_UNLINK begins, from `at` on; -1 if there is none."""
    end = len(data) - HEADER_SIZE + _START_SIZE
    while (start := _COMMAND_START.search(data, at, end)) is not None:
        at = start.start()
        length = command_length(data, at, devid)
        if length and _command_follows(data, at + length, at, devid):
            return at
        at += 1
    return -1


def find_reply(data: Buffer, at: int, submits: Mapping[int, Urb], unlinks: Container[int]) -> int:
    """Where the first RET_SUBMIT or RET_UNLINK begins that answers one of these seqnums; -1 if there is none."""
    end = len(data) - HEADER_SIZE + _START_SIZE
    while (start := _REPLY_START.search(data, at, end)) is not None:
        at = start.start()
        if _is_reply(data, at, submits, unlinks):
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
    """Bytes of the OP request at `at`, as far as `size` bytes show it; 0 if it is not one."""
    if size < OP_COMMON.size:
        return OP_COMMON.size
    version, code, _ = OP_COMMON.unpack_from(data, at)
    if version not in VERSIONS or code not in (OP_REQ_DEVLIST, OP_REQ_IMPORT):
        return 0
    return OP_COMMON.size + (BUSID_SIZE if code == OP_REQ_IMPORT else 0)


def operation_reply_length(data: Buffer, at: int, size: int) -> int:
    """Bytes of the OP reply at `at`, as far as `size` bytes show it; 0 if it is not one.

    Of a list of devices only what comes before the first one: see `listed_devices`.
    """
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
    return need + DEVLIST_COUNT.size


def listed_devices(data: Buffer, at: int, length: int) -> int:
    """How many devices follow the OP reply at `at`, of `length` bytes; more than MAX_DEVICES is nonsense."""
    if length != OP_COMMON.size + DEVLIST_COUNT.size:
        return 0
    return int(DEVLIST_COUNT.unpack_from(data, at + OP_COMMON.size)[0])


def listed_device_length(data: Buffer, at: int, size: int) -> int:
    """Bytes of the device at `at` in a list of devices, as far as `size` bytes show it."""
    if size < DEVICE.size:
        return DEVICE.size
    return DEVICE.size + INTERFACE.size * data[at + DEVICE.size - 1]  # bNumInterfaces, the last field of a device


def imports_device(data: Buffer, at: int, length: int) -> bool:
    """Whether the OP reply at `at`, of `length` bytes, exports a device."""
    _, code, status = OP_COMMON.unpack_from(data, at)
    return bool(length == OP_COMMON.size + DEVICE.size and code == OP_REP_IMPORT and not status)


def _command_follows(data: Buffer, end: int, start: int, devid: int | None) -> bool:
    """Whether a message can begin at `end`, right behind the one at `start` or behind its packet descriptors."""
    if devid is None:
        devid = int.from_bytes(data[start + 8 : start + 12], "big")
    packets = int.from_bytes(data[start + 32 : start + 36], "big")
    places = [end, end + packets * ISO_PACKET_SIZE] if 0 < packets <= MAX_ISO_PACKETS else [end]
    return any(len(data) - place < HEADER_SIZE or command_length(data, place, devid) for place in places)


def _is_reply(data: Buffer, at: int, submits: Mapping[int, Urb], unlinks: Container[int]) -> bool:
    command, seqnum, _, direction, ep, status, actual, _, packets, _ = RET_SUBMIT.unpack_from(data, at)
    if direction > 1 or ep > 15 or not -_MAX_ERRNO < status < _MAX_ERRNO:
        return False
    if command == USBIP_RET_UNLINK:
        if seqnum not in unlinks:
            return False
        usual, length = data[at + 24 : at + HEADER_SIZE] == _NOTHING, HEADER_SIZE
    else:
        urb = submits.get(seqnum)
        if urb is None:
            return False
        try:
            length = HEADER_SIZE + sum(reply_body_length(urb, actual, packets))
        except RemoteProtocolError:
            return False
        usual = data[at + 40 : at + HEADER_SIZE] == _RET_PADDING
    return usual or _reply_follows(data, at + length)


def _reply_follows(data: Buffer, at: int) -> bool:
    """Whether a reply can begin at `at`, as far as that is there."""
    return len(data) - at < HEADER_SIZE or _REPLY_START.match(data, at) is not None
