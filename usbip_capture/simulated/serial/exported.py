"""Simulated adapters as a server exports them: who they are, and how an import opens them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from usbip_capture.device import Device
from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.delayed import Delayed
from usbip_capture.simulated.serial.adapter import SimulatedAdapter
from usbip_capture.simulated.serial.line import Peer
from usbip_capture.usb.info import DeviceInfo, Speed

Open = Callable[[DeviceInfo, Descriptors, Sequence[Peer]], SimulatedAdapter]


@dataclass(slots=True)
class Adapter:
    """`server.add(adapter.info, adapter.open)`. `device` is the one that was opened last.

    latency: seconds that each transfer takes longer, on top of the way to the server.
    """

    info: DeviceInfo
    descriptors: Descriptors
    kind: Open
    peers: Sequence[Peer]
    latency: float = 0.0
    device: SimulatedAdapter | None = field(default=None, init=False)

    def open(self) -> Device:
        """The adapter, as after a reset."""
        self.device = self.kind(self.info, self.descriptors, self.peers)
        return Delayed(self.device, self.latency) if self.latency else self.device


def describe(
    vendor: int,
    product: int,
    release: int,
    interfaces: str,
    names: Sequence[str],
    device_class: tuple[int, int, int] = (0, 0, 0),
) -> Descriptors:
    """Descriptors of a device with one configuration. interfaces: hex of all that follows its header.

    names: manufacturer, product and serial number; an empty one is one that the device does not have.
    """
    body = bytes.fromhex(interfaces)
    count = len({body[at + 2] for at in _starts(body) if body[at + 1] == 4})
    device = (
        bytes.fromhex("12 01 0002") + bytes([*device_class, 64])
        + b"".join(value.to_bytes(2, "little") for value in (vendor, product, release))
        + bytes([*(index if name else 0 for index, name in enumerate(names, 1)), 1])
    )  # fmt: skip
    configuration = b"\x09\x02" + (9 + len(body)).to_bytes(2, "little") + bytes([count, 1, 0, 0x80, 50]) + body
    return Descriptors(device, [configuration], list(names))


def vendor_interface(number: int, packet: int) -> str:
    """A vendor specific interface with its bulk endpoints, as hex."""
    size = packet.to_bytes(2, "little").hex()
    into, out = 0x81 + 2 * number, 0x02 + 2 * number
    return f"09 04 {number:02x} 00 02 ff ff ff 00 07 05 {into:02x} 02 {size} 00 07 05 {out:02x} 02 {size} 00"


def exported(
    kind: Open, descriptors: Descriptors, peers: Sequence[Peer], busid: str, latency: float, speed: Speed = Speed.FULL
) -> Adapter:
    """An adapter under a busid, as `Adapter` describes it."""
    bus, _, port = busid.partition("-")
    number = int(bus) if bus.isdigit() else 1
    last = port.rpartition(".")[2]
    return Adapter(
        descriptors.info(busid, number, int(last) + 1 if last.isdigit() else 2, speed),
        descriptors, kind, peers, latency,
    )  # fmt: skip


def _starts(body: bytes) -> list[int]:
    starts, at = [], 0
    while at < len(body):
        starts.append(at)
        at += body[at]
    return starts
