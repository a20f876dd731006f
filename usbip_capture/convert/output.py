"""What a conversion writes: pcapng as a live capture is, classic pcap, or usbmon's text.

The writers pack and write at once, on the caller's thread, with the time stamps of the recording.
"""

from __future__ import annotations

import platform
from abc import ABCMeta, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from usbip_capture import __version__
from usbip_capture.capture.sinks import Sink
from usbip_capture.records.classic import file_header, pack_record, packet_of
from usbip_capture.records.pcapng import LINKTYPE_USB_LINUX_MMAPPED, MAX_BLOCK, Section, pack_packet
from usbip_capture.records.text import text_line
from usbip_capture.records.unlinks import LINKTYPE_RAW, UnlinkPackets
from usbip_capture.records.usbmon import UsbmonPacker, UsbmonRecord
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.urb import Buffer, Completion, Urb

#: Bytes that are written at a time.
_WRITE_SIZE: Final = 262_144


@dataclass(slots=True)
class UsbInterface:
    """One device of the output. `number` is that of its pcapng interface.

    faults, retransmitted: what was wrong in its sessions, and bytes that came again.
    """

    number: int
    packer: UsbmonPacker
    first_ns: int
    last_ns: int = 0
    packets: int = 0
    unlinks: UnlinkInterface | None = None
    remarks: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    retransmitted: int = 0


@dataclass(slots=True)
class UnlinkInterface:
    """Its CMD_UNLINK and RET_UNLINK."""

    number: int
    packets: UnlinkPackets = field(default_factory=UnlinkPackets)
    count: int = 0
    last_ns: int = 0


class Output(metaclass=ABCMeta):
    """The packets of the output, in order. Comments are left out where the format has no place for them."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffers: list[Buffer] = []
        self._size = 0
        self.devices: list[UsbInterface] = []

    def device(self, info: DeviceInfo, description: str, timestamp_ns: int) -> UsbInterface:
        """A new device, which is imported at this moment."""
        interface = UsbInterface(len(self.devices), UsbmonPacker(0, MAX_BLOCK, info.busnum, info.devnum), timestamp_ns)
        self.devices.append(interface)
        return interface

    def again(self, interface: UsbInterface, info: DeviceInfo) -> None:
        """The device is imported once more, perhaps with other numbers."""
        interface.packer = UsbmonPacker(interface.number, MAX_BLOCK, info.busnum, info.devnum)

    def submitted(
        self, to: UsbInterface, timestamp_ns: int, urb_id: int, urb: Urb, data: Buffer, comments: Sequence[str]
    ) -> None:
        """A URB is on its way."""
        block: list[Buffer] = []
        to.packer.submit(block, timestamp_ns, urb_id, urb, data)
        self._packet(timestamp_ns, block, urb)

    def completed(
        self, to: UsbInterface, timestamp_ns: int, urb_id: int, urb: Urb, done: Completion, comments: Sequence[str]
    ) -> None:
        """A URB came back."""
        block: list[Buffer] = []
        to.packer.complete(block, timestamp_ns, urb_id, urb, done)
        self._packet(timestamp_ns, block, urb)

    def unlink(self, to: UsbInterface, timestamp_ns: int, message: bytes) -> None:
        """A CMD_UNLINK or RET_UNLINK of the device; only pcapng has a place for it."""
        return

    def finish(self, remarks: Sequence[str]) -> None:
        """Complete the output; `remarks` are comments on all of it."""
        self.flush()

    def flush(self) -> None:
        """Write what is packed."""
        buffers, self._buffers, self._size = self._buffers, [], 0
        if buffers:
            self._sink.write(buffers)

    def _packet(self, timestamp_ns: int, block: list[Buffer], urb: Urb) -> None:
        self._append(self._encode(timestamp_ns, block, urb))

    def _append(self, packed: bytes) -> None:
        self._buffers.append(packed)
        self._size += len(packed)
        if self._size >= _WRITE_SIZE:
            self.flush()

    @abstractmethod
    def _encode(self, timestamp_ns: int, block: list[Buffer], urb: Urb) -> bytes:
        """An enhanced packet block in this format."""


class ClassicOutput(Output):
    """Classic pcap. All devices are in one file; bus and device number distinguish them."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink)
        self._buffers.append(file_header(LINKTYPE_USB_LINUX_MMAPPED, MAX_BLOCK))

    def _encode(self, timestamp_ns: int, block: list[Buffer], urb: Urb) -> bytes:
        packet, original = packet_of(block)
        return pack_record(timestamp_ns, packet, original)


class TextOutput(Output):
    """usbmon's text form."""

    def _encode(self, timestamp_ns: int, block: list[Buffer], urb: Urb) -> bytes:
        packet, _ = packet_of(block)
        return text_line(UsbmonRecord.parse(packet), urb.length).encode() + b"\n"


class PcapngOutput(Output):
    """One interface for each device, `usbip0` and so on; with `record_unlinks` also `unlink0` and so on beside it."""

    def __init__(self, sink: Sink, *, record_unlinks: bool = False) -> None:
        super().__init__(sink)
        self._record_unlinks = record_unlinks
        self._section = Section(
            application=f"usbip-capture {__version__}",
            hardware=platform.machine(),
            os=f"{platform.system()} {platform.release()}",
        )
        self._buffers.append(self._section.header())

    def device(self, info: DeviceInfo, description: str, timestamp_ns: int) -> UsbInterface:
        name = str(len(self.devices))
        number, block = self._section.interface(
            name=f"usbip{name}", description=description, snaplen=MAX_BLOCK, speed=info.speed.bits_per_second
        )
        self._append(block)
        interface = UsbInterface(number, UsbmonPacker(number, MAX_BLOCK, info.busnum, info.devnum), timestamp_ns)
        self.devices.append(interface)
        if self._record_unlinks:
            number, block = self._section.interface(
                name=f"unlink{name}",
                description=f"CMD_UNLINK and RET_UNLINK of usbip{name}",
                snaplen=MAX_BLOCK,
                link_type=LINKTYPE_RAW,
            )
            self._append(block)
            interface.unlinks = UnlinkInterface(number)
        return interface

    def submitted(
        self, to: UsbInterface, timestamp_ns: int, urb_id: int, urb: Urb, data: Buffer, comments: Sequence[str]
    ) -> None:
        to.packets += 1
        to.last_ns = timestamp_ns
        self._size += to.packer.submit(self._buffers, timestamp_ns, urb_id, urb, data, comments)
        if self._size >= _WRITE_SIZE:
            self.flush()

    def completed(
        self, to: UsbInterface, timestamp_ns: int, urb_id: int, urb: Urb, done: Completion, comments: Sequence[str]
    ) -> None:
        to.packets += 1
        to.last_ns = timestamp_ns
        self._size += to.packer.complete(self._buffers, timestamp_ns, urb_id, urb, done, comments)
        if self._size >= _WRITE_SIZE:
            self.flush()

    def unlink(self, to: UsbInterface, timestamp_ns: int, message: bytes) -> None:
        unlinks = to.unlinks
        if unlinks is None:
            return
        packet = unlinks.packets.packet(message)
        unlinks.count += 1
        unlinks.last_ns = timestamp_ns
        self._append(pack_packet(unlinks.number, timestamp_ns, packet))

    def finish(self, remarks: Sequence[str]) -> None:
        if not self.devices:  # without an interface the file is not valid
            self._buffers.append(self._section.interface(name="usbip0", description="", snaplen=MAX_BLOCK)[1])
        for interface in self.devices:
            comments = [*interface.remarks, *remarks]
            self._statistics(interface.number, interface.packets, interface.first_ns, interface.last_ns, comments)
            if interface.unlinks is not None:
                unlinks = interface.unlinks
                self._statistics(unlinks.number, unlinks.count, interface.first_ns, unlinks.last_ns, [])
        self.flush()

    def _statistics(self, number: int, packets: int, first_ns: int, last_ns: int, comments: Sequence[str]) -> None:
        self._append(
            self._section.statistics(
                number, start_ns=first_ns, end_ns=last_ns or first_ns, received=packets, dropped=0, comments=comments
            )
        )

    def _encode(self, timestamp_ns: int, block: list[Buffer], urb: Urb) -> bytes:
        return b"".join(block)
