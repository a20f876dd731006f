"""The replies to one client: in order, without anybody waiting for it who has other work."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from usbip_capture.net.transport import SEND_TIMEOUT, Transport
from usbip_capture.usb.urb import Buffer

#: Bytes that a client may leave unread. Nothing more is read from one that leaves more than the first of them; one that
#: leaves more than the second, of URBs that were pending already, is disconnected.
CROWDED, MAX_UNSENT = 1 << 20, 64 << 20
#: Seconds for which a long reply may hold up whoever adds it while the transport takes it: leaving the rest to the
#: writer costs a client that reads as much as that. Not if it took longer than _QUICK for what the writer sent last.
_GRACE, _QUICK = 0.01, 0.05
#: Seconds after which the writer looks whether the connection has ended, which does not wake it.
_LOOK_AGAIN = 0.1
#: Parts that are held for the next ones: one system call takes some more.
_MAX_HELD = 256
#: Bytes that the writer sends at a time, if no part is longer.
_BATCH = 256 << 10


class Replies:
    """Sends replies on `transport`. `lock` is held by whoever makes and adds a reply.

    What the transport takes at once is sent by whoever adds it, as a hand-over to another thread would double a round
    trip; the rest is for the writer, a thread that is started when it is first needed.
    fail: called once, with the lock held, when no further reply can reach the client: with the reason, empty if it is
    gone. Must not wait.
    """

    def __init__(self, transport: Transport, lock: threading.Lock, fail: Callable[[str], None]) -> None:
        self.unsent = 0  # bytes
        self.cut = False  # a reply may be
        self._transport = transport
        self._send_now = transport.send_now
        self._fail = fail
        self._parts: deque[Buffer] = deque()
        self._held: list[Buffer] = []
        self._changed = threading.Condition(lock)
        self._failed = False
        self._queued_at = 0.0  # when the first of what is unsent was
        self._grace = _GRACE
        self._writer: threading.Thread | None = None

    def hold(self, parts: list[Buffer]) -> None:
        """Add one reply that leaves with the next one, or with what `send` sends. The lock is held."""
        self._held += parts
        if len(self._held) >= _MAX_HELD:
            self.send([])

    def send(self, parts: list[Buffer]) -> None:
        """Add one reply, or none, and have all leave. The lock is held."""
        if self._held:
            parts, self._held = self._held + parts, []
        if not parts:
            return
        if not self.unsent:
            try:
                sent = self._send_now(parts, self._grace)
            except BlockingIOError:
                sent, parts = 0, [b"".join(parts)]  # as what is sent next may not be shorter
            except OSError:
                self._give_up("")
                return
            if sent == sum(map(len, parts)):
                return
            parts = _after(parts, sent)
            self._queued_at = time.monotonic()
        self._queue(parts)

    def wait_for_room(self) -> None:
        """Wait until the client has read what it should have. For the thread that reads its requests."""
        with self._changed:
            self._changed.wait_for(lambda: self.unsent <= CROWDED or self._failed)

    def break_off(self) -> None:
        """Send nothing more: to be called before the transport is shut down. From any thread, `fail` too."""
        if not self._failed:  # else it may be called by `fail`, with the lock held
            with self._changed:
                self._stop()

    def close(self) -> None:
        """The same; the writer has ended when this returns."""
        self.break_off()
        writer = self._writer
        if writer is not None and writer is not threading.current_thread():
            writer.join()

    def _queue(self, parts: list[Buffer]) -> None:
        """Leave what is not sent of these to the writer."""
        if self._failed:
            return
        if self.unsent > MAX_UNSENT:
            self._give_up(f"it leaves more than {MAX_UNSENT >> 20} MiB of replies unread")
            return
        self._parts.extend(parts)
        self.unsent += sum(map(len, parts))
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
            self._stop()
            self._fail(reason)

    def _stop(self) -> None:
        """Send nothing more. The lock is held.

        What was not sent may be half a reply, of which no client may wait for the rest, nor take it for whole: the
        connection is broken then, and not ended.
        """
        if self.unsent and not self._failed:
            self.cut = True
            self._transport.reset_on_close()
        self._failed = True
        self._parts.clear()
        self._held.clear()
        self.unsent = max(self.unsent, 1)  # nothing is sent directly any more
        self._changed.notify_all()

    # -- the writer

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._parts or self._failed)
                failed = self._failed
                if failed:
                    return
                batch = self._batch()
            failure = self._sent(batch)
            with self._changed:
                if failure is not None:
                    self._give_up(failure)
                if self._failed:  # also meanwhile, by others
                    return
                self.unsent -= len(batch)
                if not self.unsent:
                    self._grace = _GRACE if time.monotonic() - self._queued_at < _QUICK else 0.0
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
        deadline = time.monotonic() + SEND_TIMEOUT
        try:
            while batch and not self._failed:
                sent = 0
                if self._transport.wait_to_send(_LOOK_AGAIN) and not self._failed:
                    with suppress(BlockingIOError):  # a transport that has to send something of its own before
                        sent = self._send_now([batch])
                batch = batch[sent:]
                if sent:
                    deadline = time.monotonic() + SEND_TIMEOUT
                elif time.monotonic() >= deadline:
                    return f"it has read nothing for {SEND_TIMEOUT:g} s"
        except OSError:
            return ""
        except Exception as error:  # noqa: BLE001  reported as the reason
            return f"internal error: {error!r}"
        return None


def _after(parts: list[Buffer], sent: int) -> list[Buffer]:
    """What is left of these when `sent` bytes have been sent."""
    rest: list[Buffer] = []
    for part in parts:
        if sent < len(part):
            rest.append(memoryview(part)[sent:] if sent else part)
        sent = max(sent - len(part), 0)
    return rest
