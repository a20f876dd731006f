"""Where it is decided what a client may do. The default lets everybody do everything; subclasses have rules."""

from __future__ import annotations

from typing import NamedTuple

from usbip_capture.net.listening import NOT_ALLOWED, Peer
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.wire.structs import OpStatus


class Decision(NamedTuple):
    """True if allowed. reason: why not, rule: by which rule; for the log and people, the client does not get them.

    status: what the client gets, if it wants a device that it can see.
    """

    allowed: bool
    reason: str = NOT_ALLOWED
    rule: str = ""
    status: OpStatus = OpStatus.NA

    def __bool__(self) -> bool:
        return self.allowed


class Refusal(str):
    """The reason for which a client may not connect, as whoever accepts connections takes it. rule: which refuses."""

    def __new__(cls, reason: str, rule: str = "") -> Refusal:
        made = super().__new__(cls, reason)
        made.rule = rule
        return made

    rule: str


ALLOWED = Decision(allowed=True, reason="")


class Access:
    """Asked on any thread: must not wait, and may be asked by several at once. Who raises, refuses.

    Sessions are asked about again by `Server.check_sessions`.
    """

    def may_connect(self, peer: Peer) -> Decision:
        """Before anything is read."""
        return ALLOWED

    def may_identify(self, peer: Peer) -> Decision:
        """Before a handshake in which the client may prove who it is; then `may_connect` is asked."""
        return ALLOWED

    def visible(self, peer: Peer, info: DeviceInfo) -> bool | Decision:
        """For the list of devices; what a client cannot see is not there if it asks for it, either."""
        return True

    def may_import(self, peer: Peer, info: DeviceInfo) -> Decision:
        """Of a device that it can see; also of one that it has."""
        return ALLOWED
