"""HTTP to a dashboard, over whatever carries its bytes: answers that are JSON, and a body that is read while it comes.

Ref: RFC 9112 (HTTP/1.1), RFC 6750 (Bearer)
"""

from __future__ import annotations

import io
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from typing import cast

from usbip_capture.errors import RemoteProtocolError, ServerLost, ServerUnreachable, UsbipError
from usbip_capture.net.transport import CarrierFailed
from usbip_capture.servers.dashboards import Dashboard
from usbip_capture.system.shown import one_line

PREFIX = "/api/v1"
#: Seconds between two looks, while nothing comes, whether it is still wanted.
_LOOK = 0.1
#: Bytes of an answer that is JSON, and characters of a sentence of the server that are shown.
_MAX_ANSWER, _MAX_SENTENCE = 16 << 20, 400
_PIECE = 256 << 10
#: In the head of a stream: the time there, in nanoseconds since 1970. Who sends it also sends something at least each
#: ALIVE seconds, as it is asked to, so that the connection is lost where nothing has come for SILENCE.
TIME_HEADER, ALIVE, SILENCE = "usbip-capture-time", 2.0, 10.0
_MAX_DIGITS = 20


class Refused(UsbipError):
    """The dashboard answers that it does not do that: the token is not known, or may not; or it is not possible."""


class DashboardConnection:
    """One connection, for one request at a time. Raises UsbipError if there is none.

    check: called while nothing comes, many times a second; what it raises ends the request.
    server_ns: when the stream began, by the clock of the server; 0 if it does not report that.
    """

    def __init__(self, dashboard: Dashboard, check: Callable[[], None] = lambda: None) -> None:
        self._dashboard = dashboard
        self._check = check
        self.server_ns = 0
        self._deadline: float | None = None
        self._streams = False
        self._transport = dashboard.open_transport()
        self._opening = self._transport.opening

    def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
        """Its answer, which is a JSON object. Raises Refused, UsbipError."""
        with self._explained():
            raw = self._requested(method, path, body).read(_MAX_ANSWER)
            self._deadline = None
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise self._stranger("an answer that is not JSON")
        return answer

    def text(self, path: str) -> str:
        """An answer that is text, of a path outside of the REST interface. Raises Refused, UsbipError."""
        with self._explained():
            raw = self._requested("GET", path, prefix="").read(_MAX_ANSWER)
            self._deadline = None
        return raw.decode("utf-8", "replace")

    def stream(self, path: str) -> Iterator[bytes]:
        """What it sends, in portions; ends where it has ended in good order. Raises Refused, UsbipError at once.

        The iterator raises UsbipError when the connection is lost.
        """
        with self._explained():
            response = self._requested("GET", path)
        self._streams = True
        stamp = response.getheader(TIME_HEADER, "")
        self.server_ns = int(stamp) if stamp.isascii() and stamp.isdigit() and len(stamp) <= _MAX_DIGITS else 0
        self._deadline = time.monotonic() + SILENCE if self.server_ns else None
        return self._portions(response)

    def shut_down(self) -> None:
        """End it, from any thread."""
        self._transport.shut_down()

    def close(self) -> None:
        """Release what carries it."""
        self._transport.close()

    def read(self, buffer: memoryview) -> int:
        """Bytes that have come; 0 at the end. Raises OSError, UsbipError, and what `check` raises."""
        while True:
            self._check()
            try:
                count = self._transport.receive_into(buffer, _LOOK)
            except TimeoutError:
                self._check_deadline()
                continue
            if self.server_ns:
                self._deadline = time.monotonic() + SILENCE
            return count

    def _check_deadline(self) -> None:
        """Raises UsbipError."""
        if self._deadline is None or time.monotonic() <= self._deadline:
            return
        if self._streams:
            raise ServerLost(f"nothing has come from {self._dashboard} for {SILENCE:g} s: is the network there?")
        raise ServerUnreachable(
            f"{self._dashboard} does not answer within {self._dashboard.timeout:g} s: {self._advice}"
        )

    def _portions(self, response: HTTPResponse) -> Iterator[bytes]:
        while True:
            with self._explained():
                portion = response.read1(_PIECE)
            if not portion:
                return
            yield portion

    def _requested(
        self, method: str, path: str, body: Mapping[str, object] | None = None, prefix: str = PREFIX
    ) -> HTTPResponse:
        """A response whose head was read, and is that of success. Raises OSError, HTTPException, UsbipError."""
        self._deadline = time.monotonic() + self._dashboard.timeout + self._opening
        self._opening = 0.0
        content = b"" if body is None else json.dumps(body).encode()
        head = [
            f"{method} {prefix}{path} HTTP/1.1",
            f"Host: {self._dashboard.host_header}",
            f"Authorization: Bearer {self._dashboard.token}",
            "Accept-Encoding: identity",
            "User-Agent: usbip-capture",
            *(["Content-Type: application/json", f"Content-Length: {len(content)}"] if content else []),
        ]
        self._transport.send(["\r\n".join([*head, "", ""]).encode("ascii", "replace"), content])
        response = HTTPResponse(cast("socket.socket", _Socket(self)), method=method)
        response.begin()
        if response.status != 200:
            raise self._refusal(response.status, response.read(_MAX_ANSWER))
        return response

    def _refusal(self, status: int, raw: bytes) -> UsbipError:
        try:
            sentence = json.loads(raw)["error"]
        except (ValueError, TypeError, KeyError, RecursionError):
            sentence = None
        if not isinstance(sentence, str):
            return self._stranger(f"status {status}")
        return Refused(f"{self._dashboard} refuses: {one_line(sentence)[:_MAX_SENTENCE]}")

    def _stranger(self, what: str) -> RemoteProtocolError:
        return RemoteProtocolError(f"{self._dashboard} answers with {what}: {self._advice}")

    @property
    def _advice(self) -> str:
        return f"is {self._dashboard.address} the dashboard of `usbip-capture serve --web`?"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What goes wrong with the connection, as a sentence."""
        try:
            yield
        except CarrierFailed as error:
            raise ServerUnreachable(str(error)) from error
        except HTTPException as error:
            if self._streams:
                raise ServerLost(f"the connection to {self._dashboard} was broken off") from error
            raise self._stranger("what is not HTTP") from error
        except OSError as error:
            reason = one_line(error.strerror or str(error))
            raise ServerLost(f"the connection to {self._dashboard} was broken off ({reason})") from error


class _Socket:
    """As much of a socket as HTTPResponse needs."""

    def __init__(self, connection: DashboardConnection) -> None:
        self._connection = connection

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Raw(self._connection))


class _Raw(io.RawIOBase):
    def __init__(self, connection: DashboardConnection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._connection.read(memoryview(buffer))
