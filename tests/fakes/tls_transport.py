r"""A transport over TLS as Python's `ssl` has it: real records, real cryptography, a certificate of the tests' own.

`tls_transport.pem` has its key and is good for nothing else. Made by

    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 \
        -subj "/CN=usbip-capture tests" -keyout KEY -out CERTIFICATE
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

from tests.fakes.polled_transport import PolledTransport
from usbip_capture.usb.urb import Buffer

_CERTIFICATE = Path(__file__).with_name("tls_transport.pem")
#: The most that one record holds.
_RECORD = 16 << 10


class TlsTransport(PolledTransport):
    """Over a TLS socket whose handshake is done."""

    def __init__(self, sock: ssl.SSLSocket, peer: str) -> None:
        super().__init__(sock, peer)
        self._tls = sock
        # OpenSSL takes one thread at a time for each connection; Python has a lock for that from 3.13 on.
        self._using = threading.Lock()
        self._over = False  # both ways

    def end_sending(self) -> None:
        """By a close_notify: to OpenSSL a stream that ends without one is broken, in both directions."""
        with self._using:
            try:
                self._tls.unwrap()
                self._over = True
            except ssl.SSLWantReadError:  # it is sent; the peer's has not come
                pass

    def shut_down(self) -> None:
        if not self._resets:
            with suppress(OSError, ValueError):  # ValueError: it is closed
                self.end_sending()
        super().shut_down()  # `SSLSocket.shutdown` takes the TLS away from who receives meanwhile

    def _receive(self, size: int) -> bytes:
        try:
            with self._using:
                return b"" if self._over else self._tls.recv(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def _send(self, data: Buffer) -> int:
        try:
            with self._using:
                return self._tls.send(memoryview(data)[:_RECORD])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def _pending(self) -> int:
        with self._using:
            return self._tls.pending()


def tls_pair(ours: socket.socket, theirs: socket.socket) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """The client's and the server's end of TLS over two sockets that are connected with each other."""
    of_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    of_server.load_cert_chain(_CERTIFICATE)
    of_client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    of_client.load_verify_locations(_CERTIFICATE)
    of_client.check_hostname = False
    accepted: list[ssl.SSLSocket] = []

    def accept() -> None:
        accepted.append(of_server.wrap_socket(theirs, server_side=True, suppress_ragged_eofs=False))

    accepting = threading.Thread(target=accept)
    accepting.start()
    client = of_client.wrap_socket(ours, suppress_ragged_eofs=False)
    accepting.join()
    return client, accepted[0]
