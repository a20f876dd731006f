"""Who asks, and what they may do."""

from __future__ import annotations

from typing import NamedTuple

from usbip_capture.errors import UsbipError

LOOK, OPERATE, ADMINISTER = "look", "operate", "administer"
#: Each may do what those before it may.
ROLES = (LOOK, OPERATE, ADMINISTER)
#: Of what needs no role: who asks may not have signed in yet.
ANYONE = ""


class Refused(UsbipError):
    """The request is not allowed: who asks has not signed in (status 401), or lacks the role (403)."""

    def __init__(self, sentence: str, status: int = 403) -> None:
        super().__init__(sentence)
        self.status = status


class User(NamedTuple):
    """name: of the token; role: one of ROLES."""

    name: str
    role: str

    def may(self, role: str) -> bool:
        """Whether this role is theirs, or included in theirs."""
        order = (ANYONE, *ROLES)
        return order.index(self.role) >= order.index(role)

    def check(self, role: str) -> None:
        """Raises Refused."""
        if not self.may(role):
            raise Refused(f"{self.name} has the role {self.role}, and this needs {role}: use another token")
