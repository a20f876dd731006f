"""One import, spoken by hand: what a client never does, and every field of each reply."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import count

from usbip_capture.errors import RemoteProtocolError, ServerLost
from usbip_capture.net.connecting import exchange
from usbip_capture.servers.address import ServerAddress
from usbip_capture.tap import Tap
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.status import ECONNRESET
from usbip_capture.usb.urb import DIR_IN, Completion, Urb
from usbip_capture.wire import structs
from usbip_capture.wire.operations import ImportExchange

_NPK_AT = 32


@dataclass(slots=True, frozen=True)
class Reply:
    """A RET_SUBMIT or RET_UNLINK as it came; seconds from the request to here."""

    command: int
    seqnum: int
    devid: int
    direction: int
    endpoint: int
    status: int
    actual_length: int
    number_of_packets: int
    data: bytes
    seconds: float

    @property
    def unlinks(self) -> bool:
        """Whether it is a RET_UNLINK."""
        return self.command == structs.USBIP_RET_UNLINK


class RawSession:
    """An imported device. All that is sent and received is shown to `tap`. Close it, or use it in a `with`."""

    def __init__(self, server: ServerAddress, busid: str, tap: Tap | None = None) -> None:
        self._transport = server.open_transport()
        self._server = server
        self._tap = tap
        self._numbers = count(1)
        self._sent: dict[int, tuple[Urb, int, float]] = {}
        request = ImportExchange(busid)
        try:
            exchange(self._transport, request, server.timeout)
        except BaseException:
            self._transport.close()
            raise
        if request.info is None:
            raise RemoteProtocolError(f"{server}: the import of {busid} was answered without a device")
        self.info: DeviceInfo = request.info

    def submit(self, urb: Urb, number_of_packets: int = 0) -> int:
        """Send a CMD_SUBMIT; its seqnum. Not for isochronous URBs. Raises ServerLost."""
        seqnum = next(self._numbers)
        header = bytearray(structs.pack_submit(urb, seqnum, self.info.devid))
        header[_NPK_AT : _NPK_AT + 4] = (number_of_packets & 0xFFFFFFFF).to_bytes(4, "big")
        urb_id = self._tap.submitted(urb) if self._tap is not None else 0
        self._sent[seqnum] = urb, urb_id, time.monotonic()
        self._send(bytes(header) + (b"" if urb.endpoint & DIR_IN else bytes(urb.data)))
        return seqnum

    def unlink(self, target: int) -> int:
        """Send a CMD_UNLINK; its seqnum. Raises ServerLost."""
        seqnum = next(self._numbers)
        self._send(structs.CMD_UNLINK.pack(structs.USBIP_CMD_UNLINK, seqnum, self.info.devid, 0, 0, target))
        return seqnum

    def reply(self, timeout: float) -> Reply | None:
        """The next reply; None after `timeout` seconds. Raises ServerLost."""
        try:
            header = self._read(structs.HEADER_SIZE, timeout)
        except TimeoutError:
            return None
        command, seqnum, devid, direction, endpoint, status, actual, _, packets, _ = structs.RET_SUBMIT.unpack(header)
        urb, _, started = self._sent.get(seqnum, (None, 0, time.monotonic()))
        data = b""
        if command == structs.USBIP_RET_SUBMIT and urb is not None and urb.endpoint & DIR_IN:
            if not 0 <= actual <= urb.length:
                raise ServerLost(f"{self._server} answered with {actual} bytes where {urb.length} were asked for")
            data = self._read(actual, self._server.timeout)
        if command == structs.USBIP_RET_SUBMIT and urb is not None:
            self._done(seqnum, Completion(status, actual, data))
        return Reply(
            command, seqnum, devid, direction, endpoint, status, actual, packets, data, time.monotonic() - started
        )

    def answer(self, urb: Urb, timeout: float, number_of_packets: int = 0) -> Reply | None:
        """The reply to a URB; others that come before it are passed over. Raises ServerLost."""
        seqnum = self.submit(urb, number_of_packets)
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            reply = self.reply(left)
            if reply is None or reply.seqnum == seqnum:
                return reply
        return None

    def gave_up(self, seqnum: int) -> None:
        """Nothing is expected for this URB any more."""
        self._done(seqnum, Completion(-ECONNRESET))

    def close(self) -> None:
        """Release the device."""
        for seqnum in list(self._sent):
            self.gave_up(seqnum)
        self._transport.shut_down()
        self._transport.close()

    def __enter__(self) -> RawSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _done(self, seqnum: int, completion: Completion) -> None:
        urb, urb_id, _ = self._sent.pop(seqnum, (None, 0, 0.0))
        if urb is not None and self._tap is not None:
            self._tap.completed(urb_id, urb, completion)

    def _send(self, data: bytes) -> None:
        try:
            self._transport.send([data])
        except OSError as error:
            raise ServerLost(f"{self._server} closed the connection") from error

    def _read(self, size: int, timeout: float) -> bytes:
        """Raises TimeoutError only if nothing has come within `timeout` seconds; the rest has the server's time-out."""
        data = bytearray(size)
        got = 0
        deadline = time.monotonic() + timeout
        while got < size:
            try:
                taken = self._transport.receive_into(memoryview(data)[got:], max(deadline - time.monotonic(), 0))
            except TimeoutError:
                if not got:
                    raise
                raise ServerLost(f"{self._server} stopped in the middle of a message") from None
            except OSError as error:
                raise ServerLost(f"{self._server} closed the connection: {error.strerror}") from error
            if not taken:
                raise ServerLost(f"{self._server} closed the connection")
            if not got:
                deadline = max(deadline, time.monotonic() + self._server.timeout)
            got += taken
        return bytes(data)
