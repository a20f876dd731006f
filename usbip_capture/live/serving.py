"""Subscribers of a local channel: what each asks for, and what it gets, on a thread of its own."""

from __future__ import annotations

import hmac
import logging
import socket
import threading
import time
from abc import ABC, abstractmethod

from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import CaptureError, RemoteProtocolError, UsbipError
from usbip_capture.filters.language import parse
from usbip_capture.live import messages
from usbip_capture.live.messages import Lines, Message
from usbip_capture.live.socket_sink import SocketSink
from usbip_capture.net import connecting as net
from usbip_capture.net.listening import Peer, receive_by

log = logging.getLogger(__name__)

#: Seconds in which the one who joins must have sent what it wants.
_GREETING_TIMEOUT = 5.0
#: Seconds between two looks whether anything has changed; the state is sent anew after so many of them.
_LOOK, _LOOKS = 0.2, 5
_LEAVE_TIMEOUT = 10.0
_RECEIVE_SIZE = 4096


class Source(ABC):
    """What is offered. Its methods are called from threads of the channel."""

    @abstractmethod
    def begin(self, writer: PcapWriter) -> object:
        """Capture into `writer`; returns what `end` is to be called with."""

    @abstractmethod
    def end(self, capture: object) -> None:
        """Nothing more goes into that capture when this returns."""

    @abstractmethod
    def state(self) -> Message:
        """Its state, in JSON's types."""

    @abstractmethod
    def drop(self, number: int) -> None:
        """Break off a client."""

    @abstractmethod
    def stop(self) -> None:
        """End all of it, soon. Raises UsbipError if it is not ended from here."""


class Subscribers:
    """All who have joined a channel. captures: by their number."""

    def __init__(self, source: Source, token: str) -> None:
        self.captures: dict[int, PcapWriter] = {}
        self._source = source
        self._token = token
        self._last = 0
        self._threads: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()
        self._leaving = threading.Event()

    def __len__(self) -> int:
        return len(self._threads)

    def serve(self, sock: socket.socket, peer: Peer) -> None:
        """Serve one on a thread of its own; the socket is ours if this returns. Raises RuntimeError: no thread."""
        thread = threading.Thread(target=self._serve, args=(sock,), name="usbip-subscriber", daemon=True)
        with self._lock:
            thread.start()
            self._threads[thread] = sock
        log.debug("client %s joins", peer)

    def leave(self) -> None:
        """Complete all captures, end all connections."""
        self._leaving.set()
        with self._lock:
            threads = list(self._threads)
        deadline = time.monotonic() + _LEAVE_TIMEOUT
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(deadline - time.monotonic(), 0))

    def forked(self) -> None:
        """In a child process: connections are its parent's, and end when that one ends them."""
        for sock in list(self._threads.values()):
            sock.close()
        self._threads.clear()
        self.captures.clear()

    # -- one of them

    def _serve(self, sock: socket.socket) -> None:
        try:
            lines = Lines()
            request = self._greeting(sock, lines)
            want = request.get("want")
            if want == "capture":
                self._capture(sock, request, lines)
            elif want == "state":
                messages.send(sock, {"ok": True})
                self._send_state(sock, lines)
            elif want == "stop":
                self._source.stop()
                messages.send(sock, {"ok": True})
                # Who asked takes the end of this connection for ours.
                while not self._leaving.is_set() and _receive(sock, lines) is not None:
                    pass
            else:
                raise RemoteProtocolError(f"{want!r} is not offered on the channel: is it of the same version?")
        except UsbipError as error:
            log.info("one who joined: %s", error)
            self._refuse(sock, str(error))
        except OSError as error:
            log.info("one who joined is gone: %s", error)
        except Exception:
            log.exception("one who joined was disconnected by an internal error")
        finally:
            sock.close()
            with self._lock:
                self._threads.pop(threading.current_thread(), None)

    def _greeting(self, sock: socket.socket, lines: Lines) -> Message:
        deadline = time.monotonic() + _GREETING_TIMEOUT
        while True:
            data = receive_by(sock, deadline, _RECEIVE_SIZE)
            if not data:
                raise RemoteProtocolError("it left without a word")
            found = lines.feed(data)
            if found:
                request, *lines.early = found
                sock.settimeout(_GREETING_TIMEOUT)
                if not hmac.compare_digest(messages.text(request, "token").encode(), self._token.encode()):
                    raise RemoteProtocolError("the token is wrong: join what is listed for this user")
                return request

    def _refuse(self, sock: socket.socket, sentence: str) -> None:
        try:
            sock.setblocking(False)
            messages.send(sock, {"error": sentence})
        except OSError:
            pass

    def _capture(self, sock: socket.socket, request: Message, lines: Lines) -> None:
        ended = threading.Event()
        with self._lock:
            self._last += 1
            number = self._last
        sink = SocketSink(sock, f"capture {number}")
        writer = None
        try:
            # The writer's first bytes follow the answer: a filter that is wrong is refused before.
            capture_filter = messages.text(request, "capture_filter")
            parse(capture_filter)
            messages.send(sock, {"ok": True, "capture": number})
            writer = PcapWriter(
                sink,
                snaplen=messages.number(request, "snaplen"),
                capture_filter=capture_filter,
                max_packets=messages.number(request, "max_packets"),
                record_unlinks=bool(messages.number(request, "record_unlinks")),
                on_end=lambda reason: ended.set(),
            )
            self.captures[number] = writer
            capture = self._source.begin(writer)
            try:
                self._follow(sock, writer, lines, ended)
            finally:
                self._source.end(capture)
        finally:
            self.captures.pop(number, None)
            if writer is not None:
                _close(writer)

    def _follow(self, sock: socket.socket, writer: PcapWriter, lines: Lines, ended: threading.Event) -> None:
        """Until somebody ends the capture."""
        while not ended.is_set() and not self._leaving.is_set():
            received = _receive(sock, lines)
            if received is None:
                return
            for message in received:
                if message.get("end"):
                    return
                if comment := messages.text(message, "comment"):
                    writer.comment(comment)

    def _send_state(self, sock: socket.socket, lines: Lines) -> None:
        sent: Message = {}
        looks = 0
        while not self._leaving.is_set():
            state: Message = {**self._source.state(), "captures": self._counts()}
            if state != sent or looks >= _LOOKS:
                sock.settimeout(_GREETING_TIMEOUT)
                messages.send(sock, state)
                sent, looks = state, 0
            looks += 1
            received = _receive(sock, lines)
            if received is None:
                return
            for message in received:
                if "drop" in message:
                    self._source.drop(messages.number(message, "drop"))

    def _counts(self) -> dict[str, dict[str, int]]:
        """Of each capture, by its number as text."""
        return {
            str(number): {
                "urbs": writer.urbs, "bytes": writer.bytes, "received": writer.received, "dropped": writer.dropped,
                "filtered": writer.filtered, "written": writer.written,
            }
            for number, writer in list(self.captures.items())
        }  # fmt: skip


def _receive(sock: socket.socket, lines: Lines) -> list[Message] | None:
    """What was received within _LOOK; None when the other end is gone."""
    if lines.early:
        found, lines.early = lines.early, []
        return found
    if not net.readable(sock, _LOOK):
        return []
    try:
        data = sock.recv(_RECEIVE_SIZE)
    except BlockingIOError:
        return []
    except OSError:
        return None
    return lines.feed(data) if data else None


def _close(writer: PcapWriter) -> None:
    try:
        writer.close()
    except CaptureError as error:
        log.info("a capture that was joined: %s", error)
