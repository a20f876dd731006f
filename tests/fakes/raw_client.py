"""A USB/IP client of few lines, which sends what a test likes and reads what comes, message by message."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import NamedTuple

from tests.fakes.scripted_server import read_exactly
from usbip_capture.usb.urb import DIR_IN
from usbip_capture.wire import structs

_TIMEOUT = 30.0


class Reply(NamedTuple):
    """data: of an IN URB; packets: offset, length, actual length and status of each isochronous one."""

    command: int
    seqnum: int
    status: int
    actual_length: int = 0
    data: bytes = b""
    packets: Sequence[tuple[int, ...]] = ()


class RawClient:
    """status: of the import; 0 if the device was imported, whose fields `device` has then. source: its own address."""

    def __init__(
        self, address: tuple[str, int], busid: str = "1-1", version: int = 0x0111, *, source: str = ""
    ) -> None:
        self.sock = socket.create_connection(address, _TIMEOUT, (source, 0) if source else None)
        self.sock.sendall(structs.OP_COMMON.pack(version, structs.OP_REQ_IMPORT, 0) + structs.pack_busid(busid))
        self.version, code, self.status = structs.OP_COMMON.unpack(read_exactly(self.sock, 8))
        assert code == structs.OP_REP_IMPORT
        self.device: tuple[int, ...] = ()
        if not self.status:
            self.device = structs.DEVICE.unpack(read_exactly(self.sock, structs.DEVICE.size))[2:]
        self._last = 0
        self._inward: dict[int, bool] = {}

    def submit(
        self,
        endpoint: int,
        length: int = 0,
        data: bytes = b"",
        *,
        setup: bytes = bytes(8),
        flags: int = 0,
        packets: Sequence[tuple[int, int]] = (),
        interval: int = 0,
    ) -> int:
        """Send CMD_SUBMIT; its seqnum. packets: offset and length of isochronous ones."""
        self._last += 1
        inward = bool(endpoint & DIR_IN)
        self._inward[self._last] = inward
        header = structs.CMD_SUBMIT.pack(
            structs.USBIP_CMD_SUBMIT, self._last, self.device[0] << 16 | self.device[1], inward, endpoint & 15,
            flags, length or len(data), 0, len(packets) if packets else -1, interval, setup,
        )  # fmt: skip
        described = b"".join(structs.ISO_PACKET.pack(at, size, 0, 0) for at, size in packets)
        self.sock.sendall(header + data + described)
        return self._last

    def control(self, setup: str, data: bytes = b"", length: int | None = None) -> int:
        """A control transfer; setup: in hexadecimal. length: transfer_buffer_length, if it is not wLength."""
        raw = bytes.fromhex(setup)
        wanted = int.from_bytes(raw[6:8], "little") if length is None else length
        return self.submit(raw[0] & DIR_IN, wanted, data, setup=raw)

    def unlink(self, target: int) -> int:
        """Send CMD_UNLINK; its seqnum."""
        self._last += 1
        devid = self.device[0] << 16 | self.device[1]
        self.sock.sendall(structs.CMD_UNLINK.pack(structs.USBIP_CMD_UNLINK, self._last, devid, 0, 0, target))
        return self._last

    def reply(self) -> Reply:
        """The next one."""
        header = read_exactly(self.sock, structs.HEADER_SIZE)
        command = int.from_bytes(header[:4], "big")
        if command == structs.USBIP_RET_UNLINK:
            fields = structs.RET_UNLINK.unpack(header)
            return Reply(command, fields[1], fields[5])
        _, seqnum, _, _, _, status, actual, _, count, _ = structs.RET_SUBMIT.unpack(header)
        data = read_exactly(self.sock, actual) if self._inward[seqnum] else b""
        described = read_exactly(self.sock, max(count, 0) * structs.ISO_PACKET_SIZE)
        return Reply(command, seqnum, status, actual, data, list(structs.ISO_PACKET.iter_unpack(described)))

    def ask(self, setup: str, data: bytes = b"", length: int | None = None) -> Reply:
        """A control transfer and its reply, while nothing else is pending."""
        seqnum = self.control(setup, data, length)
        reply = self.reply()
        assert reply.seqnum == seqnum
        return reply

    def is_at_end(self) -> bool:
        """Whether the server has disconnected, and sent nothing before."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
