"""A device on a USB/IP server.

Whoever waits for a transfer reads the socket for all (the leader); others that wait meanwhile (followers) are woken
by it, and the first of them leads when it is done. So a single thread never hands over to another one, which costs
two to three times the round trip. Transfers that nobody waits for are read by a thread of the device's own.

A `done` callback must not wait for transfers of the same device: it runs where its thread reads for all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from usbip_capture.device import Device, Transfer
from usbip_capture.errors import LocalProtocolError, RemoteProtocolError
from usbip_capture.net.connecting import exchange
from usbip_capture.net.transport import Transport
from usbip_capture.system.forks import Inheritance
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.status import ECONNRESET, ENOMEM, ESHUTDOWN
from usbip_capture.usb.urb import Buffer, Completion
from usbip_capture.wire.client import OWN_BUFFER, ClientConnection
from usbip_capture.wire.operations import ImportExchange
from usbip_capture.wire.replies import unlinked

log = logging.getLogger(__name__)

_get_ident: Final = threading.get_ident
#: Seconds after which a thread that reads for all looks whether its own transfer was finished otherwise.
_LOOK_AGAIN = 1.0
#: Seconds that `close` waits for the server to answer CMD_UNLINKs.
_UNLINK_PATIENCE = 0.1


def import_device(transport: Transport, busid: str, timeout: float) -> RemoteDevice:
    """Import a device; the connection is its own from now on. Raises UsbipError and closes `transport`."""
    try:
        request = ImportExchange(busid)
        exchange(transport, request, timeout)
        if request.info is None:
            raise RemoteProtocolError(f"{transport.peer}: the import of {busid} was answered without a device")
        return RemoteDevice(transport, request.info)
    except BaseException:
        transport.close()
        raise


class RemoteDevice(Device):
    """An imported device. `lost` is why its connection ended, None while it lives."""

    def __init__(self, transport: Transport, info: DeviceInfo) -> None:
        self.info = info
        self.where = transport.peer
        self.lost: str | None = None
        self._ended = False  # nothing is submitted any more: it is lost, or being closed
        self._closed, self._unlinked_at = False, 0.0
        self._conn: ClientConnection = ClientConnection(info.devid)
        self._conn.on_ret_unlink, self._deliver = self._ret_unlink, self._finish
        self._transport = transport
        self._sending, self._reading, self._starting = threading.Lock(), threading.Lock(), threading.Lock()
        self._reads = 0  # the thread that took `_reading` last
        self._followers: dict[Transfer, None] = {}
        self._unawaited: dict[Transfer, None] = {}
        self._on_lost: Callable[[str], None] | None = None
        self._reader: threading.Thread | None = None
        self._reader_due = threading.Event()
        self._inheritance = Inheritance(self.forked)

    def __repr__(self) -> str:
        return f"<RemoteDevice {self.info} at {self.where}>"

    @property
    def alive(self) -> bool:
        return not self._ended

    @property
    def loss(self) -> str:
        return self.lost or ""

    def submit(self, transfer: Transfer) -> None:
        ended = self._ended
        if ended:
            transfer.finish(unlinked(transfer.urb, -ESHUTDOWN))
            return
        if not transfer.awaited:
            if self._reader is None and not self._start_reader():
                transfer.finish(unlinked(transfer.urb, -ENOMEM))
                return
            self._unawaited[transfer] = None
        try:
            with self._sending:  # what is pending was sent: no CMD_UNLINK overtakes it
                ended = self._ended
                if not ended:
                    _, parts = self._conn.submit(transfer.urb, transfer, transfer.into)
                    self._transport.send(parts)
        except LocalProtocolError:
            self._unawaited.pop(transfer, None)
            raise
        except OSError as error:
            self._lose(f"the connection to {self.where} broke: {error.strerror or error}")
        else:
            if ended:  # meanwhile, by another thread: if by us, it counts as in flight then
                self._finish(transfer, unlinked(transfer.urb, -ECONNRESET if self.closed else -ESHUTDOWN))
                return
        if self.lost is not None:
            self._fail_pending()  # it may have come too late for the one that found the loss
        elif not transfer.awaited:
            self._reader_due.set()

    def cancel(self, transfer: Transfer) -> None:
        with self._sending:
            message = self._conn.unlink(transfer)
        if message is not None and self.lost is None:
            if self.on_unlink is not None:
                self.on_unlink(message, transfer)
            self._send([message])
            self._unlinked_at = time.monotonic()

    def abandon(self, transfer: Transfer) -> None:
        if self._conn.forget(transfer):
            self._finish(transfer, unlinked(transfer.urb))

    def wait(self, transfer: Transfer, timeout: float | None = None) -> bool:
        completion = transfer.completion
        if completion is not None:
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        conn, into = self._conn, transfer.into
        while True:
            if self._reading.acquire(False) or self._follow(transfer, timeout):
                self._reads = _get_ident()
                try:
                    is_out = transfer.awaited and transfer.completion is None  # a leader before us may have finished it
                    if is_out and not self._ended and (into is None or len(into) < OWN_BUFFER):
                        # The straight path: what comes next is our reply. As `_receive`, with no call more than needed.
                        size, limit = 0, _LOOK_AGAIN if timeout is None or timeout > _LOOK_AGAIN else timeout
                        try:
                            size = self._transport.receive_into(conn.free, limit)
                            if not size:
                                self._lose(self._end_of_stream())
                            elif (completion := conn.received(size, self._deliver, transfer)) is not None:
                                transfer.finish(completion)
                        except (OSError, RemoteProtocolError) as error:
                            self._receiving_failed(error)
                        except BaseException:
                            self._interrupted(size)
                            raise
                        if transfer.completion is None and deadline is not None:
                            timeout = max(deadline - time.monotonic(), 0.0)
                    if transfer.completion is None:
                        self._lead(transfer, timeout, deadline)
                finally:
                    if conn.borrowed:  # from now on the memory is the caller's alone
                        conn.divert()
                    self._reading.release()
                    if self._followers:
                        self._promote()
                if self.lost is not None:
                    self._clear_up()
            if transfer.completion is not None:
                return True
            if deadline is not None:
                timeout = deadline - time.monotonic()
                if timeout <= 0:
                    return False

    def watch(self, on_lost: Callable[[str], None]) -> None:
        """Read the connection even while nothing is pending; call `on_lost` with the reason when it ends."""
        self._on_lost = on_lost
        if not self._start_reader():
            self._lose(f"device {self.info} of {self.where} cannot be watched: this system starts no further thread")
        elif self.lost is not None:
            on_lost(self.lost)
        else:
            self._reader_due.set()

    def forked(self) -> None:
        """In a child process: the connection stays its parent's."""
        self.lost = f"device {self.info} of {self.where} belongs to the process that this one was forked from"
        self._ended = self._closed = True
        self._sending, self._reading, self._starting = threading.Lock(), threading.Lock(), threading.Lock()
        self._reader = None
        self._conn.take_pending()  # no thread is left that waits for them
        self._release_connection()

    def close(self) -> None:
        with self._starting:
            ours, self._ended = not self._ended, True
            self.closed = self.closed or ours
        if self.closed and not ours and self._is_read_here():
            return  # what is closed already comes here while it waits for the server, which goes on with it
        try:
            if ours:
                self._unlink_all()
        finally:
            self._lose(f"device {self.info} was released to {self.where}")
        self._closed = True
        reader = self._reader
        if reader is not None and not self._is_read_here():
            reader.join()
        self._release_connection()

    # -- reading

    def _is_read_here(self) -> bool:
        """Whether this thread reads for all: called by what a transfer of ours has finished, callback or finalizer."""
        here = threading.get_ident()
        return (self._reads == here and self._reading.locked()) or (
            self._reader is not None and self._reader.ident == here
        )

    def _follow(self, transfer: Transfer, timeout: float | None) -> bool:
        """Wait until the leader has finished `transfer`, or makes us lead. True: we are to read, `_reading` is held."""
        transfer.arm()
        self._followers[transfer] = None
        if self._reading.acquire(blocking=False):  # the leader may have gone before it could see us, and wake nobody
            self._followers.pop(transfer, None)
            return True
        transfer.sleep(timeout)
        self._followers.pop(transfer, None)
        if not self._reading.locked():
            self._promote()  # we may have been woken to lead, and need not any more
        return False

    def _lead(self, transfer: Transfer, timeout: float | None, deadline: float | None) -> None:
        """Read for all until `transfer` is finished; `_reading` is held."""
        completion = transfer.completion
        while completion is None and self.lost is None:
            self._receive(_LOOK_AGAIN if timeout is None or timeout > _LOOK_AGAIN else timeout, transfer)
            completion = transfer.completion  # another thread may set it between two looks
            if deadline is not None and completion is None:
                timeout = deadline - time.monotonic()
                if timeout <= 0:
                    break

    def _promote(self) -> None:
        for follower in list(self._followers):
            if follower.completion is None:
                follower.wake()
                break

    def _receive(self, timeout: float | None, waiting: Transfer | None = None) -> None:
        """Take what arrives within `timeout` seconds, or a little earlier. `waiting`: whose thread this is."""
        conn, size, completion = self._conn, 0, None
        try:
            apart = conn.scatter(waiting) if waiting is not None and waiting.into is not None else None
            if apart is None:
                size = self._transport.receive_into(conn.free, timeout)
            else:
                size = self._transport.receive_scattered(apart, timeout)
            if not size:
                self._lose(self._end_of_stream())
            elif apart is None:
                completion = conn.received(size, self._finish, waiting)
            elif waiting is not None:
                completion = conn.scattered(apart, size, self._finish, waiting)
            if completion is not None and waiting is not None:
                self._finish(waiting, completion)
        except (OSError, RemoteProtocolError) as error:
            self._receiving_failed(error)
        except BaseException:
            self._interrupted(size)
            raise

    def _receiving_failed(self, error: OSError | RemoteProtocolError) -> None:
        if isinstance(error, RemoteProtocolError):
            self._lose(f"{self.where}: {error}")
        elif not isinstance(error, TimeoutError):
            self._lose(f"the connection to {self.where} broke: {error.strerror or error}")

    def _interrupted(self, size: int) -> None:
        """By Ctrl-C: `size` bytes were received, may be half done with, and nobody can go on from there."""
        if size:
            self._lose(f"this program was interrupted while it took a reply of {self.where}")

    def _end_of_stream(self) -> str:
        if self._conn.in_message():
            return f"{self.where} closed the connection in the middle of a message"
        return f"{self.where} closed the connection of device {self.info}"

    def _start_reader(self) -> bool:
        """Have a thread that reads while something is due; False if there is none to be had."""
        with self._starting:
            if self._reader is None:
                name = f"usbip-reader-{self.info.busid}"
                reader = threading.Thread(target=self._read_for_all, name=name, daemon=True)
                try:
                    reader.start()
                except RuntimeError as error:
                    log.warning("%s: no thread to read with: %s", self.info, error)
                    return False
                self._reader = reader
        return True

    def _read_for_all(self) -> None:
        while not self.loss:
            self._reader_due.wait()
            self._reader_due.clear()
            with self._reading:
                self._reads = threading.get_ident()
                while self.lost is None and not self.closed and (self._unawaited or self._on_lost):
                    self._receive(None)
            self._promote()
        self._clear_up()

    def _ret_unlink(self, message: bytes) -> None:
        if self.on_unlink is not None:
            self.on_unlink(message, None)

    # -- ending

    def _unlink_all(self) -> None:
        """CMD_UNLINK for what is pending, and a moment for the answers.

        A server that is left without having answered may do so in its next connection. Ref: Linux
        drivers/usb/usbip/vudc_tx.c, whose queue outlives the connection
        """
        if self._sending.acquire(timeout=_UNLINK_PATIENCE):
            try:
                messages = []
                for transfer in self._conn.not_unlinked():
                    message = self._conn.unlink(transfer)
                    if message is not None:
                        messages.append(message)
                        if self.on_unlink is not None:
                            self.on_unlink(message, transfer)
                if messages:
                    # A server that takes nothing now does not hold up the end of the connection.
                    self._transport.send_now([b"".join(messages)])
                    self._unlinked_at = time.monotonic()
            except OSError as error:
                log.debug("%s: not unlinked: %s", self.info, error)
            finally:
                self._sending.release()
        if not self._is_read_here():
            self._await_unlinks(self._unlinked_at + _UNLINK_PATIENCE)

    def _await_unlinks(self, deadline: float) -> None:
        """Read until each CMD_UNLINK was answered; what is waited for by other threads is finished on the way."""
        conn = self._conn
        while conn.unanswered_unlinks and not self.loss and (left := deadline - time.monotonic()) > 0:
            if not self._reading.acquire(timeout=left):
                return
            self._reads = threading.get_ident()
            try:
                while conn.unanswered_unlinks and self.lost is None and (left := deadline - time.monotonic()) > 0:
                    self._receive(left)
            finally:
                self._reading.release()

    def _release_connection(self) -> None:
        """Close the connection once nobody is in a call of it: whoever reads now does it afterwards."""
        if self._reading.acquire(blocking=False):
            with self._sending:
                self._transport.close()
            self._reading.release()

    def _finish(self, transfer: Transfer, completion: Completion) -> None:
        if not transfer.awaited:
            self._unawaited.pop(transfer, None)
        transfer.finish(completion)

    def _send(self, parts: list[Buffer]) -> None:
        try:
            with self._sending:
                self._transport.send(parts)
        except OSError as error:
            self._lose(f"the connection to {self.where} broke: {error.strerror or error}")

    def _lose(self, reason: str) -> None:
        """The connection is over: wake whoever reads or sends, finish all that waits."""
        with self._starting:
            if self.lost is not None:
                return
            self._ended = True
            self.lost = reason
        self._transport.shut_down()
        self._reader_due.set()
        self._fail_pending()
        if self._on_lost is not None and not self.closed:
            try:
                self._on_lost(reason)
            except Exception:
                log.exception("what was to be called when %s was lost failed", self.info)

    def _clear_up(self) -> None:
        """After who has read for all found that the connection is lost, or was closed meanwhile."""
        self._fail_pending()
        if self._closed:
            self._release_connection()

    def _fail_pending(self) -> None:
        status = -ECONNRESET if self.closed else -ESHUTDOWN  # our own end is not the loss of the device
        for urb, transfer in self._conn.take_pending():
            self._finish(transfer, unlinked(urb, status))
        self._promote()
