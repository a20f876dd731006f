"""One client of the server: its request, the answer, and the device that it imports. On a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from usbip_capture.errors import RemoteProtocolError, UsbipError
from usbip_capture.net.listening import NOT_ALLOWED, Admission, Peer
from usbip_capture.net.transport import Transport, send_by
from usbip_capture.server.access import Access
from usbip_capture.server.exports import Export, Exports
from usbip_capture.server.session import Session
from usbip_capture.system.memory import trim
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.wire.server import DevlistRequested, ImportRequested, ServerConnection
from usbip_capture.wire.structs import OpStatus

log = logging.getLogger(__name__)

_RECEIVE_SIZE = 64 << 10
#: Seconds for a client's request, and to take the answer: all of it, not each part.
_REQUEST_TIMEOUT = 10.0


#: See `Connection`.
Secured: TypeAlias = "Callable[[Transport, Peer, float], tuple[Transport, Peer] | None]"


class Client(NamedTuple):
    """Who is connected. since, imported: seconds since 1970; busid is empty and imported 0 without a device.

    urbs, bytes: URBs that the device has answered, and what they moved.
    """

    peer: Peer
    since: float
    busid: str = ""
    imported: float = 0.0
    urbs: int = 0
    bytes: int = 0


class Connection:
    """Serves the client at `transport`, which is its own from `start` on. on_end: called with it when it is over.

    on_import: called with it when it has a device. secured: does a handshake first, within some seconds: returns the
    transport from then on and the client as it is known then, None if the connection is over; raises OSError.
    """

    def __init__(
        self,
        transport: Transport,
        peer: Peer,
        exports: Exports,
        access: Access,
        admission: Admission,
        *,
        on_import: Callable[[Connection], None],
        on_end: Callable[[Connection], None],
        secured: Secured | None = None,
    ) -> None:
        self._client = Client(peer, time.time())
        self._transport = transport
        self._peer = peer
        self._exports = exports
        self._access = access
        self._admission = admission
        self._on_import = on_import
        self._on_end = on_end
        self._secured = secured
        self._export: Export | None = None
        self._session: Session | None = None
        self._closing = threading.Lock()
        self._ending = self._closed = False
        self._thread = threading.Thread(target=self._run, name="usbip-connection", daemon=True)

    @property
    def client(self) -> Client:
        """Who it is, and what it has done so far."""
        session = self._session
        return self._client if session is None else self._client._replace(urbs=session.urbs, bytes=session.bytes)

    def start(self) -> None:
        """Raises RuntimeError if no thread can be had."""
        self._thread.start()

    def end(self, reason: str = "") -> None:
        """Disconnect the client, from any thread; the connection's thread does the rest. reason: for the log."""
        self._ending = True
        if self._session is not None:
            self._session.break_off()
        with self._closing:  # so that the thread cannot have closed the transport
            if self._closed:
                return
            if reason:
                log.warning("client %s is disconnected: %s", self._peer, reason)
            self._transport.shut_down()

    def join(self) -> None:
        """Wait until it is over, and its device closed."""
        if self._thread is not threading.current_thread():
            self._thread.join()

    # -- its thread

    def _run(self) -> None:
        try:
            session = self._operation() if self._secured is None or self._is_secured(self._secured) else None
            if session is not None:
                self._urbs(session)
        except RemoteProtocolError as error:
            log.warning("client %s is disconnected: %s", self._peer, error)
        except OSError as error:
            log.info("the connection of client %s ended: %s", self._peer, error)
        except Exception:
            log.exception("client %s is disconnected by an internal error", self._peer)
        finally:
            self._finish()

    def _is_secured(self, secured: Secured) -> bool:
        """After the handshake: whether the client may go on. Raises OSError, TimeoutError."""
        try:
            found = secured(self._transport, self._peer, _REQUEST_TIMEOUT)
        except TimeoutError:
            raise TimeoutError("no handshake in time") from None
        if found is None:
            return False
        with self._closing:
            self._transport, self._peer = found
        self._client = self._client._replace(peer=self._peer)
        return self._admission.admits(self._peer)

    def _operation(self) -> Session | None:
        """The client's OP request and its answer, in bounded time; the session of a device that was imported."""
        conn = ServerConnection()
        deadline = time.monotonic() + _REQUEST_TIMEOUT
        while data := self._received(deadline):
            for event in conn.receive_data(data):
                if isinstance(event, DevlistRequested):
                    self._answer(conn.devlist([info for info in self._exports.free() if self._sees(info)]))
                    return None
                if isinstance(event, ImportRequested):
                    return self._import(conn, event.busid)
        return None

    def _received(self, deadline: float) -> bytes:
        """What comes next of the request; empty at the end of the stream. Raises OSError, TimeoutError."""
        left = deadline - time.monotonic()
        try:
            return self._transport.receive(_RECEIVE_SIZE, max(left, 0.0))
        except TimeoutError:
            raise TimeoutError("no request came in time") from None

    def _answer(self, data: bytes) -> None:
        """Send the answer to the client's request, whole or as broken off. Raises OSError, TimeoutError."""
        try:
            send_by(self._transport, data, time.monotonic() + _REQUEST_TIMEOUT)
        except BaseException:
            self._transport.reset_on_close()
            raise

    def _import(self, conn: ServerConnection, busid: str) -> Session | None:
        """A session with the device; None if the import was refused, which was the answer to the client."""
        export = self._exports.find(busid)
        status = OpStatus.NODEV if export is None or not self._sees(export.info) else self._reserve(export)
        session = self._opened(conn, export) if export is not None and not status else None
        if session is None or export is None:
            self._release()  # before the answer: who gets it may try again at once
            removed = export is not None and export.removed
            self._answer(conn.import_refused(status or (OpStatus.NODEV if removed else OpStatus.DEV_ERR)))
            return None
        # Before the client learns of it: whoever it asks to be disconnected finds it.
        self._client = self._client._replace(busid=busid, imported=time.time())
        session.start(replace(session.info, interfaces=()))
        log.info("client %s has imported %s", self._peer, session.info)
        self._on_import(self)
        return session

    def _reserve(self, export: Export) -> OpStatus:
        reason = self._refusal(export.info)
        if reason:
            self._admission.refuse(self._peer, f"{export.info.busid}: {reason}")
            return OpStatus.NA
        status = self._exports.reserve(export, self._removed)
        if not status:
            self._export = export
        return status

    def _opened(self, conn: ServerConnection, export: Export) -> Session | None:
        """A session with the reserved device, opened anew; None if it cannot be."""
        try:
            device = export.open_device()
        except UsbipError as error:
            log.warning("device %s cannot be imported: %s", export.info.busid, error)
            return None
        except Exception:
            log.exception("device %s cannot be imported: opening it failed", export.info.busid)
            return None
        try:
            session = self._session = Session(self._transport, conn, device, self.end)
        except BaseException:
            device.close()
            raise
        if export.removed:  # asked for after the session is there to be found by `_removed`, which is called after that
            self._session = None
            session.close()
            return None
        return session

    def _removed(self) -> None:
        """The device is not exported any more. A client that does not have it yet gets an answer."""
        if self._session is not None:
            self.end("its device is not exported any more")

    def _sees(self, info: DeviceInfo) -> bool:
        try:
            return bool(self._access.visible(self._peer, info))
        except Exception:
            log.exception("whether client %s sees device %s cannot be decided", self._peer, info.busid)
            return False

    def _refusal(self, info: DeviceInfo) -> str:
        try:
            decision = self._access.may_import(self._peer, info)
        except Exception:
            log.exception("whether client %s may import %s cannot be decided", self._peer, info.busid)
            return NOT_ALLOWED
        return "" if decision else decision.reason or NOT_ALLOWED

    def _urbs(self, session: Session) -> None:
        receive, handle = self._transport.receive, session.receive
        while not self._ending:  # what is on its way may come even then
            try:
                data = receive(_RECEIVE_SIZE, None)
            except TimeoutError:  # after an hour, perhaps: who only waits for its device may do so
                continue
            if not data:
                return
            handle(data)

    def _release(self) -> None:
        """The next client may have the device."""
        export, self._export = self._export, None
        if export is not None:
            self._exports.release(export)

    def _finish(self) -> None:
        self.end()
        try:
            if self._session is not None:
                self._end_session(self._session)
        except Exception:
            log.exception("the device of client %s cannot be closed", self._peer)
        finally:
            self._release()
            if self._client.busid and self._session is not None:
                log.info("client %s has released %s", self._peer, self._session.info)
            self._close()
            self._on_end(self)

    def _end_session(self, session: Session) -> None:
        try:
            if session.hang_up():
                self._close()  # the client waits for the rest of a reply, and a device may take long to be closed
        finally:
            session.close()
            trim()

    def _close(self) -> None:
        with self._closing:
            self._closed = True
            self._transport.close()
