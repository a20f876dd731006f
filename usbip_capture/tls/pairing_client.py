"""The client's side of a pairing, and lines of one within TLS."""

from __future__ import annotations

import os
import time
from contextlib import closing

from usbip_capture.errors import RemoteProtocolError, ServerUnreachable
from usbip_capture.net.transport import Transport
from usbip_capture.tls.certificates import CLIENT, fingerprint, own_identity
from usbip_capture.tls.client import PAIRING, open_tls, tls_address
from usbip_capture.tls.known_servers import KnownServer, remember
from usbip_capture.tls.pairing import MAX_LINE, ClientSide, PairingFailed
from usbip_capture.tls.transport import TlsTransport

_NONCE_SIZE = 16


def pair_with(host: str, port: int, code: str, name: str, timeout: float) -> str:
    """Pair with a server, which is trusted from now on; the fingerprint of its certificate.

    Raises PairingFailed, ServerUnreachable, LocalProtocolError, UsbipError.
    """
    own = own_identity(CLIENT)
    where = tls_address(host, port)
    with closing(open_tls(host, port, timeout, protocol=PAIRING)) as transport:
        if transport.protocol != PAIRING:
            raise ServerUnreachable(f"{where} does not pair: is it a server of usbip-capture with --tls?")
        side = ClientSide(transport.certificate, own.certificate, name, code, os.urandom(_NONCE_SIZE))
        deadline = time.monotonic() + timeout
        try:
            _converse(transport, side, deadline)
        except PairingFailed as error:
            raise PairingFailed(f"{where} was not paired with: {error}") from error
        except RemoteProtocolError as error:
            raise RemoteProtocolError(f"{where}: {error}") from error
        except OSError as error:
            reason = error.strerror or "it does not answer" if not isinstance(error, TimeoutError) else "it is silent"
            raise ServerUnreachable(f"{where} ended the pairing: {reason}: try again") from error
        finally:
            transport.shut_down()
        remember(host, port, KnownServer(fingerprint(transport.certificate), paired=True))
        return fingerprint(transport.certificate)


def _converse(transport: TlsTransport, side: ClientSide, deadline: float) -> None:
    lines = LineReader(transport)
    transport.send([side.request(lines.read(deadline))])
    side.check(lines.read(deadline))


class LineReader:
    """Lines of a pairing."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._data = b""

    def read(self, deadline: float) -> bytes:
        """The next one, by `deadline` on the monotonic clock. Raises OSError, TimeoutError, RemoteProtocolError."""
        while b"\n" not in self._data:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            data = self._transport.receive(MAX_LINE, left)
            if not data:
                raise RemoteProtocolError("it ended in the middle of the pairing")
            self._data += data
            if len(self._data) > MAX_LINE:
                raise RemoteProtocolError("what it sends is too long for a pairing")
        line, _, self._data = self._data.partition(b"\n")
        return line
