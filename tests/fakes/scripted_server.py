"""A TCP server whose every byte the test decides, for what a good server never does."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol

from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.wire import structs

INFO = DeviceInfo("1-1", 1, 2, Speed.HIGH, 0x1209, 0x0001, path="/sys/devices/scripted")


class Receives(Protocol):
    """A socket, or what is read like one."""

    def recv(self, size: int, /) -> bytes: ...


Script = Callable[[socket.socket], None]


def read_exactly(sock: Receives, size: int) -> bytes:
    """`size` bytes; raises ConnectionError at the end of the stream."""
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise ConnectionError
        data += chunk
    return data


def answer_import(sock: socket.socket) -> None:
    """Export INFO to the client that asks."""
    read_exactly(sock, 40)
    sock.sendall(structs.OP_COMMON.pack(0x0111, structs.OP_REP_IMPORT, 0) + structs.pack_device(INFO))


def answer_devlist(sock: socket.socket) -> None:
    """List INFO to the client that asks."""
    read_exactly(sock, 8)
    reply = structs.OP_COMMON.pack(0x0111, structs.OP_REP_DEVLIST, 0) + structs.DEVLIST_COUNT.pack(1)
    sock.sendall(reply + structs.pack_device(INFO))


def read_request(sock: socket.socket) -> tuple[int, int, int, int]:
    """The next CMD_SUBMIT or CMD_UNLINK, without its data: command, seqnum, direction, length or target."""
    header = read_exactly(sock, 48)
    command, seqnum, _, direction = struct.unpack_from(">IIII", header)
    (length,) = struct.unpack_from(">I", header, 24 if command == structs.USBIP_CMD_SUBMIT else 20)
    return command, seqnum, direction, length


def ret_submit(seqnum: int, status: int = 0, actual: int = 0, data: bytes = b"") -> bytes:
    """A RET_SUBMIT as Linux sends it."""
    return structs.RET_SUBMIT.pack(structs.USBIP_RET_SUBMIT, seqnum, 0, 0, 0, status, actual, 0, 0, 0) + data


def ret_unlink(seqnum: int, status: int) -> bytes:
    """A RET_UNLINK as Linux sends it."""
    return structs.RET_UNLINK.pack(structs.USBIP_RET_UNLINK, seqnum, 0, 0, 0, status)


class ScriptedServer(AbstractContextManager["ScriptedServer"]):
    """Runs one script for each connection, in order; the last one again for further connections."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(sock)
            script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
            threading.Thread(target=self._run, args=(script, sock), daemon=True).start()

    @staticmethod
    def _run(script: Script, sock: socket.socket) -> None:
        try:
            script(sock)
        except OSError:
            pass
        finally:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._connections:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._thread.join()
