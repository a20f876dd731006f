"""A server with a device whose transfers end when the test likes, and clients of it over any transport."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence

from tests.fakes.scripted_server import read_exactly
from tests.fakes.tls_transport import tls_pair
from tests.fakes.veiled_transport import VeiledTransport
from usbip_capture.demo import device as demo
from usbip_capture.device import Device, Transfer
from usbip_capture.net.listening import Peer
from usbip_capture.net.transport import SocketTransport, Transport
from usbip_capture.server import Access, Server
from usbip_capture.servers.address import ServerAddress
from usbip_capture.usb.status import ECONNRESET, ESHUTDOWN
from usbip_capture.usb.urb import Completion, IsoPacket, TransferType
from usbip_capture.wire import structs

DEVID = demo.INFO.devid
REQ_IMPORT = structs.OP_COMMON.pack(0x111, structs.OP_REQ_IMPORT, 0) + structs.pack_busid("1-1")
BULK_IN = demo.BULK_IN & 15
#: What may carry a client; "tcp": by a listener of the server's own.
CARRIERS = ["tcp", "veiled", "tls"]
_TIMEOUT = 30.0


class HeldDevice(Device):
    """Control transfers as the demo's; others finish when the test wants it, on the test's thread."""

    def __init__(self) -> None:
        self._inner = demo.DemoDevice()
        self.info = self._inner.info
        self.held: list[Transfer] = []
        self.came = threading.Condition()
        self._finishing = threading.RLock()  # a transfer is finished once: by the test, or as the device is closed
        self.lost: Callable[[str], None] = lambda reason: None

    @property
    def alive(self) -> bool:
        return self._inner.alive

    def submit(self, transfer: Transfer) -> None:
        if transfer.urb.transfer_type == TransferType.CONTROL:
            self._inner.submit(transfer)
        elif not self.alive:
            transfer.finish(Completion(-ESHUTDOWN))
        else:
            with self.came:
                self.held.append(transfer)
                self.came.notify_all()

    def wait_for(self, count: int) -> None:
        with self.came:
            assert self.came.wait_for(lambda: len(self.held) >= count, 30)

    def complete(self, number: int, data: bytes = b"", packets: Sequence[IsoPacket] = ()) -> None:
        """Unless it has been cancelled."""
        self._finish(self.held[number], Completion(0, len(data), data, packets=packets))

    def cancel(self, transfer: Transfer) -> None:
        self._finish(transfer, Completion(-ECONNRESET))

    def _finish(self, transfer: Transfer, completion: Completion) -> None:
        with self._finishing:
            if transfer.completion is None:
                transfer.finish(completion)

    abandon = cancel

    def watch(self, on_lost: Callable[[str], None]) -> None:
        self.lost = on_lost

    def close(self) -> None:
        self._inner.close()
        for transfer in self.held:
            self.cancel(transfer)


class ClientSocket:
    """The client's end of a transport, used like a socket."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._timeout = _TIMEOUT

    def settimeout(self, timeout: float) -> None:
        self._timeout = timeout

    def sendall(self, data: bytes) -> None:
        self._transport.send([data])

    def recv(self, size: int) -> bytes:
        return self._transport.receive(size, self._timeout)

    def close(self) -> None:
        self._transport.close()


Client = socket.socket | ClientSocket


class Served:
    """A server with one HeldDevice, anew for each import; carrier: of those that import it.

    wrap: makes the server's transport of the one that it would have.
    """

    def __init__(
        self,
        access: Access | None = None,
        carrier: str = "tcp",
        wrap: Callable[[Transport], Transport] = lambda transport: transport,
    ) -> None:
        self.server = Server(access)
        self.devices: list[HeldDevice] = []
        self.server.add(demo.INFO, self._open)
        self.address = self.server.listen("127.0.0.1", 0)
        self.named = ServerAddress("127.0.0.1", self.address[1], 20.0)
        self._carrier = carrier
        self._wrap = wrap

    def _open(self) -> HeldDevice:
        self.devices.append(HeldDevice())
        return self.devices[-1]

    @contextlib.contextmanager
    def connected(self, buffer: int = 0) -> Iterator[Client]:
        """A client, by the carrier. buffer: of its socket, bytes."""
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(socket.socket())
            sock.settimeout(_TIMEOUT)
            if buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            if self._carrier == "tcp":
                sock.connect(self.address)
                yield sock
                return
            with socket.create_server(("127.0.0.1", 0)) as listener:
                sock.connect(listener.getsockname())
                theirs = listener.accept()[0]
            peer = Peer.of(theirs)
            ours, carried = _carried(self._carrier, sock, theirs)
            self.server.serve_transport(self._wrap(carried), peer)
            client = stack.enter_context(contextlib.closing(ClientSocket(ours)))
            yield client

    @contextlib.contextmanager
    def imported(self, buffer: int = 0) -> Iterator[tuple[Client, HeldDevice]]:
        """A client that has the device, configured."""
        with self.connected(buffer) as sock:
            sock.sendall(REQ_IMPORT)
            read_exactly(sock, 320)
            sock.sendall(structs.CMD_SUBMIT.pack(1, 1, DEVID, 0, 0, 0, 0, 0, 0, 0, bytes.fromhex("0009010000000000")))
            read_exactly(sock, 48)
            yield sock, self.devices[-1]

    def is_free(self) -> bool:
        return [info.busid for info in self.named.devices()] == ["1-1"]


def _carried(carrier: str, ours: socket.socket, theirs: socket.socket) -> tuple[Transport, Transport]:
    """Both ends: the client's, and the server's."""
    if carrier == "tls":
        return tls_pair(ours, theirs, ("the server", "the client"))
    made = VeiledTransport if carrier == "veiled" else SocketTransport
    return made(ours, "the server"), made(theirs, "the client")


def submit(seqnum: int, length: int) -> bytes:
    return structs.CMD_SUBMIT.pack(1, seqnum, DEVID, 1, BULK_IN, 0, length, 0, 0, 0, bytes(8))


def unlink(seqnum: int, target: int) -> bytes:
    return structs.CMD_UNLINK.pack(2, seqnum, DEVID, 0, 0, target)


def reply(sock: Client) -> tuple[int, int, int, bytes]:
    """Command, seqnum, status, data."""
    header = read_exactly(sock, 48)
    command, seqnum = struct.unpack_from(">II", header)
    status, length = struct.unpack_from(">iI", header, 20)
    return command, seqnum, status, read_exactly(sock, length) if command == structs.USBIP_RET_SUBMIT else b""
