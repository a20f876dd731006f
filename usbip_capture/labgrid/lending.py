"""What the exporter's configuration has of a device that it lends; none of it is sent to the coordinator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from usbip_capture.access.rules import ALLOW, CLOSED, AccessRules
from usbip_capture.errors import LocalProtocolError
from usbip_capture.labgrid.resources import plugged_selector
from usbip_capture.net.networks import WARNING, is_loopback, listen_address, parse_networks
from usbip_capture.net.ruling import rules_for

DEVICE_CLASS = "UsbipDevice"
LOOPBACK, _EVERYWHERE = "127.0.0.1", "0.0.0.0"
_SWITCHES, _TEXTS = ("tls", "web_tls"), ("device", "listen", "client_ca", "web")


@dataclass(slots=True, frozen=True)
class Lending:
    """device: as `UsbipDevice` has it. listen: an address of this machine; if empty, see `place`.

    allow: networks, rules: of access, as the server's configuration has them. tls: the server is reached within TLS,
    client_ca: a file of authorities whose certificates prove who a client is. web: where its dashboard listens,
    ADDR[:PORT], empty for none; web_tls: within TLS.
    """

    device: str
    listen: str = ""
    allow: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    tls: bool = False
    client_ca: str = ""
    web: str = ""
    web_tls: bool = False

    @classmethod
    def parse(cls, given: object) -> Lending:
        """Raises LocalProtocolError."""
        if not isinstance(given, Mapping):
            raise LocalProtocolError(f"write what is lent below {DEVICE_CLASS}, such as: device: '1-1.4'")
        keys = {name.replace("_", "-"): name for name in cls.__slots__}
        for key in given:
            if key not in keys:
                raise LocalProtocolError(f"there is no {key!r} in {DEVICE_CLASS}: {', '.join(keys)}")
        values = {keys[key]: value for key, value in given.items() if value is not None}
        for name in ("allow", "rules"):
            values[name] = _texts(name, values.get(name, ()))
        made = cls(**{"device": "", **values})
        made.check()
        return made

    def check(self) -> None:
        """Raises LocalProtocolError."""
        plugged_selector(self.device)
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise LocalProtocolError(f"{_key(name)}: {getattr(self, name)!r} is neither true nor false")
        for name in _TEXTS:
            if not isinstance(getattr(self, name), str):
                raise LocalProtocolError(f"{_key(name)}: {getattr(self, name)!r} is not {_EXPECTED[name]}")
        if self.web:
            listen_address(self.web)
        for name, needed in (("client_ca", "tls"), ("web_tls", "web")):
            if getattr(self, name) and not getattr(self, needed):
                raise LocalProtocolError(f"{_key(name)} is nothing without {needed}: add it")
        allowed = rules_for(parse_networks(",".join(self.allow)), ALLOW)
        lets_others_in = AccessRules(CLOSED, [*self.rules, *allowed]).lets_others_in
        if not self.tls and not is_loopback(self.place) and not lets_others_in:
            raise LocalProtocolError(
                f"other machines can connect to {self.place}, and {WARNING}: name who may, such as allow: 192.0.2.0/24"
            )

    @property
    def place(self) -> str:
        """The address where its server listens; with `tls`, for connections within TLS."""
        return self.listen or (_EVERYWHERE if self.allow or self.rules or self.tls else LOOPBACK)


_EXPECTED = {
    "device": "a device: write a port such as '1-1.4'",
    "listen": "an address: write one such as '192.0.2.10'",
    "client_ca": "the name of a file in PEM",
    "web": "an address: write one such as '127.0.0.1:8080'",
}


def _key(name: str) -> str:
    return name.replace("_", "-")


def _texts(key: str, value: object) -> tuple[str, ...]:
    """A list of texts, or one. Raises LocalProtocolError."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not all(isinstance(item, str) for item in listed):
        raise LocalProtocolError(f'{key} must be a list of strings, such as ["..."]')
    return tuple(listed)
