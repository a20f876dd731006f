r"""Both ends of TLS, with a certificate of the tests' own.

`tls_transport.pem` has its key and is good for nothing else. Made by

    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 \
        -subj "/CN=usbip-capture tests" -keyout KEY -out CERTIFICATE
"""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

from usbip_capture.net.transport import SocketTransport
from usbip_capture.tls.transport import TlsTransport

_CERTIFICATE = Path(__file__).with_name("tls_transport.pem")
_TIMEOUT = 60.0


def tls_pair(
    ours: socket.socket, theirs: socket.socket, peers: tuple[str, str] = ("a peer", "a peer")
) -> tuple[TlsTransport, TlsTransport]:
    """The client's and the server's end of TLS over two sockets that are connected with each other."""
    of_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    of_server.load_cert_chain(_CERTIFICATE)
    of_client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    of_client.load_verify_locations(_CERTIFICATE)
    of_client.check_hostname = False
    client = TlsTransport(SocketTransport(ours, peers[0]), of_client)
    server = TlsTransport(SocketTransport(theirs, peers[1]), of_server, server_side=True)
    accepting = threading.Thread(target=server.handshake, args=[_TIMEOUT])
    accepting.start()
    client.handshake(_TIMEOUT)
    accepting.join()
    return client, server
