"""Who may connect and have which device: by the rules in force."""

from __future__ import annotations

from collections.abc import Callable

from usbip_capture.access.clients import PAIRED
from usbip_capture.access.rules import AccessRules
from usbip_capture.access.rules import Decision as Decided
from usbip_capture.net.listening import Peer
from usbip_capture.net.ruling import check_lets_in, requester_of
from usbip_capture.server.access import ALLOWED, Access, Decision
from usbip_capture.usb.info import DeviceInfo


class RuledAccess(Access):
    """By the rules, which may be others each time.

    ruled: what rules are asked about the device with this busid, as `Server.ruled`.
    is_paired: whether a client of this name still is.
    reserved: what leases decide about a device that the rules allow.
    """

    def __init__(
        self,
        rules: Callable[[], AccessRules],
        ruled: Callable[[str], tuple[DeviceInfo, str | None] | None],
        *,
        is_paired: Callable[[str], bool] = lambda name: True,
        reserved: Callable[[Peer, DeviceInfo], Decision] = lambda peer, info: ALLOWED,
    ) -> None:
        self._rules = rules
        self._ruled = ruled
        self._is_paired = is_paired
        self._reserved = reserved

    def check_listening(self, address: str, port: int) -> None:
        """Raises LocalProtocolError where others could connect without TLS and nobody is named who may."""
        check_lets_in(address, port, self._rules(), ", or --allow-public if everybody may")

    def may_connect(self, peer: Peer) -> Decision:
        return self._known(peer) and _decision(self._rules().connecting(requester_of(peer)))

    def may_identify(self, peer: Peer) -> Decision:
        return _decision(self._rules().connecting(requester_of(peer), may_identify=True))

    def visible(self, peer: Peer, info: DeviceInfo) -> Decision:
        if not (known := self._known(peer)):
            return known
        ruled = self._ruled(info.busid)
        if ruled is None:
            return Decision(allowed=False, reason="it is not exported any more")
        return _decision(self._rules().deciding(requester_of(peer), *ruled))

    def may_import(self, peer: Peer, info: DeviceInfo) -> Decision:
        return self._reserved(peer, info)

    def _known(self, peer: Peer) -> Decision:
        """Not if it was paired when it connected, and is not any more."""
        kind, _, name = peer.identity.partition(":")
        gone = kind == PAIRED and not self._is_paired(name)
        return Decision(allowed=False, reason=f"it is not paired as {name} any more") if gone else ALLOWED


def _decision(decided: Decided) -> Decision:
    return Decision(decided.allowed, decided.reason, "" if decided.rule is None else str(decided.rule))
