"""Patterns of clients: an address, a network, this machine, a proven identity, or any. Pure.

| pattern | matches |
| --- | --- |
| `any` | every client |
| `local` | this machine: loopback, its own addresses, Unix sockets |
| `192.0.2.7`, `2001:db8::/32` | an address, or the addresses of a network |
| `paired`, `paired:NAME` | every paired client, or that of this name |
| `cert`, `cert:NAME` | every client with a certificate of `--client-ca`, or that of this name |

An IPv4 address is the same where it is written as one of IPv6 (`::ffff:192.0.2.7`).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from usbip_capture.errors import LocalProtocolError

ANY, LOCAL, NETWORK, PAIRED, CERT = "any", "local", "network", "paired", "cert"
FORMS = "an address such as 192.0.2.7, a network such as 192.0.2.0/24, any, local, paired, paired:NAME, cert, cert:NAME"
_MAPPED_PREFIX = 96  # Ref: RFC 4291, 2.5.5.2

Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"
Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"
#: What a pattern is found by: (kind, values).
Key: TypeAlias = "tuple[str | int, ...]"


class Requester(NamedTuple):
    """Who asks for a device. address: None if it has none. identity: `paired:NAME`, `cert:NAME`, or empty."""

    address: Address | None = None
    is_local: bool = False
    identity: str = ""

    @classmethod
    def of(cls, host: str, local_host: str = "", identity: str = "") -> Requester:
        """From its address, empty within this machine, and that of ours at which it has connected."""
        address = _address(host)
        is_local = not host or host == local_host or (address is not None and address.is_loopback)
        return cls(address, is_local, identity)


@dataclass(slots=True, frozen=True)
class ClientPattern:
    """One pattern. kind: ANY, LOCAL, NETWORK, PAIRED or CERT. name: of an identity, empty for all of the kind."""

    kind: str
    network: Network | None = None
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> ClientPattern:
        """From one of the forms above; blanks at its ends do not count. Raises LocalProtocolError."""
        text = text.strip()
        if text.lower() in (ANY, LOCAL, PAIRED, CERT):
            return cls(text.lower())
        kind, colon, name = text.partition(":")
        if colon and kind.lower() in (PAIRED, CERT) and name.strip() == name != "" and name.isprintable():
            return cls(kind.lower(), name=name)
        try:
            if "%" in text:  # a zone is of one machine, and not part of what is compared
                raise ValueError
            return cls(NETWORK, _unmapped_network(ipaddress.ip_network(text, strict=False)))
        except ValueError:
            raise LocalProtocolError(f"{text!r} is not a client: give {FORMS}") from None

    @property
    def key(self) -> Key:
        """The same for equal patterns only."""
        if self.network is not None:
            return (self.network.version, self.network.prefixlen, int(self.network.network_address))
        return (self.kind, self.name) if self.name else (self.kind,)

    def matches(self, requester: Requester) -> bool:
        """Whether it is one of these."""
        if self.kind == ANY:
            return True
        if self.kind == LOCAL:
            return requester.is_local
        if self.kind == NETWORK:
            return requester.address is not None and self.network is not None and requester.address in self.network
        kind, _, name = requester.identity.partition(":")
        return kind == self.kind and self.name in ("", name)

    def __str__(self) -> str:
        """As `parse` takes it."""
        if self.network is not None:
            single = self.network.prefixlen == self.network.max_prefixlen
            return str(self.network.network_address if single else self.network)
        return f"{self.kind}:{self.name}" if self.name else self.kind


def keys_of(requester: Requester, prefixes: dict[int, list[int]]) -> list[Key]:
    """The keys of all patterns that match who asks. prefixes: IP version -> lengths of the networks there are."""
    keys: list[Key] = [(ANY,)]
    if requester.is_local:
        keys.append((LOCAL,))
    kind, _, name = requester.identity.partition(":")
    if kind:
        keys += [(kind,), (kind, name)]
    if requester.address is not None:
        version, number, bits = requester.address.version, int(requester.address), requester.address.max_prefixlen
        keys += [(version, length, number >> bits - length << bits - length) for length in prefixes.get(version, ())]
    return keys


def _address(host: str) -> Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _unmapped_network(network: Network) -> Network:
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is None or network.prefixlen < _MAPPED_PREFIX:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED_PREFIX))
