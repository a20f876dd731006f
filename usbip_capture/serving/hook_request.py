"""An address of the web that is called by a hook: what has happened as JSON, by POST.

One deadline holds for all of it, however slowly the answer comes.

Ref: RFC 9110 (15.4: redirections), RFC 9112
"""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import suppress
from urllib.parse import urljoin, urlsplit

from usbip_capture import __version__
from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.net.connecting import connect
from usbip_capture.servers.hook_target import PORTS, place_of

_MAX_REDIRECTIONS = 3
#: Bytes of an answer until its body, which is not read.
_MAX_HEAD = 64 << 10
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: |\r?\n)")
_END = re.compile(rb"\r?\n\r?\n")
_LOCATION = re.compile(rb"\nLocation:[ \t]*([^\r\n]*)", re.IGNORECASE)
#: Those after which the same is sent again, elsewhere.
_REDIRECTIONS = (301, 302, 307, 308)


class RequestCall:
    """Sends `body`, which is JSON, to `url`."""

    def __init__(self, url: str, body: bytes) -> None:
        self._url = url
        self._body = body
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._cancelled = False

    def run(self, timeout: float) -> str:
        """The outcome, when it is answered. Raises OSError, or UsbipError if it fails or takes too long."""
        try:
            status = self._status(time.monotonic() + timeout, timeout)
        except (OSError, UsbipError) as error:
            if self._cancelled:
                raise UsbipError("it was ended with the server") from None
            if isinstance(error, TimeoutError):
                raise UsbipError(f"it has not answered within {timeout:g} s") from None
            raise
        if not 200 <= status < 300:
            raise UsbipError(f"it answered {status}")
        return f"answered {status}"

    def cancel(self) -> None:
        """End it now, from another thread."""
        with self._lock:
            self._cancelled = True
            if self._socket is not None:
                with suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # not TLS's, which would wait

    def _status(self, deadline: float, timeout: float) -> int:
        """The last one, after redirections. Raises OSError, UsbipError."""
        url = self._url
        for _ in range(1 + _MAX_REDIRECTIONS):
            status, location = self._exchange(url, deadline, timeout)
            if status not in _REDIRECTIONS or not location:
                return status
            url = _redirected(url, location)
        raise UsbipError(f"it redirects more than {_MAX_REDIRECTIONS} times")

    def _exchange(self, url: str, deadline: float, timeout: float) -> tuple[int, str]:
        """Status and, of a redirection, its address. Raises OSError, UsbipError."""
        scheme, host, port = place_of(url)
        # The name may take as long as this system's resolver needs; a quarter, as it is for each address.
        sock = connect(host, port, timeout / 4, "a web server")
        try:
            self._use(sock)
            if scheme == "https":
                sock = self._secured(sock, host, deadline)
            sock.settimeout(_left(deadline))
            sock.sendall(_head(url, len(self._body)) + self._body)
            return _answer(sock, deadline)
        finally:
            with self._lock:
                self._socket = None
            sock.close()

    def _secured(self, sock: socket.socket, host: str, deadline: float) -> socket.socket:
        """Within TLS. Raises UsbipError for a certificate that is not trusted, OSError."""
        import ssl  # who serves without it does without

        context = ssl.create_default_context()
        secured = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        try:
            self._use(secured)
            secured.settimeout(_left(deadline))
            secured.do_handshake()
        except ssl.SSLError as error:
            secured.close()
            if isinstance(error, ssl.SSLCertVerificationError):
                raise UsbipError(f"its certificate is not trusted: {error.verify_message}") from None
            raise UsbipError(f"TLS with it fails: {error.reason or error}") from None
        except BaseException:
            secured.close()
            raise
        return secured

    def _use(self, sock: socket.socket) -> None:
        """Raises OSError: it was cancelled."""
        with self._lock:
            self._socket = sock
            if self._cancelled:
                raise OSError("the server ends")


def _head(url: str, length: int) -> bytes:
    parts = urlsplit(url)
    scheme, host, port = place_of(url)
    where = f"[{host}]" if ":" in host else host
    if port != PORTS[scheme]:
        where += f":{port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return (
        f"POST {path} HTTP/1.1\r\nHost: {where}\r\nUser-Agent: usbip-capture/{__version__}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    ).encode("ascii")


def _answer(sock: socket.socket, deadline: float) -> tuple[int, str]:
    """Status and address of what comes first but for interim answers. Raises OSError, UsbipError."""
    received = b""
    while True:
        while not (end := _END.search(received)):
            sock.settimeout(_left(deadline))
            data = sock.recv(4096)
            received += data
            if not data or len(received) > _MAX_HEAD:
                raise UsbipError("it has not answered as a web server does")
        head, received = received[: end.start()] + b"\r\n", received[end.end() :]
        found = _STATUS.match(head)
        if not found:
            raise UsbipError("it has not answered as a web server does")
        status = int(found[1])
        if status >= 200:
            location = _LOCATION.search(head)
            return status, location[1].decode("latin-1").strip() if location else ""


def _redirected(url: str, location: str) -> str:
    """The address to which `url` redirects. Raises UsbipError if that is another server."""
    try:
        new = urljoin(url, location)
        if not new.isascii() or not new.isprintable() or " " in new or place_of(new) != place_of(url):
            raise LocalProtocolError("another server")
    except (ValueError, LocalProtocolError):
        raise UsbipError("it redirects to another server, where nothing is sent") from None
    return new


def _left(deadline: float) -> float:
    """Seconds that are left. Raises TimeoutError."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
