"""The USB devices that QEMU can plug into a guest, the controllers they hang on, and the ports these have.

Ref: QEMU User Documentation, USB emulation; docs/usb2.txt
"""

from __future__ import annotations

import bisect
import contextlib
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path

from tests.kernel.rig.host import RigError

#: Host controllers in the machine from the start: QEMU's driver, and the PCI slot to find the guest's bus by.
CONTROLLERS = {
    "xhci": ("qemu-xhci,p2=15,p3=4", 0x10),
    "ehci": ("usb-ehci", 0x11),  # high speed only
    "uhci": ("piix3-usb-uhci", 0x12),  # full and low speed only
}
CONTROLLER_ARGUMENTS = tuple(
    argument
    for name, (driver, slot) in CONTROLLERS.items()
    for argument in ("-device", f"{driver},id={name},addr={slot:#x}")
)

#: Kinds of devices; {id} is the name of the backend that belongs to the device.
DEVICES: dict[str, dict[str, str | bool]] = {
    "storage": {"driver": "usb-storage", "drive": "{id}"},  # bulk-only transport, up to SuperSpeed
    "serial": {"driver": "usb-serial", "chardev": "{id}"},  # FTDI FT232BM
    "kbd": {"driver": "usb-kbd"},
    "mouse": {"driver": "usb-mouse"},
    "tablet": {"driver": "usb-tablet"},
    "net": {"driver": "usb-net", "netdev": "{id}"},  # CDC Ethernet and RNDIS
    "audio": {"driver": "usb-audio", "audiodev": "snd"},  # UAC1 speaker: isochronous OUT
    "ccid": {"driver": "usb-ccid"},  # smart card reader
    "hub": {"driver": "usb-hub"},  # full speed; cannot be exported itself
    "power-hub": {"driver": "usb-hub", "port-power": True},  # that switches the power of each port
    "redir": {"driver": "usb-redir", "chardev": "{id}"},  # a device made by a program, as `fakedev` does
}

# Of the xHCI's ports the first four take SuperSpeed, the others only what USB 2 has.
_PORTS = {"xhci": range(5, 16), "xhci-ss": range(1, 5), "ehci": range(1, 7), "uhci": range(1, 3)}
_HUB_PORTS = range(1, 9)


@dataclass(slots=True)
class Ports:
    """The ports of one bus or hub that nothing is plugged into."""

    free: list[str]

    def take(self) -> str:
        """The lowest free one, so that a device plugged in again gets its old busid."""
        if not self.free:
            raise RigError("no free port on this bus")
        return self.free.pop(0)

    def release(self, port: str) -> None:
        bisect.insort(self.free, port, key=lambda p: int(p.rpartition(".")[2]))


def root_ports() -> dict[str, Ports]:
    return {bus: Ports([str(number) for number in numbers]) for bus, numbers in _PORTS.items()}


def hub_ports(port: str) -> Ports:
    return Ports([f"{port}.{number}" for number in _HUB_PORTS])


@dataclass(slots=True)
class Plugged:
    """A device in the guest: QEMU's name for it, and where it hangs."""

    name: str
    kind: str
    bus: str
    port: str
    ports: Ports  # that `port` is one of
    below: Ports | None = None  # a hub's own
    backend: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


class EchoServer:
    """The other end of a serial line: what is sent comes back. Listens on a Unix socket, takes one connection."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, name="echo", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Call it when the device is unplugged, which ends the connection."""
        with contextlib.suppress(OSError):  # it may never have been connected
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                while data := connection.recv(4096):
                    connection.sendall(data)
