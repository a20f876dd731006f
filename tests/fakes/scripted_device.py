"""A server whose device answers as the demo does, but for what the test wants otherwise."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import replace

from tests.fakes.scripted_server import INFO, read_exactly, ret_submit, ret_unlink
from usbip_capture.demo.device import DESCRIPTORS
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.setup import GET_DESCRIPTOR, Setup
from usbip_capture.wire import structs

_STALL = -32


class ScriptedDevice:
    """A script for `ScriptedServer`, for each of its connections.

    descriptor: may change what GET_DESCRIPTOR brings; None stalls. control: its status for the n-th control request
    of the m-th import, None as usual. reads: the answer to an IN request, None leaves it unanswered.
    """

    def __init__(self, info: DeviceInfo = INFO) -> None:
        self.info = info
        self.imports = 0
        self.closing_delay = 0.0
        self.descriptor: Callable[[int, bytes | None], bytes | None] = lambda value, raw: raw
        self.control: Callable[[int, int], int | None] = lambda number, imports: None
        self.reads: Callable[[int, int], bytes | None] = lambda seqnum, imports: None

    def __call__(self, sock: socket.socket) -> None:
        read_exactly(sock, 40)
        self.imports += 1
        imports, number = self.imports, 0
        sock.sendall(structs.OP_COMMON.pack(0x0111, structs.OP_REP_IMPORT, 0) + structs.pack_device(self.info))
        while True:
            header = read_exactly(sock, 48)
            command, seqnum, _, direction, endpoint, _, length, _, packets = struct.unpack_from(">IIIIIIiii", header)
            if command == structs.USBIP_CMD_UNLINK:
                sock.sendall(ret_unlink(seqnum, -104))
                continue
            if not direction and length:
                read_exactly(sock, length)
            if packets > 0:
                read_exactly(sock, 16 * packets)
            if endpoint:
                sock.sendall(self.reads(seqnum, imports) or b"")
                continue
            number += 1
            sock.sendall(self._answer(Setup.unpack(header[40:]), seqnum, length, self.control(number, imports)))

    def _answer(self, setup: Setup, seqnum: int, length: int, status: int | None) -> bytes:
        if status is not None:
            return ret_submit(seqnum, status)
        data: bytes | None = b""
        if setup.bRequest == GET_DESCRIPTOR:
            data = self.descriptor(setup.wValue, DESCRIPTORS.find(setup))
        if data is None:
            return ret_submit(seqnum, _STALL)
        return ret_submit(seqnum, 0, len(data[:length]), data[:length])


def elsewhere(busnum: int, devnum: int) -> DeviceInfo:
    """The device at a bus and device number."""
    return replace(INFO, busnum=busnum, devnum=devnum)
