"""Which devices are exported, who has them, and the threads that serve connections."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from usbip_capture.device import Device
from usbip_capture.errors import RemoteProtocolError, UsbipError
from usbip_capture.net import listening
from usbip_capture.net.connecting import set_options
from usbip_capture.net.transport import limit_sending
from usbip_capture.server.session import Session
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.wire.server import DevlistRequested, ImportRequested, ServerConnection
from usbip_capture.wire.structs import OpStatus

log = logging.getLogger(__name__)

_RECEIVE_SIZE = 64 << 10
#: Seconds for a client's request, and to take the answer: all of it, not each part.
_REQUEST_TIMEOUT = 10.0
#: Connections without a device at a time; for a further one the oldest of them is closed.
_MAX_WAITING = 128


@dataclass(slots=True, eq=False)
class _Export:
    info: DeviceInfo
    open_device: Callable[[], Device]
    user: Session | None = None
    reserved: bool = False
    removed: bool = False


class Server:
    """Exports devices. Each import opens its device anew, as after the reset that Linux does between two clients.

    A device whose opening raises is refused, as being in error. A client has 10 s for its request.
    """

    def __init__(self) -> None:
        self._exports: dict[str, _Export] = {}
        self._lock = threading.Lock()
        self._acceptors: list[listening.Acceptor] = []
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._waiting: dict[socket.socket, None] = {}  # those without a device, the oldest first
        self._sessions: dict[socket.socket, tuple[_Export, Session] | tuple[None, None]] = {}
        self._closing = threading.Event()

    def add(self, info: DeviceInfo, open_device: Callable[[], Device]) -> None:
        """Export a device under `info.busid`; it replaces the one that has this busid."""
        with self._lock:
            replaced = self._exports.pop(info.busid, None)
            self._exports[info.busid] = _Export(info, open_device)
            user = _removed(replaced)
        if user is not None:
            user.end()

    def remove(self, busid: str) -> None:
        """Stop exporting a device; who has it, or is just getting it, loses it."""
        with self._lock:
            user = _removed(self._exports.pop(busid, None))
        if user is not None:
            user.end()

    def listen(self, address: str, port: int) -> tuple[str, int]:
        """Accept connections; the address and port that are really used (port 0 chooses one). Raises CaptureError."""
        listener = listening.listen(address, port)
        host, bound = listener.getsockname()[:2]
        acceptor = listening.Acceptor(listener, self.serve_socket, "usbip-server", self._give_up_oldest)
        with self._lock:
            self._acceptors.append(acceptor)
        return host, bound

    def serve_socket(self, sock: socket.socket) -> None:
        """Serve one connection on a thread of its own; the socket is the server's from now on.

        Raises UsbipError if no thread can be had, OSError if the client has left; the socket is closed then.
        """
        thread = threading.Thread(target=self._serve, args=(sock,), name="usbip-connection", daemon=True)
        try:
            set_options(sock)
            if len(self._waiting) >= _MAX_WAITING:
                self._give_up_oldest()
            with self._lock:
                if self._closing.is_set():
                    sock.close()
                    return
                thread.start()
                self._connections[sock] = thread
                self._waiting[sock] = None
        except RuntimeError as error:
            sock.close()
            raise UsbipError(f"no connection can be served: {error}: end other programs") from error
        except BaseException:
            sock.close()
            raise

    def _give_up_oldest(self) -> None:
        """End the connection that has been without a device for longest."""
        with self._lock:  # so that its thread cannot have closed it
            oldest = next(iter(self._waiting), None)
            if oldest is not None:
                del self._waiting[oldest]
                _shut_down(oldest)

    def close(self) -> None:
        """End all connections; their devices are closed when this returns."""
        with self._lock:
            self._closing.set()
            acceptors, self._acceptors = self._acceptors, []
        for acceptor in acceptors:
            acceptor.close()
        with self._lock:
            connections = dict(self._connections)
            for sock in connections:
                _shut_down(sock)
        for thread in connections.values():
            if thread is not threading.current_thread():
                thread.join()

    # -- one connection

    def _serve(self, sock: socket.socket) -> None:
        try:
            session = self._operation(sock)
            if session is not None:
                self._urbs(sock, session)
        except RemoteProtocolError as error:
            log.warning("a client was disconnected: %s", error)
        except OSError as error:
            log.info("the connection of a client ended: %s", error)
        except Exception:
            log.exception("a client was disconnected by an internal error")
        finally:
            self._end(sock)

    def _urbs(self, sock: socket.socket, session: Session) -> None:
        receive, handle = sock.recv, session.receive
        while True:
            try:
                data = receive(_RECEIVE_SIZE)
            except TimeoutError:  # where the limit for sending is the socket's: who only waits for its device may do so
                continue
            if not data:
                return
            handle(data)

    def _operation(self, sock: socket.socket) -> Session | None:
        """The client's OP request and its answer, in bounded time; the session of a device that was imported."""
        conn = ServerConnection()
        deadline = time.monotonic() + _REQUEST_TIMEOUT
        while True:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            data = sock.recv(_RECEIVE_SIZE)
            if not data:
                return None
            for event in conn.receive_data(data):
                sock.settimeout(_REQUEST_TIMEOUT)
                if isinstance(event, DevlistRequested):
                    sock.sendall(conn.devlist(self._listed()))
                    return None
                if isinstance(event, ImportRequested):
                    return self._import(sock, conn, event.busid)

    def _end(self, sock: socket.socket) -> None:
        _shut_down(sock)
        with self._lock:
            export, session = self._sessions.pop(sock, (None, None))
        try:
            if session is not None:
                session.close()
        finally:
            with self._lock:
                if export is not None:
                    export.user, export.reserved = None, False
                self._connections.pop(sock, None)
                self._waiting.pop(sock, None)
                sock.close()

    def _listed(self) -> list[DeviceInfo]:
        """Linux leaves out devices in use."""
        with self._lock:
            return [export.info for export in self._exports.values() if not export.reserved]

    def _import(self, sock: socket.socket, conn: ServerConnection, busid: str) -> Session | None:
        """A session with the device; None if the import was refused, which was the answer to the client."""
        with self._lock:
            export = self._exports.get(busid)
            status = OpStatus.NODEV if export is None else OpStatus.DEV_BUSY if export.reserved else OpStatus.OK
            if export is not None and not status:
                export.reserved = True
        session = self._opened(sock, conn, export) if export is not None and not status else None
        if session is None:
            sock.sendall(conn.import_refused(status or OpStatus.DEV_ERR))
            return None
        session.start(replace(session.info, interfaces=()))
        sock.settimeout(None)
        limit_sending(sock)
        with self._lock:
            self._waiting.pop(sock, None)
        return session

    def _opened(self, sock: socket.socket, conn: ServerConnection, export: _Export) -> Session | None:
        """A session with the reserved device, opened anew; None if it cannot be."""
        session: Session | None = None
        try:
            session = Session(sock, conn, export.open_device())
        except UsbipError as error:
            log.warning("device %s cannot be imported: %s", export.info.busid, error)
        except Exception:
            log.exception("device %s cannot be imported: opening it failed", export.info.busid)
        with self._lock:
            if session is not None and not export.removed:
                export.user = session
                self._sessions[sock] = export, session
                return session
            export.reserved = False
        if session is not None:
            session.close()
        return None


def _removed(export: _Export | None) -> Session | None:
    """Take a device off the list; who has it now. Its server's lock is held."""
    if export is None:
        return None
    export.removed = True
    return export.user


def _shut_down(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other side was quicker
        pass
