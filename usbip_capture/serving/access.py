"""Who may connect: this machine, and networks that are allowed."""

from __future__ import annotations

from collections.abc import Sequence

from usbip_capture.net.listening import Peer
from usbip_capture.net.networks import Network, check_allowed, policy
from usbip_capture.server.access import ALLOWED, Access, Decision


class NetworkAccess(Access):
    """Lets in this machine and those of `allow`; everybody if `public`."""

    def __init__(self, allow: Sequence[Network] = (), *, public: bool = False) -> None:
        self._allow = allow
        self._refusal = policy(allow)
        self._public = public

    def check_listening(self, address: str, port: int) -> None:
        """Raises LocalProtocolError where others could connect and nobody is named who may."""
        if not self._public:
            check_allowed(address, port, self._allow, ", or --allow-public if everybody may")

    def may_connect(self, peer: Peer) -> Decision:
        # Who comes by a socket of this machine's file system has no address: its permissions decide.
        reason = "" if self._public or not peer.host else self._refusal(peer)
        return Decision(allowed=False, reason=reason) if reason else ALLOWED
