"""Layouts of all USB/IP messages, in the field names and order of the kernel's document.

Everything on the wire is big-endian but the SETUP packet, which is carried as USB has it (little-endian).

Ref: Linux Documentation/usb/usbip_protocol.rst (USB/IP 1.1.1); tools/usb/usbip/libsrc/usbip_common.h
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from struct import Struct
from typing import Final

from usbip_capture.errors import LocalProtocolError, RemoteProtocolError
from usbip_capture.usb.info import DeviceInfo, InterfaceInfo, Speed
from usbip_capture.usb.urb import Buffer, IsoPacket, Urb

VERSION: Final = 0x0111
#: Versions that are seen in replies; the layouts are the same.
VERSIONS = frozenset({0x0100, 0x0106, 0x0111})

OP_REQ_DEVLIST: Final = 0x8005
OP_REP_DEVLIST: Final = 0x0005
OP_REQ_IMPORT: Final = 0x8003
OP_REP_IMPORT: Final = 0x0003

USBIP_CMD_SUBMIT: Final = 1
USBIP_CMD_UNLINK: Final = 2
USBIP_RET_SUBMIT: Final = 3
USBIP_RET_UNLINK: Final = 4

HEADER_SIZE: Final = 48
ISO_PACKET_SIZE: Final = 16
BUSID_SIZE: Final = 32
#: number_of_packets of URBs that are not isochronous, as some peers send it.
NOT_ISO: Final = -1
#: More is refused: the kernel's stub takes no more either.
MAX_ISO_PACKETS: Final = 1024
#: The kernel's usbip-host dies of more than this.
MAX_TRANSFER: Final = 4 << 20

OP_COMMON: Final = Struct(">HHI")  # version, code, status
DEVICE: Final = Struct(">256s32sIIIHHHBBBBBB")
INTERFACE: Final = Struct(">BBBx")
IMPORT_BUSID: Final = Struct(">32s")
DEVLIST_COUNT: Final = Struct(">I")

BASIC: Final = Struct(">III")  # command, seqnum, devid, as in each of these:
# command, seqnum, devid, direction, ep | transfer_flags, transfer_buffer_length, start_frame, number_of_packets,
# interval, setup
CMD_SUBMIT: Final = Struct(">5IIiiii8s")
# ... | unlink_seqnum
CMD_UNLINK: Final = Struct(">5II24x")
# ... | status, actual_length, start_frame, number_of_packets, error_count
RET_SUBMIT: Final = Struct(">5Iiiiii8x")
# command, seqnum, status and actual_length of a RET_SUBMIT: all that matters of nearly each
REPLY: Final = Struct(">II12xii20x")
# ... | status
RET_UNLINK: Final = Struct(">5Ii24x")
# offset, length, actual_length, status
ISO_PACKET: Final = Struct(">IIIi")


class OpStatus(IntEnum):
    """Status of an OP reply. Ref: usbip_common.h, ST_OK ..."""

    OK = 0
    NA = 1
    DEV_BUSY = 2
    DEV_ERR = 3
    NODEV = 4
    ERROR = 5


_OP_STATUS_TEXT = {
    OpStatus.NA: "the server refused it",
    OpStatus.DEV_BUSY: "it is in use by another client",
    OpStatus.DEV_ERR: "the server reports that the device is in an error state",
    OpStatus.NODEV: "the server has no such device",
    OpStatus.ERROR: "the server reports an unexpected response from the device",
}


def op_status_text(status: int) -> str:
    """The reason of a refusal, as the middle of a sentence; unknown numbers stay numbers."""
    try:
        return _OP_STATUS_TEXT[OpStatus(status)]
    except (ValueError, KeyError):
        return f"the server answered with status {status}"


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def pack_device(info: DeviceInfo) -> bytes:
    """The 312 bytes of a device in OP_REP_DEVLIST and OP_REP_IMPORT."""
    return DEVICE.pack(
        info.path.encode()[:255],
        info.busid.encode()[: BUSID_SIZE - 1],
        info.busnum,
        info.devnum,
        info.speed,
        info.idVendor,
        info.idProduct,
        info.bcdDevice,
        info.bDeviceClass,
        info.bDeviceSubClass,
        info.bDeviceProtocol,
        info.bConfigurationValue,
        info.bNumConfigurations,
        info.bNumInterfaces,
    )


def unpack_device(raw: Buffer, interfaces: Sequence[InterfaceInfo] = ()) -> DeviceInfo:
    """Inverse of `pack_device`. An unknown speed is UNKNOWN."""
    path, busid, busnum, devnum, speed, vendor, product, bcd, cls, sub, proto, value, configs, ifaces = DEVICE.unpack(
        raw
    )
    return DeviceInfo(
        busid=_text(busid),
        busnum=busnum,
        devnum=devnum,
        speed=Speed(speed) if speed <= Speed.SUPER_PLUS else Speed.UNKNOWN,
        idVendor=vendor,
        idProduct=product,
        bcdDevice=bcd,
        bDeviceClass=cls,
        bDeviceSubClass=sub,
        bDeviceProtocol=proto,
        bConfigurationValue=value,
        bNumConfigurations=configs,
        bNumInterfaces=ifaces,
        path=_text(path),
        interfaces=tuple(interfaces),
    )


def pack_busid(busid: str) -> bytes:
    """The 32 bytes of a busid in OP_REQ_IMPORT. Raises LocalProtocolError if it does not fit."""
    raw = busid.encode()
    if not raw or len(raw) >= BUSID_SIZE:
        raise LocalProtocolError(f"{busid!r} is not a busid: 1 to {BUSID_SIZE - 1} bytes, such as 1-1.2")
    return IMPORT_BUSID.pack(raw)


def pack_submit(urb: Urb, seqnum: int, devid: int) -> bytes:
    """The 48-byte header of CMD_SUBMIT. Data of OUT and `pack_iso` follow it.

    number_of_packets is 0 when not isochronous: Wireshark's own dissector and pyusbip break on -1.
    """
    endpoint = urb.endpoint
    return CMD_SUBMIT.pack(
        USBIP_CMD_SUBMIT,
        seqnum,
        devid,
        endpoint >> 7,
        endpoint & 0x0F,
        urb.flags,
        urb.length,
        urb.start_frame,
        len(urb.packets),
        urb.interval,
        urb.setup,
    )


def pack_iso(packets: Iterable[IsoPacket]) -> bytes:
    """Isochronous packet descriptors, 16 bytes each."""
    return b"".join(ISO_PACKET.pack(*p) for p in packets)


def unpack_iso(raw: Buffer) -> list[IsoPacket]:
    """Inverse of `pack_iso`."""
    return [IsoPacket(*fields) for fields in ISO_PACKET.iter_unpack(raw)]


def check_version(version: int) -> None:
    """Raises RemoteProtocolError for a version whose layouts we do not know."""
    if version not in VERSIONS:
        raise RemoteProtocolError(
            f"the other side speaks version {version >> 8:x}.{version >> 4 & 15:x}.{version & 15:x} of USB/IP, "
            "this program 1.1.1"
        )
