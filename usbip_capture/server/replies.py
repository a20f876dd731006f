"""The replies to one client: in order, without anybody waiting for it who has other work."""

from __future__ import annotations

import select
import socket
import threading
from collections import deque
from collections.abc import Callable

from usbip_capture.net.connecting import SEND_TIMEOUT
from usbip_capture.usb.urb import Buffer

#: Bytes that a client may leave unread. Nothing more is read from one that leaves more than the first of them; one that
#: leaves more than the second, of URBs that were pending already, is disconnected.
CROWDED, MAX_UNSENT = 1 << 20, 64 << 20
#: Parts from this size on are sent as they are; below it joining them costs less than a longer system call.
_JOIN_BELOW = 16 << 10
#: Bytes that the writer sends at a time, if no part is longer.
_BATCH = 256 << 10


class Replies:
    """Sends replies on `sock`, whose time-out for sending is set. `lock` is held by whoever makes and adds a reply.

    What the socket takes at once is sent by whoever adds it, as a hand-over to another thread would double a round
    trip; the rest is for the writer, a thread that is started when it is first needed.
    fail: called once, with the lock held, when no further reply can reach the client: with the reason, empty if it is
    gone. Must not wait.
    """

    def __init__(self, sock: socket.socket, lock: threading.Lock, fail: Callable[[str], None]) -> None:
        self.unsent = 0  # bytes
        self._sock = sock
        self._fail = fail
        self._parts: deque[Buffer] = deque()
        self._changed = threading.Condition(lock)
        self._failed = False
        self._writer: threading.Thread | None = None
        # A socket with a time-out of Python's waits whatever the flags are.
        self._asks_first = sock.gettimeout() is not None or not hasattr(socket, "MSG_DONTWAIT")
        self._flags: int = getattr(socket, "MSG_DONTWAIT", 0)

    def send(self, parts: list[Buffer]) -> None:
        """Add one reply. The lock is held."""
        if self._failed:
            return
        sent = 0
        if not self.unsent:
            try:
                sent = self._send_now(parts)
            except BlockingIOError:
                pass
            except OSError:
                self._give_up("")
                return
            if sent < 0:
                return
        elif self.unsent > MAX_UNSENT:
            self._give_up(f"it leaves more than {MAX_UNSENT >> 20} MiB of replies unread")
            return
        self._queue(parts, sent)

    def wait_for_room(self) -> None:
        """Wait until the client has read what it should have. For the thread that reads its requests."""
        with self._changed:
            self._changed.wait_for(lambda: self.unsent <= CROWDED or self._failed)

    def close(self) -> None:
        """Send nothing more; the writer has ended when this returns. The socket is shut down before."""
        with self._changed:
            self._failed = True
            self._parts.clear()
            self._changed.notify_all()
        writer = self._writer
        if writer is not None and writer is not threading.current_thread():
            writer.join()

    def _send_now(self, parts: list[Buffer]) -> int:
        """What the socket takes now, in bytes; -1 for all. Raises BlockingIOError if nothing, OSError."""
        if self._asks_first and not _writable(self._sock):
            return 0
        data: Buffer = parts[0]
        size = len(data)
        if len(parts) > 1:
            size = sum(map(len, parts))
            if size >= _JOIN_BELOW and hasattr(self._sock, "sendmsg"):
                sent = self._sock.sendmsg(parts, (), self._flags)
                return -1 if sent == size else sent
            data = b"".join(parts)
        sent = self._sock.send(data, self._flags)
        return -1 if sent == size else sent

    def _queue(self, parts: list[Buffer], sent: int) -> None:
        for part in parts:
            if sent < len(part):
                rest = memoryview(part)[sent:] if sent else part
                self._parts.append(rest)
                self.unsent += len(rest)
                sent = 0
            else:
                sent -= len(part)
        self._changed.notify_all()
        if self._writer is None:
            writer = threading.Thread(target=self._write, name="usbip-replies", daemon=True)
            try:
                writer.start()
            except RuntimeError as error:
                self._give_up(str(error))
            else:
                self._writer = writer

    def _give_up(self, reason: str) -> None:
        """A message may be cut, so that no other one can follow. The lock is held."""
        if not self._failed:
            self._failed = True
            self._parts.clear()
            self._changed.notify_all()
            self._fail(reason)

    # -- the writer

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._parts or self._failed)
                if self._failed:
                    return
                batch = self._batch()
            failure = self._sent(batch)
            with self._changed:
                if failure is not None:
                    self._give_up(failure)
                    return
                self.unsent -= len(batch)
                self._changed.notify_all()

    def _batch(self) -> memoryview:
        """The next bytes to send. The lock is held, and something is queued."""
        parts = [self._parts.popleft()]
        size = len(parts[0])
        while self._parts and size + len(self._parts[0]) <= _BATCH:
            size += len(self._parts[0])
            parts.append(self._parts.popleft())
        return memoryview(parts[0] if len(parts) == 1 else b"".join(parts))

    def _sent(self, batch: memoryview) -> str | None:
        """Send all of it: None; otherwise why that cannot be, empty if the client is gone."""
        try:
            while batch:
                batch = batch[self._sock.send(batch) :]
        except (BlockingIOError, TimeoutError):
            return f"it has read nothing for {SEND_TIMEOUT:g} s"
        except OSError:
            return ""
        except Exception as error:
            return f"internal error: {error!r}"
        return None


def _writable(sock: socket.socket) -> bool:
    if not hasattr(select, "poll"):  # Windows, where `select` takes every socket
        return bool(select.select([], [sock], [], 0)[1])
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    return bool(poller.poll(0))
