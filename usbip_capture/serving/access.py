"""Who may connect: this machine, networks that are allowed, and no more clients than there may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from usbip_capture.net.listening import TOO_MANY, Peer
from usbip_capture.net.networks import Network, check_allowed, policy
from usbip_capture.server.access import ALLOWED, Access, Decision


class NetworkAccess(Access):
    """Lets in this machine and those of `allow`; everybody if `public`. clients: how many are connected now.

    max_clients: at a time, each with a device or without; 0 without limit.
    """

    def __init__(
        self,
        allow: Sequence[Network] = (),
        *,
        public: bool = False,
        max_clients: int = 0,
        clients: Callable[[], int] = lambda: 0,
    ) -> None:
        self._allow = allow
        self._refusal = policy(allow)
        self._public = public
        self._max_clients = max_clients
        self._clients = clients

    def check_listening(self, address: str, port: int) -> None:
        """Raises LocalProtocolError where others could connect and nobody is named who may."""
        if not self._public:
            check_allowed(address, port, self._allow, ", or --allow-public if everybody may")

    def may_connect(self, peer: Peer) -> Decision:
        # Who comes by a socket of this machine's file system has no address: its permissions decide.
        reason = "" if self._public or not peer.host else self._refusal(peer)
        if not reason and 0 < self._max_clients <= self._clients():
            reason = TOO_MANY
        return Decision(allowed=False, reason=reason) if reason else ALLOWED
