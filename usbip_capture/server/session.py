"""One client's use of one imported device."""

from __future__ import annotations

import socket
import threading

from usbip_capture.device import Device, Transfer
from usbip_capture.errors import RemoteProtocolError
from usbip_capture.net.transport import send
from usbip_capture.usb.descriptors import DeviceDescriptor, parse_configuration
from usbip_capture.usb.endpoints import EndpointMap
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.setup import DT_CONFIGURATION, DT_DEVICE, get_descriptor
from usbip_capture.usb.urb import Completion, TransferType, Urb
from usbip_capture.wire.server import Event, ServerConnection, UnlinkRequested, UrbSubmitted

#: Seconds that a device has to tell its descriptors.
_DESCRIPTOR_TIMEOUT = 5.0


class Session:
    """Runs the client's URBs on `device`. `receive` is called by the connection's thread only."""

    def __init__(self, sock: socket.socket, conn: ServerConnection, device: Device) -> None:
        self._sock = sock
        self._conn = conn
        self._device = device
        self.info = device.info
        self._endpoints = EndpointMap(None, device.info.speed)
        self._transfers: dict[int, Transfer] = {}
        # Held while a reply is made and sent, so that replies leave in the order in which URBs finish.
        self._replying = threading.Lock()

    def start(self, info: DeviceInfo) -> None:
        """Hand the device over."""
        self._learn()
        self._device.watch(lambda reason: self.end())
        self._sock.sendall(self._conn.import_reply(info, self._type_of))

    def receive(self, data: bytes) -> None:
        """What the client has sent: run or unlink its URBs. Raises RemoteProtocolError, OSError."""
        for event in self._conn.receive_data(data):
            self._handle(event)

    def _handle(self, event: Event) -> None:
        if isinstance(event, UrbSubmitted):
            seqnum, urb = event.seqnum, event.urb
            transfer = Transfer(urb, lambda completion: self._completed(seqnum, urb, completion))
            self._transfers[seqnum] = transfer
            self._device.submit(transfer)
        elif isinstance(event, UnlinkRequested):
            with self._replying:
                transfer_there = self._conn.is_pending(event.target)
                if not transfer_there:
                    self._sock.sendall(self._conn.unlinked_nothing(event.target))
            pending = self._transfers.get(event.target)
            if transfer_there and pending is not None:
                self._device.cancel(pending)

    def end(self) -> None:
        """Cut the client off; its connection's thread does the rest."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        """Close the device; what is pending is not answered any more."""
        self._device.close()
        self._transfers.clear()

    def _completed(self, seqnum: int, urb: Urb, completion: Completion) -> None:
        if urb.transfer_type == TransferType.CONTROL and not completion.status:
            self._endpoints.follow(urb.setup)
        self._transfers.pop(seqnum, None)
        with self._replying:
            parts = self._conn.complete(seqnum, completion)
            try:
                send(self._sock, parts)
            except OSError:  # gone, or it reads nothing: a message may be cut, so that no other one can follow
                self.end()

    def _type_of(self, address: int) -> TransferType | None:
        endpoint = self._endpoints.find(address)
        return endpoint.transfer_type if endpoint is not None else None

    def _learn(self) -> None:
        """The device's configurations: the wire does not say which endpoints are isochronous."""
        try:
            device = DeviceDescriptor.parse(self._descriptor(DT_DEVICE, 0, 18))
            for index in range(device.bNumConfigurations):
                total = int.from_bytes(self._descriptor(DT_CONFIGURATION, index, 9)[2:4], "little")
                self._endpoints.add_configuration(parse_configuration(self._descriptor(DT_CONFIGURATION, index, total)))
        except RemoteProtocolError:  # of such a device only endpoint 0 can be used
            return

    def _descriptor(self, kind: int, index: int, length: int) -> bytes:
        urb = Urb.control(get_descriptor(kind, index, 0, length).pack())
        return bytes(self._device.run(urb, _DESCRIPTOR_TIMEOUT).data)
