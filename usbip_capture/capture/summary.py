"""What is in a capture, in lines for people."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from usbip_capture.capture.reader import CapturedInterface, CapturedRecord, read_capture, read_items
from usbip_capture.errors import CaptureError
from usbip_capture.records.usbmon import COMPLETE, SUBMIT, UsbmonRecord
from usbip_capture.usb.status import UNLINKED
from usbip_capture.usb.urb import DIR_IN, TransferType

__all__ = ["read_capture", "summarize"]

# bmRequestType, bRequest, low and high byte of wValue. Ref: USB 2.0, 9.4.3
_GET_DEVICE_DESCRIPTOR = bytes([0x80, 6, 0, 1])
_DEVICE_DESCRIPTOR = bytes([18, 1])


def summarize(path: str | os.PathLike[str]) -> list[str]:
    """Each interface with its counts and devices, each endpoint with its URBs, as lines of text.

    A capture that was cut off is told as far as it goes. Raises CaptureError if there is nothing to tell.
    """
    found: dict[int, _Interface] = {}
    end = ""
    try:
        for item in read_items(path):
            interface = item if isinstance(item, CapturedInterface) else item.interface
            totals = found.setdefault(id(interface), _Interface(interface))
            if isinstance(item, CapturedRecord):
                totals.add(item)
    except CaptureError as error:
        if not found:
            raise
        end = f"the rest is left out: {error}"
    if not found:
        raise CaptureError(f"the capture {os.fspath(path)} is empty")
    lines = [line for totals in found.values() for line in totals.lines()]
    return [*lines, end] if end else lines


@dataclass(slots=True)
class _Endpoint:
    """Totals of one endpoint. `errors` counts URBs that failed; one that was taken back did not."""

    urbs: int = 0
    bytes: int = 0
    errors: int = 0


@dataclass(slots=True)
class _Interface:
    interface: CapturedInterface
    packets: int = 0
    first_ns: int = 0
    last_ns: int = 0
    endpoints: dict[tuple[int, int], _Endpoint] = field(default_factory=dict)
    devices: dict[str, None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what is not said on a packet
    asked: set[int] = field(default_factory=set)    # ids of URBs that ask for the device descriptor

    def add(self, record: CapturedRecord) -> None:
        self.packets += 1
        self.first_ns = self.first_ns or record.timestamp_ns
        self.last_ns = max(self.last_ns, record.timestamp_ns)
        usb = record.usb
        if usb is None:
            self.notes += record.comments
            return
        endpoint = self.endpoints.setdefault((usb.epnum & 0x8F, usb.xfer_type), _Endpoint())
        if usb.type == SUBMIT:
            endpoint.urbs += 1
            if usb.xfer_type == TransferType.CONTROL and usb.setup.startswith(_GET_DEVICE_DESCRIPTOR):
                self.asked.add(usb.id)
            return
        if usb.type == COMPLETE:
            endpoint.bytes += usb.length
            self._look_for_device(usb)
        endpoint.errors += _failed(usb)

    def lines(self) -> list[str]:
        interface = self.interface
        dropped = "" if interface.dropped is None else f", {interface.dropped} dropped"
        seconds = (self.last_ns - self.first_ns) / 1e9
        lines = [f"{interface.name or 'interface'}: {interface.description or 'no description'}"]
        lines.append(f"  {_count(self.packets, 'packet')}{dropped}, {seconds:.3f} s")
        lines += [f"  device descriptor: {device}" for device in self.devices]
        for (address, xfer_type), endpoint in sorted(self.endpoints.items(), key=_by_number):
            kind = TransferType(xfer_type).name.lower() if xfer_type <= max(TransferType) else f"type {xfer_type}"
            direction = "IN" if address & DIR_IN else "OUT"
            counts = [_count(endpoint.urbs, "URB"), _count(endpoint.bytes, "byte"), _count(endpoint.errors, "error")]
            lines.append(f"  endpoint {address:#04x} {kind} {direction}: {', '.join(counts)}")
        return lines + [f"  {comment}" for comment in (*self.notes, *interface.comments)]

    def _look_for_device(self, usb: UsbmonRecord) -> None:
        if usb.id in self.asked:
            self.asked.discard(usb.id)
            if len(usb.data) >= 12 and usb.data.startswith(_DEVICE_DESCRIPTOR):
                idVendor, idProduct = (int.from_bytes(usb.data[at : at + 2], "little") for at in (8, 10))
                self.devices[f"{idVendor:04x}:{idProduct:04x}"] = None


def _failed(usb: UsbmonRecord) -> bool:
    if usb.status:
        return usb.status not in UNLINKED
    return any(packet.status for packet in usb.packets)


def _by_number(item: tuple[tuple[int, int], _Endpoint]) -> tuple[int, int, int]:
    (address, xfer_type), _ = item
    return address & 0x0F, -(address & DIR_IN), xfer_type


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
