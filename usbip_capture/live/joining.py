"""Joins what another program of this user offers: a capture into a sink of ours, its state, its end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from usbip_capture.capture.sinks import ReaderGone, Sink
from usbip_capture.errors import CaptureError, RemoteProtocolError, ServerLost, UsbipError
from usbip_capture.live import messages
from usbip_capture.live.local_listener import connect_local
from usbip_capture.live.messages import Lines, Message
from usbip_capture.live.registry import Entry
from usbip_capture.net import connecting as net
from usbip_capture.usb.urb import Buffer

#: Why a capture ended: what was captured has.
OVER = "over"
#: Seconds in which the other end must answer.
_TIMEOUT = 5.0
#: Seconds for one that was asked to end: it completes its captures first.
_STOP_TIMEOUT = 30.0
_RECEIVE_SIZE = 256 << 10
#: Seconds between two looks, while nothing comes, whether there is still a reader.
_READER_CHECK = 0.1
#: Seconds for what is on its way to the sink at the end, when the other end sends no more.
_END_TIMEOUT = 2.0


def connect(entry: Entry, want: str, **request: object) -> tuple[socket.socket, Message, bytes]:
    """A connection to what is listed as `entry`, the answer, and what came behind it. Raises UsbipError."""
    try:
        sock = connect_local(entry.address, _TIMEOUT)
    except (OSError, ValueError) as error:
        raise ServerLost(f"{entry.display} is not running any more: start it again") from error
    try:
        messages.send(sock, {"version": messages.VERSION, "token": entry.token, "want": want, **request})
        answer, rest = _answer(sock, entry)
    except OSError as error:
        sock.close()
        raise ServerLost(f"{entry.display} does not answer: wait, or end its process, {entry.pid}") from error
    except UsbipError:
        sock.close()
        raise
    return sock, answer, rest


def _start(thread: threading.Thread, sock: socket.socket) -> None:
    try:
        thread.start()
    except RuntimeError as error:
        sock.close()
        raise CaptureError(f"what runs cannot be joined: {error}: end other programs") from error


def stop(entry: Entry) -> None:
    """End it; returns when it has ended. Raises UsbipError, also if it has not within _STOP_TIMEOUT."""
    sock, _, _ = connect(entry, "stop")
    with sock:
        sock.settimeout(_STOP_TIMEOUT)
        try:
            while sock.recv(_RECEIVE_SIZE):
                pass
        except TimeoutError as error:
            raise ServerLost(
                f"{entry.display} has not ended within {_STOP_TIMEOUT:g} s: wait, or end its process, {entry.pid}"
            ) from error
        except OSError:  # it was broken off: it has ended
            pass


def _answer(sock: socket.socket, entry: Entry) -> tuple[Message, bytes]:
    lines = Lines()
    deadline = time.monotonic() + _TIMEOUT
    while True:
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        data = sock.recv(_RECEIVE_SIZE)
        if not data:
            raise ServerLost(f"{entry.display} has just ended: start it again")
        lines.rest += data
        answer, rest = lines.take()
        if answer is None:
            continue
        if "error" in answer:
            raise RemoteProtocolError(f"{entry.display} refuses: {messages.text(answer, 'error')}")
        sock.settimeout(_TIMEOUT)
        return answer, rest


class JoinedState:
    """The state of what is joined, each time it changes, on a thread of its own; `on_end` when there is no more."""

    def __init__(
        self, entry: Entry, on_state: Callable[[Message], None], on_end: Callable[[], None] = lambda: None
    ) -> None:
        self._on_state = on_state
        self._on_end = on_end
        self._sock, _, rest = connect(entry, "state")
        self._sock.settimeout(None)
        self._lines = Lines()
        self._thread = threading.Thread(target=self._read, args=(rest,), name="usbip-joined-state", daemon=True)
        _start(self._thread, self._sock)

    def drop(self, number: int) -> None:
        """Have it break off a client."""
        try:
            messages.send(self._sock, {"drop": number})
        except OSError:  # it has ended, and all its clients with it
            pass

    def close(self) -> None:
        """No more of it."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _read(self, data: bytes) -> None:
        try:
            while True:
                for state in self._lines.feed(data):
                    self._on_state(state)
                data = self._sock.recv(_RECEIVE_SIZE)
                if not data:
                    break
        except (OSError, RemoteProtocolError):
            pass
        finally:
            self._sock.close()
            self._on_end()


class JoinedCapture:
    """A capture of what is listed as `entry`, into `sink`, which is closed with it. As a PcapWriter is used.

    on_end: called once when it ends by itself: `reader` (nobody reads it any more), `error` (see `error`), `count`
    (there are max_packets) or OVER (what was captured has ended).
    Raises UsbipError if it cannot be joined; the sink is as it was then.
    """

    def __init__(
        self,
        entry: Entry,
        sink: Sink,
        *,
        snaplen: int,
        capture_filter: str,
        max_packets: int,
        record_unlinks: bool = False,
        on_end: Callable[[str], None],
    ) -> None:
        self.error: CaptureError | None = None
        self.loss: UsbipError | None = None  # as of other captures that are joined
        self.counts: dict[str, int] = {}
        self._sink = sink
        self._on_end = on_end
        self._limited = bool(max_packets)
        self._sock, answer, rest = connect(
            entry,
            "capture",
            snaplen=snaplen,
            capture_filter=capture_filter,
            max_packets=max_packets,
            record_unlinks=int(record_unlinks),
        )
        self.number = str(messages.number(answer, "capture"))
        self._closing = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(rest,), name="usbip-joined-capture", daemon=True)
        _start(self._thread, self._sock)

    def comment(self, text: str) -> None:
        """Comment on this moment of the capture."""
        self._send({"comment": text})

    def state_changed(self, state: Message) -> None:
        """The state of what is joined: it has the counts of this capture."""
        captures = state.get("captures")
        counts = captures.get(self.number) if isinstance(captures, dict) else None
        if isinstance(counts, dict):
            self.counts = {name: value for name, value in counts.items() if isinstance(value, int)}

    def close(self, timeout: float | None = None, at_most: float | None = None) -> None:
        """Complete it: what the other end still has comes first. Raises CaptureError if the output has failed."""
        self._closing = True
        self._send({"end": True})
        patience = _END_TIMEOUT if at_most is None else max(at_most + (timeout or 0), 0.3)
        if not self._done.wait(patience):
            self._sink.abort()
            self._shut_down()
            self._done.wait(_END_TIMEOUT)
        if self.error is not None:
            raise self.error

    @property
    def urbs(self) -> int:
        """URBs that came back and were captured."""
        return self.counts.get("urbs", 0)

    @property
    def bytes(self) -> int:
        """Bytes that these URBs moved."""
        return self.counts.get("bytes", 0)

    @property
    def received(self) -> int:
        """Packets offered."""
        return self.counts.get("received", 0)

    @property
    def dropped(self) -> int:
        """Packets that found no room."""
        return self.counts.get("dropped", 0)

    @property
    def filtered(self) -> int:
        """Packets that the capture filter did not let pass."""
        return self.counts.get("filtered", 0)

    @property
    def written(self) -> int:
        """Packets in the output."""
        return self.counts.get("written", 0)

    def _send(self, message: Message) -> None:
        try:
            messages.send(self._sock, message)
        except OSError:  # it has ended: then nothing is to be sent
            pass

    def _shut_down(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _run(self, data: Buffer) -> None:
        reason = "count" if self._limited else OVER
        try:
            self._copy(data)
        except ReaderGone:
            reason = "reader"
        except CaptureError as error:
            reason, self.error = "error", None if self._closing else error
        except OSError:
            pass  # it was killed: what came until then is kept
        self._sock.close()
        try:
            self._sink.close()
        except ReaderGone:
            pass
        except CaptureError as error:
            self.error = self.error or error
        self._done.set()
        if not self._closing:
            self._on_end(reason)

    def _copy(self, data: Buffer) -> None:
        while True:
            if data:
                self._sink.write([data])
            while not net.readable(self._sock, _READER_CHECK):
                if self._sink.reader_gone():
                    raise ReaderGone(f"the reader of {self._sink.name} is gone")
            data = self._sock.recv(_RECEIVE_SIZE)
            if not data:
                return
