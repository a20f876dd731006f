"""A transport that encrypts what another one carries.

Python's `ssl` runs in memory only: what comes and goes is the inner transport's, with its time-outs and its way to
wake who waits. OpenSSL takes one thread at a time for each connection, which is never one that waits.
Ref: RFC 8446 (TLS 1.3); OpenSSL, SSL_read(3), SSL_write(3), SSL_shutdown(3)
"""

from __future__ import annotations

import errno
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from usbip_capture.net.transport import CarrierFailed, NonBlocking, Transport
from usbip_capture.usb.urb import Buffer

#: Bytes that are encrypted at a time: a message with 64 KiB of data is one piece.
_PIECE = 256 << 10
#: Bytes of a record at most. Ref: RFC 8446, 5.1
_RECORD = 16 << 10
#: Bytes that are received at a time: few at first, so that connections without much to do need little memory.
_FIRST_RECEIVE, _MAX_RECEIVE = 4 << 10, 256 << 10
#: Bytes at a time where that is a new object each time: longer ones are not kept for the next one by C libraries.
_RECEIVE_SIZE = 64 << 10
#: Seconds that a time-out may be late where a record comes in parts: another one for the rest costs a system call.
_LATE = 0.02
#: Why a handshake has failed, as words for a person. Ref: RFC 8446, 6.2
_ALERTS = {
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the certificate of this machine: pair with it again",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate: pair with it",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not take the certificate of this machine: pair with it again",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the certificate of this machine is out of date for it: compare both clocks",
    "TLSV1_ALERT_PROTOCOL_VERSION": "both sides have no version of TLS in common",
    "UNSUPPORTED_PROTOCOL": "it offers no version of TLS that is still good: 1.2 is needed",
    "WRONG_VERSION_NUMBER": "it does not speak TLS: is that the port of a server's --tls?",
    "HTTP_REQUEST": "it speaks HTTP and not TLS",
}


class TlsTransport(Transport):
    """TLS around `inner`, which is its own from now on. `handshake` comes first.

    context: whose side, and whom it trusts. server_name: what a client calls the server.
    """

    def __init__(
        self, inner: Transport, context: ssl.SSLContext, *, server_side: bool = False, server_name: str | None = None
    ) -> None:
        self.peer = inner.peer
        self._inner = inner
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._coming, self._going, server_side, server_name)
        self._using = threading.Lock()  # of OpenSSL; never held while something waits
        self._sending = threading.Lock()  # so that records leave in the order in which they are made
        self._received = memoryview(bytearray(_FIRST_RECEIVE))  # what has come last, encrypted
        self._starved = True  # nothing that has come can be decrypted
        self._early = memoryview(b"")  # decrypted before somebody receives it
        self._ends_early = False  # after that there is the end, or an error, of which nobody knows yet
        self._owed = b""  # encrypted, and not sent
        self._held = 0  # bytes that were encrypted, and that our caller does not know as sent
        self._shaken = False  # the handshake is done
        self._resets = False

    def handshake(self, timeout: float) -> None:
        """Raises OSError, with what has failed in words; TimeoutError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                with self._using:
                    self._tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                with suppress(OSError):
                    self._send_answers()  # an alert
                raise self._broken(error) from None
            else:
                self._send_answers()
                self._starved = not self._coming.pending
                self._shaken = True
                return
            self._send_answers()
            self._receive(timeout, deadline)

    @property
    def certificate(self) -> bytes:
        """The peer's, in DER; empty if it has none."""
        return self._tls.getpeercert(binary_form=True) or b""

    @property
    def subject(self) -> dict[str, object]:
        """What the peer's certificate is about, if it was verified. Ref: Python's ssl.SSLSocket.getpeercert"""
        return dict(self._tls.getpeercert() or {})

    @property
    def protocol(self) -> str:
        """What both sides have agreed on by ALPN; empty if on nothing. Ref: RFC 7301"""
        return self._tls.selected_alpn_protocol() or ""

    # -- receiving

    def receive_into(self, buffer: memoryview, timeout: float | None) -> int:
        deadline = 0.0
        while True:
            if not self._starved:
                got = self._decrypt_into(buffer)
                if got is not None:
                    return got
            deadline = self._receive(timeout, deadline)

    def receive(self, size: int, timeout: float | None) -> bytes:
        deadline = 0.0
        while True:
            if not self._starved:
                data = self._decrypted(size)
                if data is not None:
                    return data
            deadline = self._receive(timeout, deadline)

    def _receive(self, timeout: float | None, deadline: float) -> float:
        """Wait for something that OpenSSL can use; by when, 0 if that is not known yet. Raises OSError, TimeoutError.

        Each wait but the first is for the rest of a record.
        """
        left = timeout
        if not deadline:
            deadline = time.monotonic() + (3600.0 if timeout is None else timeout)
        elif timeout is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if left > timeout - _LATE:
                left = timeout
        received = self._received
        size = self._inner.receive_into(received, left)
        self._take(received[:size])
        if size == len(received) < _MAX_RECEIVE:
            self._received = memoryview(bytearray(4 * size))
        return deadline

    def _take(self, data: Buffer) -> None:
        """What has come for OpenSSL; nothing is the end of the stream."""
        with self._using:
            if data:
                self._coming.write(data)
            else:
                self._coming.write_eof()
            self._starved = False

    def _decrypted(self, size: int) -> bytes | None:
        """At most `size` bytes, none at the end; None if more has to come first. Raises OSError."""
        # No more can be there: longer memory would have to be cleared. OpenSSL may have most of a record already.
        buffer = memoryview(bytearray(min(size, self._coming.pending + _RECORD)))
        got = self._decrypt_into(buffer)
        return None if got is None else bytes(buffer[:got])

    def _decrypt_into(self, buffer: memoryview) -> int | None:
        """The same: how many bytes were put there."""
        size, got = len(buffer), 0
        read: Callable[[int, memoryview], int] = self._tls.read  # type: ignore[assignment]
        coming = self._coming
        with self._using:
            if self._early:
                return self._take_early(buffer)
            self._ends_early = False
            try:
                got = more = read(size, buffer)  # of one record
                while more and got < size and coming.pending:
                    more = read(size - got, buffer[got:])
                    got += more
                self._starved = bool(more) and not coming.pending and (got < size or not self._tls.pending())
            except ssl.SSLWantReadError:
                self._starved = True
                got = got or -1
            except ssl.SSLZeroReturnError:
                pass
            except ssl.SSLError as error:
                if not got:
                    raise self._broken(error) from None
            answers = self._going.pending
        if answers:
            with suppress(OSError):  # who sends next gets it
                self._send_answers()
        return None if got < 0 else got

    def _take_early(self, buffer: memoryview) -> int:
        """The same, of what was decrypted early."""
        got = min(len(buffer), len(self._early))
        buffer[:got], self._early = self._early[:got], self._early[got:]
        return got

    def _decrypt_early(self) -> None:
        """All that has come, which is no more than was received; what is wrong with it is found by who receives."""
        early = bytearray(self._early)
        try:
            while data := self._tls.read(_RECORD):
                early += data
            self._ends_early = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self._ends_early = True
        if early:
            self._early = memoryview(early)
            self._starved = False

    # -- sending

    def send(self, parts: list[Buffer]) -> None:
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        with self._sending:
            if self._owed or self._held:
                data = self._unknown(data)
            if len(data) <= _RECORD:
                if data:
                    self._inner.send([self._encrypted(data)])
                return
            rest = memoryview(data)
            while rest:
                piece, rest = rest[:_PIECE], rest[_PIECE:]
                self._inner.send([self._encrypted(piece)])

    def _unknown(self, data: Buffer) -> Buffer:
        """The rest of what is to be sent, after what was encrypted earlier, which is sent here. Raises OSError."""
        if self._owed:
            owed, self._owed = self._owed, b""
            self._inner.send([owed])
        known = min(self._held, len(data))
        self._held -= known
        return memoryview(data)[known:]

    def send_now(self, parts: list[Buffer], grace: float = 0.0) -> int:
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        size = len(data)
        with self._sending:
            if self._owed and not self._paid(grace):
                raise BlockingIOError
            done = 0
            if self._held:
                done = min(self._held, size)
                self._held -= done
            while done < size:
                piece = data if size <= _RECORD and not done else memoryview(data)[done : done + _PIECE]
                self._owed = self._encrypted(piece)
                if not self._paid(grace):
                    self._held = len(piece)  # of what comes next, so many bytes are known already
                    if not done:
                        raise BlockingIOError
                    break
                done += len(piece)
        return done

    def _paid(self, grace: float) -> bool:
        """Whether all that is owed has been sent. Raises OSError."""
        try:
            sent = self._inner.send_now([self._owed], grace)
        except BlockingIOError:
            return False
        self._owed = self._owed[sent:]
        return not self._owed

    def _encrypted(self, data: Buffer) -> bytes:
        """data: a memoryview, if it is longer than a record."""
        with self._using:
            write = self._tls.write
            try:
                done = write(data)  # of one record
                while done < len(data):
                    done += write(data[done:])
            except ssl.SSLError as error:
                raise self._broken(error) from None
            return self._going.read()

    def _send_answers(self) -> None:
        """What OpenSSL sends on its own: parts of the handshake, new keys, an alert. Raises OSError."""
        with self._sending:
            with self._using:
                data = self._going.read()
            if data:
                owed, self._owed = self._owed + data, b""
                self._inner.send([owed])

    def wait_to_send(self, timeout: float) -> bool:
        return self._inner.wait_to_send(timeout)

    # -- a loop over many

    def nonblocking(self) -> NonBlocking:
        inner = self._inner.nonblocking()
        return NonBlocking(inner.fileno, self._receiver(inner), self._send_piece, self._pending)

    def _receiver(self, inner: NonBlocking) -> Callable[[int], bytes]:
        def receive(size: int) -> bytes:
            data = b""
            while len(data) < size:
                if self._starved:
                    try:
                        self._take(inner.receive(_RECEIVE_SIZE))
                    except BlockingIOError:
                        if not data:
                            raise
                        break
                more = self._decrypted(size - len(data))
                if more is not None:
                    if not more:
                        break
                    data = data + more if data else more
            return data

        return receive

    def _send_piece(self, data: Buffer) -> int:
        return self.send_now([data])

    def _pending(self) -> int:
        with self._using:
            early = len(self._early) + self._ends_early
            return 0 if self._starved else early + self._tls.pending() + self._coming.pending

    # -- the end

    def _broken(self, error: ssl.SSLError) -> OSError:
        """With a sentence, where the peer has refused us after the handshake: as far as a client of TLS 1.3 knows."""
        known = _ALERTS.get(error.reason or "")
        if known is None:
            return ConnectionAbortedError(errno.ECONNABORTED, _in_words(error))
        if self._tls.server_side:  # what to do is for the one who connects
            return ConnectionAbortedError(errno.ECONNABORTED, known.partition(": ")[0])
        if self._shaken:
            return CarrierFailed(f"{self.peer}: {known}")
        return ConnectionAbortedError(errno.ECONNABORTED, known)

    def end_sending(self) -> None:
        self._notify_close()
        self._send_answers()

    def _notify_close(self) -> None:
        """By a close_notify: to OpenSSL a stream that ends without one is broken."""
        with self._using:
            if self._shaken and not self._starved:
                self._decrypt_early()  # or OpenSSL looks there for the peer's close_notify, and drops what it finds
            with suppress(ssl.SSLError, ValueError):  # the peer's has not come yet, or it is over
                self._tls.unwrap()

    def shut_down(self) -> None:
        # In the middle of a record there is no room for it.
        if not self._resets and self._sending.acquire(blocking=False):
            try:
                if not self._owed:
                    self._notify_close()
                    with self._using:
                        notice = self._going.read()
                    if notice:
                        with suppress(OSError):
                            self._inner.send_now([notice])
            finally:
                self._sending.release()
        self._inner.shut_down()

    def reset_on_close(self) -> None:
        self._resets = True
        self._inner.reset_on_close()

    def round_trip(self) -> float | None:
        return self._inner.round_trip()

    def close(self) -> None:
        self._inner.close()


def _in_words(error: ssl.SSLError) -> str:
    """What the peer has done; on a client's side with what to do, after a colon."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message})"
    if isinstance(error, ssl.SSLEOFError) or error.reason == "UNEXPECTED_EOF_WHILE_READING":
        return "it ended without a word"
    return f"TLS ({(error.reason or 'error').lower().replace('_', ' ')})"
