"""Rules of access for those who connect: for whatever listens for USB/IP clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from usbip_capture.access.clients import ClientPattern, Requester
from usbip_capture.access.devices import ALL, DevicePattern
from usbip_capture.access.rules import ALLOW, CLOSED, AccessRule, AccessRules
from usbip_capture.errors import LocalProtocolError
from usbip_capture.net.address import format_address
from usbip_capture.net.listening import Peer, Policy
from usbip_capture.net.networks import WARNING, Network, is_loopback


def requester_of(peer: Peer) -> Requester:
    """Who that is to the rules."""
    return Requester.of(peer.host, peer.local_host, peer.identity)


def rules_for(networks: Iterable[Network], action: str) -> list[AccessRule]:
    """For each a rule about all devices. action: of the rules, `allow` or `deny`."""
    return [AccessRule(action, ClientPattern.parse(str(network)), DevicePattern(ALL)) for network in networks]


def allowing(networks: Iterable[Network]) -> AccessRules:
    """This machine, and these."""
    return AccessRules(CLOSED, rules_for(networks, ALLOW))


def policy_of(rules: Callable[[], AccessRules]) -> Policy:
    """Lets in who could have a device by the rules of that moment."""

    def refusal(peer: Peer) -> str:
        return rules().connecting(requester_of(peer)).reason

    return refusal


def check_lets_in(address: str, port: int, rules: AccessRules, otherwise: str = "") -> None:
    """Raises LocalProtocolError where others could connect and no rule lets any of them in.

    otherwise: what else its sentence advises.
    """
    if not is_loopback(address) and not rules.lets_others_in:
        raise LocalProtocolError(
            f"other machines can connect to {format_address(address, port)}, and {WARNING}: "
            f"name who may with --allow, such as 192.0.2.0/24{otherwise}"
        )
