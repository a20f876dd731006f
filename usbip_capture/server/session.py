"""One client's use of one imported device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns

from usbip_capture.device import Device, Transfer, Waiter
from usbip_capture.errors import RemoteProtocolError
from usbip_capture.net.transport import Transport
from usbip_capture.server.client import Client
from usbip_capture.server.figures import DeviceFigures, Totals
from usbip_capture.server.in_flight import STEP, InFlight
from usbip_capture.server.replies import CROWDED, Replies
from usbip_capture.usb.descriptors import DeviceDescriptor, read_configuration
from usbip_capture.usb.endpoints import EndpointMap
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.setup import DT_DEVICE, get_descriptor
from usbip_capture.usb.urb import Completion, TransferType, Urb
from usbip_capture.wire.server import Event, ServerConnection, UnlinkRequested, UrbRefused, UrbSubmitted

#: Seconds that a device has to answer a request for a descriptor.
_DESCRIPTOR_TIMEOUT = 5.0


class Session:
    """Runs the client's URBs on `device`. `wait` and `receive` are called by the connection's thread only.

    transport: not used by anybody else for sending from now on. end: disconnects the client, with the reason; called
    from any thread, must not wait. in_flight, address: where its bytes are counted, and for whom. figures: where its
    URBs are counted, None if nobody wants that.
    """

    def __init__(
        self,
        transport: Transport,
        conn: ServerConnection,
        device: Device,
        end: Callable[[str], None],
        in_flight: InFlight | None = None,
        address: str = "",
        figures: DeviceFigures | None = None,
    ) -> None:
        self.urbs = self.bytes = 0  # that were answered, and what they moved
        self._conn = conn
        self._device = device
        self.info = device.info
        self._endpoints = EndpointMap(None, device.info.speed)
        self._end = end
        self._transfers: dict[int, Transfer] = {}
        # Held while a reply is made and queued, so that replies leave in the order in which URBs finish.
        self._replying = threading.Lock()
        self._replies = Replies(transport, self._replying, end)
        self._in_flight, self._address = in_flight or InFlight(), address
        self._figures, self._before = figures, figures.totals if figures is not None else Totals()
        self._fileno = transport.fileno
        self._waiter: Waiter | None = None
        self._fewest = self._most = 0  # bytes that may be pending until it is looked at again
        self._in_flight.join(address, self._flying)

    def start(self, info: DeviceInfo) -> None:
        """Import the device for this client. Raises what asking it for its descriptors does."""
        self._learn()
        self._device.watch(lambda reason: self._end(reason or "its device is gone"))
        with self._replying:
            self._replies.send([self._conn.import_reply(info, self._type_of)])

    def wait(self) -> None:
        """Wait until the client has sent something, or return at once where this thread has nothing to do meanwhile."""
        waiter = self._waiter
        if waiter is None and self._fileno >= 0:
            waiter = self._waiter = self._device.waiter(self._fileno)
        if waiter is not None:
            if not waiter.wait():
                self.stop_waiting()
            self._keep_room()  # meanwhile, this thread may have been what sends replies

    def stop_waiting(self) -> None:
        """To be called before the thread that calls `wait` waits for anything else."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.end()

    def receive(self, data: bytes) -> None:
        """What the client has sent: run or unlink its URBs. Raises RemoteProtocolError.

        Waits while the client reads nothing, for its replies would pile up.
        """
        counted = self._figures is not None
        for event in self._conn.receive_data(data):
            if isinstance(event, UrbSubmitted):
                seqnum, urb = event
                if counted:
                    transfer = Transfer(urb, partial(self._counted, perf_counter_ns(), seqnum, urb))
                else:
                    transfer = Transfer(urb, partial(self._completed, seqnum, urb))
                self._transfers[seqnum] = transfer
                self._device.submit(transfer)
            else:
                self._handle(event)
        if not self._fewest <= (pending := self._conn.pending_bytes) <= self._most:
            self._look_at_bytes(pending)
        self._keep_room()

    def _keep_room(self) -> None:
        """A client that does not take its replies waits with its requests."""
        if self._replies.unsent > CROWDED:
            self.stop_waiting()
            self._replies.wait_for_room()

    def with_counts(self, client: Client) -> Client:
        """`client` with what the device has done for it so far."""
        moved = Totals() if self._figures is None else self._figures.totals.minus(self._before)
        return client._replace(urbs=self.urbs, bytes=self.bytes, bytes_in=moved.bytes_in, bytes_out=moved.bytes_out)

    def _flying(self) -> int:
        return self._conn.pending_bytes + self._replies.unsent

    def _look_at_bytes(self, pending: int) -> None:
        """Disconnect a client whose address has too much in flight. What it has grows by requests only."""
        has_grown = pending > self._most
        self._fewest, self._most = pending - STEP, pending + STEP
        if has_grown and self._in_flight.is_too_much(self._address):
            self._end("the clients of its address have too many bytes in flight")

    def _handle(self, event: Event) -> None:
        if isinstance(event, UrbRefused):
            with self._replying:
                self._replies.send(self._conn.complete(event.seqnum, event.completion))
        elif isinstance(event, UnlinkRequested):
            with self._replying:
                reply = self._conn.unlinked(event.target)
                if reply:
                    self._replies.send([reply])
            pending = self._transfers.get(event.target)
            if pending is not None:
                self._device.cancel(pending)

    def break_off(self) -> None:
        """Answer nothing more: to be called before the transport is shut down. From any thread, `end` too."""
        self._replies.break_off()

    def hang_up(self) -> bool:
        """The same; the transport is not used any more when this returns. Whether a reply may be cut by that."""
        self._replies.close()
        return self._replies.cut

    def close(self) -> None:
        """Close the device; what is pending is not answered any more. The transport is shut down before."""
        try:
            self._device.close()
        finally:
            self._in_flight.leave(self._address, self._flying)
            self._replies.close()
            self._transfers.clear()

    def _counted(self, submitted: int, seqnum: int, urb: Urb, completion: Completion) -> None:
        took = perf_counter_ns() - submitted
        self._completed(seqnum, urb, completion)
        if self._figures is not None:  # after the client has its reply
            self._figures.add(urb, completion, took)

    def _completed(self, seqnum: int, urb: Urb, completion: Completion) -> None:
        if urb.transfer_type == TransferType.CONTROL and not urb.endpoint and not completion.status:
            self._endpoints.follow(urb.setup)
        self._transfers.pop(seqnum, None)
        # Several that end together have their replies sent together.
        held = bool(self._transfers) and self._device.afterwards(self._send_held)
        with self._replying:
            self.urbs += 1
            self.bytes += completion.actual_length
            parts = self._conn.complete(seqnum, completion)
            self._replies.hold(parts) if held else self._replies.send(parts)

    def _send_held(self) -> None:
        with self._replying:
            self._replies.send([])

    def _type_of(self, address: int) -> TransferType | None:
        # Of another setting, too: where a request ends depends on it, and the device refuses it.
        endpoint = self._endpoints.likely(address)
        return endpoint.transfer_type if endpoint is not None else None

    def _learn(self) -> None:
        """The device's configurations: the wire does not show which endpoints are isochronous."""
        try:
            device = DeviceDescriptor.parse(self._descriptor(DT_DEVICE, 0, 18))
            for index in range(device.bNumConfigurations):
                self._endpoints.add_configuration(read_configuration(index, self._descriptor))
            self._endpoints.activate(self.info.bConfigurationValue)  # a client need not set what is set
        except RemoteProtocolError:  # of such a device only endpoint 0 can be used
            return

    def _descriptor(self, kind: int, index: int, length: int) -> bytes:
        urb = Urb.control(get_descriptor(kind, index, 0, length).pack())
        return bytes(self._device.run(urb, _DESCRIPTOR_TIMEOUT).data)
