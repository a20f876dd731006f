"""usbmon's text form, as /sys/kernel/debug/usb/usbmon/0u shows it.

Ref: Linux Documentation/admin-guide/usb/usbmon.rst, Raw text data format; drivers/usb/mon/mon_text.c
"""

from __future__ import annotations

from usbip_capture.records.usbmon import SUBMIT, UsbmonRecord
from usbip_capture.usb.urb import DIR_IN, TransferType

#: usbmon shows no more of the data, and no more isochronous packets.
DATA_MAX = 32
ISO_PACKETS_MAX = 5
#: The time stamp starts again after so many seconds.
_WRAP_SECONDS = 0x1000
_LETTERS = {
    TransferType.ISOCHRONOUS: "Z",
    TransferType.INTERRUPT: "I",
    TransferType.CONTROL: "C",
    TransferType.BULK: "B",
}


def text_line(event: UsbmonRecord, buffer_length: int = 0) -> str:
    """An event as one line, without its end.

    buffer_length: of the whole transfer buffer, which is shown of isochronous IN, whatever was received.
    """
    length = event.length
    if event.xfer_type == TransferType.ISOCHRONOUS and event.type != SUBMIT and event.epnum & DIR_IN:
        length = buffer_length
    stamp = event.ts_sec % _WRAP_SECONDS * 1_000_000 + event.ts_usec
    kind = TransferType(event.xfer_type)
    direction = "i" if event.epnum & DIR_IN else "o"
    pipe = f"{_LETTERS[kind]}{direction}:{event.busnum}:{event.devnum:03d}:{event.epnum & 15}"
    return f"{event.id:x} {stamp} {chr(event.type)} {pipe} {_state(event, kind)} {length}{_data(event, length)}"


def _state(event: UsbmonRecord, kind: TransferType) -> str:
    if event.flag_setup == 0:
        setup = event.setup
        value, index, length = (int.from_bytes(setup[at : at + 2], "little") for at in (2, 4, 6))
        return f"s {setup[0]:02x} {setup[1]:02x} {value:04x} {index:04x} {length:04x}"
    if kind == TransferType.INTERRUPT:
        return f"{event.status}:{event.interval}"
    if kind != TransferType.ISOCHRONOUS:
        return str(event.status)
    errors, count = event.iso_counts
    state = f"{event.status}:{event.interval}:{event.start_frame}"
    if event.type != SUBMIT:
        state += f":{errors}"
    packets = "".join(f" {p.status}:{p.offset}:{p.length}" for p in event.packets[:ISO_PACKETS_MAX])
    return f"{state} {count}{packets}"


def _data(event: UsbmonRecord, length: int) -> str:
    if length <= 0:
        return ""
    if event.flag_data:
        return f" {chr(event.flag_data)}"
    size = min(length, DATA_MAX)
    shown = event.data[:size]
    if event.xfer_type == TransferType.ISOCHRONOUS:
        shown = shown.ljust(size, b"\0")  # what nothing was received into
    return " ".join([" =", *(shown[at : at + 4].hex() for at in range(0, len(shown), 4))])
