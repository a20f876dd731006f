"""The demo device, reached in each of the ways that there are."""

from __future__ import annotations

import io
import socket
from contextlib import ExitStack

from tests.fakes.simulated_usb1 import SimulatedUsb1
from tests.fakes.tls_transport import tls_pair
from tests.fakes.veiled_transport import VeiledTransport, forward
from usbip_capture import PcapWriter, get_backend
from usbip_capture.demo import device as demo
from usbip_capture.demo.device import BULK_IN, BULK_OUT, DemoDevice, DemoServer
from usbip_capture.device import Device
from usbip_capture.devices.backend import BackendDevice
from usbip_capture.devices.libusb.binding import Libusb
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.devices.remote import RemoteDevice, import_device
from usbip_capture.net.transport import SocketTransport
from usbip_capture.server import Server
from usbip_capture.simulated.delayed import Delayed
from usbip_capture.tap import Tapped
from usbip_capture.usb import setup as requests
from usbip_capture.usb.status import (
    ECONNRESET,
)
from usbip_capture.usb.urb import Completion, TransferType, Urb

TIMEOUT = 30.0
PEER = "the test's server"
OVER_BACKEND = "over a PyUSB backend"
VEILED = "over another transport"
LIBUSB = ["libusb", "libusb, tapped", "libusb, re-exported"]
OVER_TLS = "over TLS"
WIRES = ["remote", "remote, tapped", "re-exported", VEILED, OVER_TLS]
KINDS = ["simulated", "delayed", "tapped", *WIRES, OVER_BACKEND, *LIBUSB]


def bulk_out(data: bytes) -> Urb:
    return Urb(TransferType.BULK, BULK_OUT, len(data), data)


def bulk_in(length: int, flags: int = 0) -> Urb:
    return Urb(TransferType.BULK, BULK_IN, length, flags=flags)


def control(setup: requests.Setup, data: bytes = b"") -> Urb:
    return Urb.control(setup.pack(), data)


def remote(server: Server) -> RemoteDevice:
    """The server's device, through a socket."""
    ours, theirs = socket.socketpair()
    server.serve_socket(theirs)
    return import_device(SocketTransport(ours, PEER), demo.BUSID, TIMEOUT)


def veiled(server: Server) -> RemoteDevice:
    """The server's device, through transports that are not sockets, and through the relay's forwarding."""
    ours, between = socket.socketpair()
    near, theirs = socket.socketpair()
    server.serve_transport(VeiledTransport(theirs, "the relay"))
    forward(VeiledTransport(between, "the client"), VeiledTransport(near, PEER))
    return import_device(VeiledTransport(ours, PEER), demo.BUSID, TIMEOUT)


def over_tls(server: Server) -> RemoteDevice:
    """The server's device, encrypted on the threads that send and receive."""
    client, served = tls_pair(*socket.socketpair(), (PEER, "the client"))
    server.serve_transport(served)
    return import_device(client, demo.BUSID, TIMEOUT)


class Foreign(Exception):
    """What a device or a backend of somebody else's may raise."""


class Opener:
    """Opens the demo device in one of the ways, and closes all that it took."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._stack = ExitStack()
        self.innermost: list[DemoDevice] = []

    def open(self) -> Device:
        server = DemoServer()
        server.add(demo.INFO, self._simulated)
        self._stack.callback(server.close)
        device: Device
        if self.kind in ("simulated", "tapped"):
            device = self._simulated()
        elif self.kind == "delayed":
            device = Delayed(self._simulated(), 0.001)
        elif self.kind == "re-exported":
            outer = Server()
            self._stack.callback(outer.close)
            outer.add(demo.INFO, lambda: remote(server))
            device = remote(outer)
        elif self.kind == VEILED:
            device = veiled(server)
        elif self.kind == OVER_TLS:
            device = over_tls(server)
        elif self.kind == OVER_BACKEND:
            backend = self._stack.enter_context(get_backend(*server.listen("127.0.0.1", 0)))
            device = BackendDevice(backend, next(backend.enumerate_devices()))
        elif "libusb" in self.kind:
            device = self._libusb()
        else:
            device = remote(server)
        if "tapped" in self.kind:
            writer = self._stack.enter_context(PcapWriter(io.BytesIO()))
            device = Tapped(device, writer.add_usb_interface(device.info, server="test"))
        self._stack.callback(device.close)
        return device

    def _libusb(self) -> Device:
        """The demo device behind libusb, which is simulated."""
        module = SimulatedUsb1()
        self._stack.callback(module.close)
        module.plug(self._simulated())
        libusb = Libusb(module)
        self._stack.callback(libusb.close)
        bus = LocalBus(libusb, "/there/is/no/sysfs")
        self._stack.callback(bus.close)
        local = bus.devices()[0]
        if "re-exported" not in self.kind:
            return local.open()
        server = Server()
        self._stack.callback(server.close)
        server.add(local.info, local.open)
        return remote(server)

    def _simulated(self) -> DemoDevice:
        self.innermost.append(DemoDevice())
        return self.innermost[-1]

    def close(self) -> None:
        self._stack.close()


def run(device: Device, urb: Urb) -> Completion:
    completion = device.run(urb, TIMEOUT)
    assert completion.status != -ECONNRESET, "timed out"
    return completion
