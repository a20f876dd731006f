"""What a RET_SUBMIT means for the URB that it answers: its length, and its completion.

Ref: Linux Documentation/usb/usbip_protocol.rst, USBIP_RET_SUBMIT
"""

from __future__ import annotations

from usbip_capture.errors import RemoteProtocolError
from usbip_capture.usb.status import ECONNRESET, EXDEV
from usbip_capture.usb.urb import DIR_IN, Buffer, Completion, IsoPacket, TransferType, Urb
from usbip_capture.wire.structs import ISO_PACKET_SIZE, unpack_iso

_ISO = TransferType.ISOCHRONOUS


def reply_body_length(urb: Urb, actual_length: int, packets: int) -> tuple[int, int]:
    """Bytes of data and of packet descriptors that follow a RET_SUBMIT header.

    Raises RemoteProtocolError for lengths that the request does not allow.
    """
    inward = urb.endpoint & DIR_IN
    if actual_length < 0 or (inward and actual_length > urb.length):
        raise RemoteProtocolError(f"the server answered {urb!r} with {actual_length} bytes, more than were asked for")
    data = actual_length if inward else 0
    if urb.transfer_type != _ISO:
        return data, 0  # number_of_packets may hold anything here
    if packets == len(urb.packets):
        return data, packets * ISO_PACKET_SIZE
    if packets <= 0 and not data:
        return 0, 0  # refused as a whole, by a bridge that knows no isochronous transfers
    raise RemoteProtocolError(f"the server answered {urb!r} of {len(urb.packets)} packets with {packets}")


def unlinked(urb: Urb, status: int = -ECONNRESET) -> Completion:
    """The completion of a URB that brought nothing: unlinked, or its device lost."""
    packets = [IsoPacket(p.offset, p.length, 0, -EXDEV) for p in urb.packets]
    # The start frame is then still that of the request.
    return Completion(status, start_frame=urb.start_frame if packets else 0, packets=packets)


def completion_of(
    urb: Urb, status: int, actual: int, start_frame: int, errors: int, data: Buffer, iso: memoryview
) -> Completion:
    """What a reply comes to, from its fields, its data, and its packet descriptors. Raises RemoteProtocolError."""
    if urb.transfer_type != _ISO:
        return Completion(status, actual, data)
    packets = []
    for asked, got in zip(urb.packets, unpack_iso(iso), strict=False):
        if got.actual_length > asked.length:
            raise RemoteProtocolError(f"the server answered {urb!r} with a packet longer than asked for")
        # The request's offsets: some bridges send zeros.
        packets.append(IsoPacket(asked.offset, asked.length, got.actual_length, got.status))
    if urb.endpoint & DIR_IN and sum(p.actual_length for p in packets) != actual:
        raise RemoteProtocolError(f"the server answered {urb!r} with packets that do not add up to its length")
    return Completion(status, actual, data, start_frame, errors, packets)
