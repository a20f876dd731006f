"""One client of the server: its request, the answer, and the device that it imports. On a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from usbip_capture.access.limits import key_of
from usbip_capture.errors import RemoteProtocolError, UsbipError
from usbip_capture.net.listening import NOT_ALLOWED, Admission, Peer
from usbip_capture.net.transport import Transport, send_by
from usbip_capture.server import events
from usbip_capture.server.access import Access, Decision
from usbip_capture.server.client import Client, next_number
from usbip_capture.server.events import Events
from usbip_capture.server.exports import Export, Exports
from usbip_capture.server.figures import Figures
from usbip_capture.server.in_flight import InFlight
from usbip_capture.server.session import Session
from usbip_capture.syslog.severity import INFO, NOTICE, WARNING
from usbip_capture.system.forks import disown_in_children
from usbip_capture.system.memory import trim
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.wire.server import DevlistRequested, ImportRequested, ServerConnection
from usbip_capture.wire.structs import OpStatus

log = logging.getLogger(__name__)

_RECEIVE_SIZE = 64 << 10
_NO_SUCH_DEVICE, _TAKEN = "there is no such device", "another client has it"


#: See `Connection`.
Secured: TypeAlias = "Callable[[Transport, Peer, float], tuple[Transport, Peer] | None]"


class Connection:
    """Serves the client at `transport`, which is its own from `start` on. on_end: called with it when it is over.

    timeout: seconds for the client's request, and to take the answer: all of it, not each part. in_flight: where its
    bytes are counted. figures: where its URBs are, or None. on_import: called with it when it gets a device, before the
    client learns of that.
    secured: does a handshake first, within some seconds: returns the transport from then on and the client as it is
    known then, None if the connection is over; raises OSError.
    """

    def __init__(
        self,
        transport: Transport,
        peer: Peer,
        exports: Exports,
        access: Access,
        admission: Admission,
        events: Events,
        *,
        timeout: float,
        in_flight: InFlight,
        on_import: Callable[[Connection], None],
        on_end: Callable[[Connection], None],
        secured: Secured | None = None,
        figures: Figures | None = None,
    ) -> None:
        self._client = Client(peer, time.time(), number=next_number())
        self._transport = transport
        self._peer = peer
        self._exports = exports
        self._access = access
        self._admission = admission
        self._events = events
        self._timeout = timeout
        self._in_flight, self._figures = in_flight, figures
        self._answering = False
        self._ended_by = self._allowed_by = ""  # who has ended it; the rule by which it has its device
        self._on_import = on_import
        self._on_end = on_end
        self._secured = secured
        self._export: Export | None = None  # reserved for this client
        self._imported: Export | None = None
        self._session: Session | None = None
        self._closing = threading.Lock()
        self._ending = self._closed = False
        self._thread = threading.Thread(target=self._run, name="usbip-connection", daemon=True)

    @property
    def client(self) -> Client:
        """Who it is, and what it has done so far."""
        session = self._session
        return self._client if session is None else session.with_counts(self._client)

    def round_trip(self) -> float | None:
        """Seconds that a packet takes to the client and back; None where the system does not know."""
        with self._closing:  # so that the thread cannot have closed the transport
            return None if self._closed else self._transport.round_trip()

    def start(self) -> None:
        """Raises RuntimeError if no thread can be had."""
        self._thread.start()
        disown_in_children(self)

    def forked(self) -> None:
        """In a child process, which does not serve it: the connection ends when the parent closes it."""
        self._ending = self._closed = True
        self._transport.close()

    def end(self, reason: str = "", by: str = "server", rule: str = "", *, logged: bool = True) -> None:
        """Disconnect the client, from any thread; the connection's thread does the rest.

        reason, by, rule: why, who causes it, and by which rule; for the events, and for the log if `logged`.
        """
        with self._closing:
            if reason and not self._ended_by and not self._closed:  # before the thread learns of it, and is faster
                self._ended_by = by
                self._report_end(reason, rule, logged=logged)
        self._ending = True
        session = self._session  # its thread may give it up meanwhile
        if session is not None:
            session.break_off()
        with self._closing:  # so that the thread cannot have closed the transport
            if self._closed:
                return
            if self._answering:  # no client may take half an answer for all of it
                self._transport.reset_on_close()
            self._transport.shut_down()

    def check(self, by: str) -> None:
        """Disconnect the client if it may not have its device any more. by: who causes it. From any thread."""
        export, busid = self._export, self._client.busid
        if export is None or not busid:  # `_import` asks once more when it has one
            return
        decision = self._permission(export.info)
        if not decision:
            self.end(f"{busid}: {decision.reason}", by, decision.rule)

    def join(self, timeout: float) -> None:
        """Wait until it is over, and its device closed; for so many seconds."""
        if self._thread is threading.current_thread():
            return
        self._thread.join(timeout)
        if self._thread.is_alive():
            log.error("client %s: its device %s cannot be closed in time", self._peer, self._client.busid or "")

    # -- its thread

    def _run(self) -> None:
        try:
            session = self._operation() if self._secured is None or self._is_secured(self._secured) else None
            if session is not None:
                self._urbs(session)
        except RemoteProtocolError as error:
            self.end(str(error))
        except OSError as error:
            log.info("the connection of client %s ended: %s", self._peer, error.strerror or error)
        except Exception:
            log.exception("client %s is disconnected by an internal error", self._peer)
        finally:
            self._finish()

    def _is_secured(self, secured: Secured) -> bool:
        """After the handshake: whether the client may go on. Raises OSError, TimeoutError."""
        try:
            found = secured(self._transport, self._peer, self._timeout)
        except OSError as error:
            reason = "no handshake in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
            self._emit(events.REFUSED, WARNING, text=reason, by="server")
            raise OSError(error.errno, reason) from None
        if found is None:
            return False
        with self._closing:
            self._transport, self._peer = found
        self._client = self._client._replace(peer=self._peer)
        return self._admission.permits(self._peer)

    def _operation(self) -> Session | None:
        """The client's OP request and its answer, in bounded time; the session of a device that was imported."""
        self._emit(events.CONNECTED)
        conn = ServerConnection()
        deadline = time.monotonic() + self._timeout
        while data := self._received(deadline):
            for event in conn.receive_data(data):
                if isinstance(event, DevlistRequested):
                    self._answer(conn.devlist([info for info in self._exports.free() if self._seen(info)]))
                    self._emit(events.LISTED)
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
        self._answering = True
        try:
            send_by(self._transport, data, time.monotonic() + self._timeout, lambda: self._ending)
        except BaseException:
            self._transport.reset_on_close()
            raise
        self._answering = False

    def _import(self, conn: ServerConnection, busid: str) -> Session | None:
        """A session with the device; None if the import was refused, which was the answer to the client."""
        export = self._exports.find(busid)
        if export is None:
            self._refused(busid, None, _NO_SUCH_DEVICE)
            self._answer(conn.import_refused(OpStatus.NODEV))
            return None
        status = self._reserve(export)
        session = None if status else self._opened(conn, export)
        if session is not None:
            # Before the client learns of it: whoever it asks to be disconnected finds it, and so does `check`.
            self._client = self._client._replace(busid=busid, imported=time.time())
            status = self._refusal(export)  # what was changed before that has found no session to end
            if not status:
                self._begin(session, export)
                return session
            self._client = self._client._replace(busid="", imported=0.0)
            self._session = None
            session.close()
        self._release()  # before the answer: who gets it may try again at once
        self._answer(conn.import_refused(status or (OpStatus.NODEV if export.removed else OpStatus.DEV_ERR)))
        return None

    def _begin(self, session: Session, export: Export) -> None:
        # Before the client learns of it: who has a device is not given up for others, and events are in their order.
        self._on_import(self)
        log.info("client %s has imported %s", self._peer, session.info)
        self._imported = export
        self._emit(events.IMPORTED, NOTICE, busid=export.info.busid, device=export.device, rule=self._allowed_by)
        session.start(replace(session.info, interfaces=()))

    def _reserve(self, export: Export) -> OpStatus:
        status = self._refusal(export)
        if status:
            return status
        status = self._exports.reserve(export, self._removed)
        if status:
            taken = status == OpStatus.DEV_BUSY
            self._refused(export.info.busid, export, _TAKEN if taken else _NO_SUCH_DEVICE)
        else:
            self._export = export
        return status

    def _refusal(self, export: Export) -> OpStatus:
        """What the client gets if it may not have the device, which is counted and logged; OK if it may."""
        decision = self._permission(export.info)
        if decision:
            self._allowed_by = decision.rule
            return OpStatus.OK
        self._admission.refuse(self._peer, f"{export.info.busid}: {decision.reason}")
        self._refused(export.info.busid, export, decision.reason, decision.rule)
        return decision.status

    def _opened(self, conn: ServerConnection, export: Export) -> Session | None:
        """A session with the reserved device, opened anew; None if it cannot be."""
        try:
            device = export.open_device()
        except UsbipError as error:
            log.warning("device %s cannot be imported: %s", export.info.busid, error)
            self._refused(export.info.busid, export, str(error))
            return None
        except Exception:
            log.exception("device %s cannot be imported: opening it failed", export.info.busid)
            self._refused(export.info.busid, export, "opening it failed")
            return None
        try:
            figures = None if self._figures is None else self._figures.of(device.info)
            session = self._session = Session(
                self._transport, conn, device, self.end, self._in_flight, key_of(self._peer.host), figures
            )
        except BaseException:
            device.close()
            raise
        if export.removed:  # asked for after the session is there to be found by `_removed`, which is called after that
            self._session = None
            session.close()
            self._refused(export.info.busid, export, _NO_SUCH_DEVICE)
            return None
        return session

    def _removed(self, reason: str, by: str) -> None:
        """The device is not exported any more. A client that does not have it yet gets an answer."""
        if self._session is not None:
            self.end(reason, by)

    def _permission(self, info: DeviceInfo) -> Decision:
        """Whether the client may have this device; of one that it cannot see, with the status of none."""
        seen = self._seen(info)
        if not seen:
            return seen
        try:
            decision = self._access.may_import(self._peer, info)
        except Exception:
            log.exception("whether client %s may import %s cannot be decided", self._peer, info.busid)
            return Decision(allowed=False)
        if decision:
            return decision._replace(rule=decision.rule or seen.rule)
        return decision._replace(reason=decision.reason or NOT_ALLOWED)

    def _seen(self, info: DeviceInfo) -> Decision:
        try:
            seen = self._access.visible(self._peer, info)
        except Exception:
            log.exception("whether client %s sees device %s cannot be decided", self._peer, info.busid)
            seen = False
        if not isinstance(seen, Decision):
            seen = Decision(bool(seen), NOT_ALLOWED)
        return seen or seen._replace(status=OpStatus.NODEV)

    def _urbs(self, session: Session) -> None:
        receive, handle = self._transport.receive, session.receive
        try:
            while not self._ending:  # what is on its way may come even then
                session.wait()
                try:
                    data = receive(_RECEIVE_SIZE, None)
                except TimeoutError:  # after an hour, perhaps: who only waits for its device may do so
                    continue
                if not data:
                    return
                handle(data)
        finally:
            session.stop_waiting()

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
            self._report_release()
            self._close()
            self._on_end(self)

    # -- what is reported

    def _emit(self, kind: str, severity: int = INFO, **details: str) -> None:
        self._events.emit(kind, severity, peer=self._peer, **details)

    def _refused(self, busid: str, export: Export | None, reason: str, rule: str = "") -> None:
        device = export.device if export is not None else ""
        self._emit(events.REFUSED, WARNING, busid=busid, device=device, text=reason, rule=rule, by="server")

    def _report_end(self, reason: str, rule: str, *, logged: bool) -> None:
        if logged:
            log.warning("client %s is disconnected: %s", self._peer, reason)
        export = self._export
        device = export.device if export is not None else ""
        busid, by = self._client.busid, self._ended_by
        self._emit(events.ENDED, WARNING, busid=busid, device=device, text=reason, rule=rule, by=by)

    def _report_release(self) -> None:
        client, export, by = self.client, self._imported, self._ended_by or "client"
        if export is None or self._session is None:
            self._emit(events.DISCONNECTED, by=by)
            return
        log.info("client %s has released %s", self._peer, self._session.info)
        done = f"{client.urbs} URBs, {client.bytes} bytes"
        self._emit(events.RELEASED, NOTICE, busid=client.busid, device=export.device, text=done, by=by)

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
