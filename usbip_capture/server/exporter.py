"""Which devices are exported, who has them, and the threads that serve connections."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from usbip_capture.device import Device
from usbip_capture.errors import CaptureError, RemoteProtocolError, UsbipError
from usbip_capture.net import set_options
from usbip_capture.server.session import Session
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.wire.server import DevlistRequested, ImportRequested, ServerConnection
from usbip_capture.wire.structs import OpStatus

log = logging.getLogger(__name__)

_RECEIVE_SIZE = 64 << 10
#: Seconds without accepting anybody, when that has failed.
_ACCEPT_PAUSE = 0.1


@dataclass(slots=True)
class _Export:
    info: DeviceInfo
    open_device: Callable[[], Device]
    user: Session | None = None
    reserved: bool = False


class Server:
    """Exports devices. Each import opens its device anew, as after the reset that Linux does between two clients.

    A device whose opening raises UsbipError is refused, as being in error.
    """

    def __init__(self) -> None:
        self._exports: dict[str, _Export] = {}
        self._lock = threading.Lock()
        self._listeners: list[socket.socket] = []
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._accepting: list[threading.Thread] = []
        self._closing = threading.Event()

    def add(self, info: DeviceInfo, open_device: Callable[[], Device]) -> None:
        """Export a device under `info.busid`."""
        with self._lock:
            self._exports[info.busid] = _Export(info, open_device)

    def remove(self, busid: str) -> None:
        """Stop exporting a device; who has it loses it."""
        with self._lock:
            export = self._exports.pop(busid, None)
            user = export.user if export else None
        if user is not None:
            user.end()

    def listen(self, address: str, port: int) -> tuple[str, int]:
        """Accept connections; the address and port that are really used (port 0 chooses one). Raises CaptureError."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            listener = socket.create_server((address, port), family=family, backlog=64)
        except OSError as error:
            raise CaptureError(f"cannot listen on {address} port {port}: {_reason(error)}") from error
        thread = threading.Thread(target=self._accept, args=(listener,), name="usbip-server", daemon=True)
        with self._lock:
            self._listeners.append(listener)
            self._accepting.append(thread)
        thread.start()
        host, bound = listener.getsockname()[:2]
        return host, bound

    def serve_socket(self, sock: socket.socket) -> None:
        """Serve one connection on a thread of its own; the socket is the server's from now on."""
        set_options(sock)
        thread = threading.Thread(target=self._serve, args=(sock,), name="usbip-connection", daemon=True)
        with self._lock:
            if self._closing.is_set():
                sock.close()
                return
            self._connections[sock] = thread
            thread.start()

    def close(self) -> None:
        """End all connections; their devices are closed when this returns."""
        with self._lock:
            self._closing.set()
            listeners, self._listeners = self._listeners, []
            connections = dict(self._connections)
        for listener in listeners:
            _shut_down(listener)
            listener.close()
        for sock in connections:
            _shut_down(sock)
        for thread in [*self._accepting, *connections.values()]:
            if thread is not threading.current_thread():
                thread.join()

    # -- one connection

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
                self.serve_socket(sock)
            except OSError as error:
                if self._closing.wait(_ACCEPT_PAUSE):
                    return
                log.warning("a client was turned away: %s", error.strerror or error)  # too many open files, mostly

    def _serve(self, sock: socket.socket) -> None:
        session: Session | None = None
        conn = ServerConnection()
        try:
            while data := sock.recv(_RECEIVE_SIZE):
                for event in conn.receive_data(data):
                    if isinstance(event, DevlistRequested):
                        sock.sendall(conn.devlist(self._listed()))
                        return
                    if isinstance(event, ImportRequested):
                        session = self._import(sock, conn, event.busid)
                        if session is None:
                            return
                        session.start(replace(session.info, interfaces=()))
                    elif session is not None:
                        session.handle(event)
        except RemoteProtocolError as error:
            log.warning("a client is cut off: %s", error)
        except OSError as error:
            log.info("a client's connection ended: %s", error)
        finally:
            self._end(sock, session)

    def _end(self, sock: socket.socket, session: Session | None) -> None:
        _shut_down(sock)
        if session is not None:
            session.close()
            with self._lock:
                for export in self._exports.values():
                    if export.user is session:
                        export.user, export.reserved = None, False
        with self._lock:
            self._connections.pop(sock, None)
        sock.close()

    def _listed(self) -> list[DeviceInfo]:
        """Linux leaves out devices in use."""
        with self._lock:
            return [export.info for export in self._exports.values() if not export.reserved]

    def _import(self, sock: socket.socket, conn: ServerConnection, busid: str) -> Session | None:
        with self._lock:
            export = self._exports.get(busid)
            status = OpStatus.NODEV if export is None else OpStatus.DEV_BUSY if export.reserved else OpStatus.OK
            if export is None or status:
                sock.sendall(conn.import_refused(status))
                return None
            export.reserved = True
        try:
            session = Session(sock, conn, export.open_device())
        except UsbipError as error:
            log.warning("device %s is not handed over: %s", busid, error)
            with self._lock:
                export.reserved = False
            sock.sendall(conn.import_refused(OpStatus.DEV_ERR))
            return None
        with self._lock:
            export.user = session
        return session


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror) or (error.errno or 0) < 0:  # create_server makes a plain error of it
        return "the address is not known: give an address of this machine"
    if error.errno == errno.EADDRINUSE:
        return "it is in use: choose another port"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address: give one that it has, such as 127.0.0.1 or 0.0.0.0"
    return os.strerror(error.errno) if error.errno else str(error)


def _shut_down(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other side was quicker
        pass
