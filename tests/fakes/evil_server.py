"""A server and a log that put into every text what a terminal or a shell would act upon."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from types import TracebackType

from tests.fakes.scripted_device import ScriptedDevice
from tests.fakes.scripted_server import INFO, ScriptedServer, read_exactly
from usbip_capture.usb.info import DeviceInfo, InterfaceInfo
from usbip_capture.wire import structs

#: What a terminal acts upon: ESC, BEL, C1, carriage return, a line of ours that is none, text that runs backwards.
EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\nusbip-capture: owned\u202egnp\u2066\u061c\u2028;touch owned"
#: A device that is imported without complaint; its strings are evil.
GOOD, REFUSED, UNKNOWN_STATUS = "1-4", "1-5", "1-6"
#: 31 bytes are what a busid has.
EVIL_BUSIDS = ("1-1\x1b[2J\x07;touch owned", "1-2\r\nusbip-capture: owned", "1-3\u202egnp\u2066\u061c\x9b31m")
_OTHER = 0xDEAD
_STRING = 3


def evil_info(busid: str, number: int) -> DeviceInfo:
    """A device with an evil path."""
    interfaces = (InterfaceInfo(2, 2, 1), InterfaceInfo(10, 0, 0), InterfaceInfo(3, 1, 1), InterfaceInfo(255, 0, 0))
    return DeviceInfo(
        busid, 1, number, INFO.speed, 0x1209, 0x0001, bNumInterfaces=len(interfaces), path=EVIL, interfaces=interfaces
    )


INFOS = [evil_info(busid, at + 1) for at, busid in enumerate((*EVIL_BUSIDS, GOOD, REFUSED, UNKNOWN_STATUS))]


class EvilServer:
    """Lists, refuses and exports devices; `port` is the server's, `log_port` that of its log."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.port = self._stack.enter_context(ScriptedServer(self._serve)).port
        self.log_port = self._stack.enter_context(ScriptedServer(_log)).port

    @property
    def host(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> EvilServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @staticmethod
    def _serve(sock: socket.socket) -> None:
        head = sock.recv(40, socket.MSG_PEEK | socket.MSG_WAITALL) if _is_import(sock) else b""
        if not head:
            read_exactly(sock, 8)
            devices = b"".join(structs.pack_device(info) + _interfaces(info) for info in INFOS)
            count = structs.DEVLIST_COUNT.pack(len(INFOS))
            sock.sendall(structs.OP_COMMON.pack(structs.VERSION, structs.OP_REP_DEVLIST, 0) + count + devices)
            return
        busid = head[8:].rstrip(b"\0").decode()
        status = {REFUSED: 1, UNKNOWN_STATUS: _OTHER}.get(busid, 0)
        info = next((info for info in INFOS if info.busid == busid), None)
        if status or info is None:
            read_exactly(sock, 40)
            sock.sendall(structs.OP_COMMON.pack(structs.VERSION, structs.OP_REP_IMPORT, status or 4))
            return
        device = ScriptedDevice(info)
        device.descriptor = _descriptor
        device(sock)


def _is_import(sock: socket.socket) -> bool:
    head = sock.recv(8, socket.MSG_PEEK | socket.MSG_WAITALL)
    return head[2:4] == structs.OP_REQ_IMPORT.to_bytes(2, "big")


def _interfaces(info: DeviceInfo) -> bytes:
    return b"".join(bytes((i.bInterfaceClass, i.bInterfaceSubClass, i.bInterfaceProtocol, 0)) for i in info.interfaces)


def _descriptor(value: int, raw: bytes | None) -> bytes | None:
    if value >> 8 != _STRING or not value & 0xFF:
        return raw
    text = EVIL.encode("utf-16-le")
    return bytes((len(text) + 2, _STRING)) + text


def _log(sock: socket.socket) -> None:
    for line in EVIL.splitlines():
        sock.sendall(f"<27>1 - {EVIL.split()[0]} app{line} - - - said {line}\n".encode())
    sock.sendall(f"<11>{EVIL}\n".encode())
    sock.recv(1)  # until the other side closes it
