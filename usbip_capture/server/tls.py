"""The handshake of a client that connects by TLS, on the thread of its connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from usbip_capture.net.listening import Peer
from usbip_capture.net.transport import Transport

if TYPE_CHECKING:  # who serves without TLS does without `ssl`
    from usbip_capture.tls.server import ServerContext
    from usbip_capture.tls.transport import TlsTransport

#: As `tls.client.PAIRING`.
_PAIRING = "usbip-pair"


class TlsHandshake:
    """As `Connection` takes it for `secured`. pair: has the conversation of those who connect for pairing."""

    def __init__(self, context: ServerContext, pair: Callable[[TlsTransport, Peer], None]) -> None:
        self._context = context
        self._pair = pair

    def __call__(self, transport: Transport, peer: Peer, timeout: float) -> tuple[Transport, Peer] | None:
        accepted = self._context.accept(transport, timeout)
        if accepted.protocol == _PAIRING:
            try:
                self._pair(accepted.transport, peer)
            finally:
                accepted.transport.shut_down()
            return None
        return accepted.transport, peer._replace(identity=accepted.identity)
