"""A connection that a program carries, such as ssh: its standard input and output are the other end of our socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from usbip_capture.net.transport import CarrierFailed, NonBlocking, SocketTransport
from usbip_capture.system.shown import one_line
from usbip_capture.usb.urb import Buffer

#: Seconds for a program that has closed its output to end, also where others wait meanwhile; and for one that is to
#: end, before it is made to.
_ENDING, _GRACE, _LEAVING = 1.0, 0.02, 2.0
#: Bytes of its standard error that are kept: as many as a pipe holds. Characters of a line that are shown.
_MAX_ERRORS, _MAX_LINE = 64 << 10, 1000


class ChildTransport(SocketTransport):
    """Runs `command`, which ends with the transport and is reaped. Raises OSError if it cannot be started.

    opening: seconds that it may take to connect. explain: makes a sentence of the last lines of its standard error and
    of its exit status: negative is a signal, None that it has not connected in time. asks: it may use this terminal.
    """

    def __init__(
        self,
        command: Sequence[str],
        peer: str,
        opening: float,
        explain: Callable[[list[str], int | None], str],
        *,
        asks: bool = False,
    ) -> None:
        self._process, sock, self._errors = _start(command, asks=asks)
        self._explain = explain
        self._opened_by = time.monotonic() + opening
        self._lock = threading.Lock()
        self._failure: CarrierFailed | None = None
        self._came = self._shut = False
        super().__init__(sock, peer)
        self.opening = opening

    def receive_into(self, buffer: memoryview, timeout: float | None) -> int:
        try:
            size = super().receive_into(buffer, timeout)
        except OSError as error:
            raise self._explained(error) from None
        if size:
            self._came = True
            return size
        return self._ended()

    def receive(self, size: int, timeout: float | None) -> bytes:
        try:
            data = super().receive(size, timeout)
        except OSError as error:
            raise self._explained(error) from None
        if not data:
            self._ended()
        self._came = True
        return data

    def receive_scattered(self, buffers: list[memoryview], timeout: float | None) -> int:
        try:
            size = super().receive_scattered(buffers, timeout)
        except OSError as error:
            raise self._explained(error) from None
        return size or self._ended()

    def send(self, parts: list[Buffer]) -> None:
        try:
            super().send(parts)
        except OSError as error:
            raise self._explained(error) from None

    def nonblocking(self) -> NonBlocking:
        plain = super().nonblocking()

        def receive(size: int) -> bytes:
            try:
                data = plain.receive(size)
            except BlockingIOError:
                raise
            except OSError as error:
                raise self._explained(error, _GRACE) from None
            if not data:
                self._ended(_GRACE)
            self._came = True
            return data

        return NonBlocking(plain.fileno, receive, plain.send, plain.pending)

    def shut_down(self) -> None:
        self._shut = True
        super().shut_down()

    def close(self) -> None:
        super().close()
        if self._errors >= 0:
            if self._resets:
                self._process.kill()
            elif not self._came:  # it may still connect, and not look at its input for long
                self._process.terminate()
        self._let_go(_reap)

    def release(self) -> socket.socket:
        """The socket; the program carries its bytes until it is closed, also when this program has ended."""
        sock = super().release()
        self._let_go(subprocess.Popen.wait)
        return sock

    def _let_go(self, reap: Callable[[subprocess.Popen[bytes]], object]) -> None:
        """The program has its end from `reap`, which waits for it: on a thread, unless it has ended already."""
        with self._lock:
            errors, self._errors = self._errors, -1
        if errors < 0:
            return
        os.close(errors)
        if self._process.poll() is None:
            try:
                threading.Thread(target=reap, args=(self._process,), name="usbip-child-end", daemon=True).start()
            except RuntimeError:  # no thread is left
                self._process.kill()
                self._process.wait()

    def _ended(self, patience: float = _ENDING) -> int:
        """0, the end of the stream, unless the program has failed. Raises CarrierFailed."""
        if self._shut:
            return 0
        with suppress(subprocess.TimeoutExpired):
            if self._process.wait(patience):
                raise self._failed(self._process.returncode)
        return 0

    def _explained(self, error: OSError, patience: float = _ENDING) -> OSError:
        """What has failed: the program, where it has."""
        if isinstance(error, TimeoutError):
            late = not self._came and time.monotonic() > self._opened_by
            return self._failed(None) if late else error
        if not self._shut:
            with suppress(subprocess.TimeoutExpired):
                if self._process.wait(patience):
                    return self._failed(self._process.returncode)
        return error

    def _failed(self, status: int | None) -> CarrierFailed:
        with self._lock:
            if self._failure is None:
                self._failure = CarrierFailed(self._explain(self._last_lines(), status))
            return self._failure

    def _last_lines(self) -> list[str]:
        try:
            text = os.read(self._errors, _MAX_ERRORS).decode("utf-8", "replace") if self._errors >= 0 else ""
        except OSError:  # BlockingIOError: it has printed nothing, and others have its standard error
            return []
        return [line for each in text.splitlines() if (line := one_line(each)[:_MAX_LINE].strip())]


def _start(command: Sequence[str], *, asks: bool) -> tuple[subprocess.Popen[bytes], socket.socket, int]:
    """The program, our end of its input and output, and where its standard error can be read. Raises OSError."""
    ours, theirs = socket.socketpair()
    errors, their_errors = os.pipe()
    for fd in (errors, their_errors):  # one that prints too much goes on
        os.set_blocking(fd, False)
    # One that asks needs our terminal, whose Ctrl-C is ours: it ends when we close the connection.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        process = subprocess.Popen(
            command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=their_errors, start_new_session=not asks
        )
    except BaseException:
        ours.close()
        os.close(errors)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        os.close(their_errors)
    return process, ours, errors


def _reap(process: subprocess.Popen[bytes]) -> None:
    """It has seen the end of its input: what was sent before may be under way."""
    for make_end in (process.terminate, process.kill):
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LEAVING)
            return
        make_end()
    process.wait()
