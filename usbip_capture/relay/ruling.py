"""Which clients a relay lets in, and to which devices: the same rules as those of a server.

The relay learns of a device what the server answers to its import: the busid and VID:PID, not the serial number and the
interfaces.
"""

from __future__ import annotations

from collections.abc import Iterable

from usbip_capture.access.devices import ALL, CLASS
from usbip_capture.access.rules import ALLOW, CLOSED, DENY, AccessRule, AccessRules
from usbip_capture.errors import LocalProtocolError
from usbip_capture.net.networks import parse_networks
from usbip_capture.net.ruling import rules_for


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
    """Whether it matters which device a client has."""
    return any(rule.device.kind != ALL for rule in rules)


def _parsed(action: str, text: str) -> list[AccessRule]:
    try:
        return rules_for(parse_networks(text), action)
    except LocalProtocolError:
        return [AccessRule.parse(f"{action} {part}") for part in text.split(",") if part.strip()]
