"""Which clients a relay lets in, and to which devices: the same rules as those of a server.

The relay learns of a device what the server answers to its import: the busid and VID:PID, not the serial number and the
interfaces.
"""

from __future__ import annotations

from collections.abc import Iterable

from usbip_capture.access.devices import ALL, CLASS, PORT
from usbip_capture.access.rules import ALLOW, CLOSED, DENY, AccessRule, AccessRules, Decision
from usbip_capture.errors import LocalProtocolError
from usbip_capture.net.listening import Peer
from usbip_capture.net.networks import parse_networks
from usbip_capture.net.ruling import requester_of, rules_for
from usbip_capture.system.shown import one_line
from usbip_capture.usb.info import DeviceInfo, Speed

#: What no rule about a VID:PID or a class names.
_ANY_ID = -1


def relay_rules(allow: Iterable[str] = (), deny: Iterable[str] = ()) -> AccessRules:
    """From texts such as `192.0.2.0/24, 192.0.2.7` or `192.0.2.7 1-1.4`. Raises LocalProtocolError."""
    rules = [
        rule for action, texts in ((ALLOW, allow), (DENY, deny)) for text in texts for rule in _parsed(action, text)
    ]
    for rule in rules:
        if rule.device.kind == CLASS or rule.device.serial:
            raise LocalProtocolError(
                f"{str(rule.device)!r} cannot be decided by a relay: name a port such as 1-1.4, or VID:PID"
            )
    return AccessRules(CLOSED, rules)


def names_devices(rules: AccessRules) -> bool:
    """Whether it matters which device a client wants."""
    return any(rule.device.kind != ALL for rule in rules)


def refusal(rules: AccessRules, peer: Peer, info: DeviceInfo | None) -> str:
    """Why a client may not have this device, or one that nobody knows (None); empty if it may."""
    if info is None:
        return "which device it wants cannot be observed" if names_devices(rules) else ""
    return _reason(rules.deciding(requester_of(peer), info), info.busid)


def port_refusal(rules: AccessRules, peer: Peer, busid: str) -> str:
    """Why a client may not have what is plugged in there, whatever it is; empty if it may, or that depends on what."""
    requester = requester_of(peer)
    decision = rules.deciding(requester, DeviceInfo(busid, 0, 0, Speed.UNKNOWN, _ANY_ID, _ANY_ID, bDeviceClass=_ANY_ID))
    if not decision and decision.rule is None and any(
        rule.action == ALLOW and rule.device.kind not in (ALL, PORT) and rule.client.matches(requester)
        for rule in rules
    ):  # fmt: skip
        return ""
    return _reason(decision, busid)


def _reason(decision: Decision, busid: str) -> str:
    return "" if decision else f"{one_line(busid)}: {decision.reason}"


def _parsed(action: str, text: str) -> list[AccessRule]:
    try:
        return rules_for(parse_networks(text), action)
    except LocalProtocolError:
        return [AccessRule.parse(f"{action} {part}") for part in text.split(",") if part.strip()]
