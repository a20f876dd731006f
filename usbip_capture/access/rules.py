"""Rules of who may have which device, and what is decided by them. Pure.

    allow 192.0.2.0/24 303a:4001
    deny  paired:ann   1-1.4

Where no rule matches, a *closed* server is for this machine only, an *open* one for everybody. A deny rule that
matches wins over every allow rule, also for this machine; of several that match, the first is named as the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import filterfalse
from operator import itemgetter
from typing import NamedTuple

from usbip_capture.access import clients, devices
from usbip_capture.access.clients import ClientPattern, Requester
from usbip_capture.access.devices import DevicePattern
from usbip_capture.errors import LocalProtocolError
from usbip_capture.usb.info import DeviceInfo

OPEN, CLOSED = "open", "closed"
MODES = (OPEN, CLOSED)
ALLOW, DENY = "allow", "deny"
NOT_ALLOWED, NO_RULE = "it is not allowed here", "no rule allows it"
#: Of the key of VID:PID:SERIAL that of VID:PID, which also matches; of others the same.
_WIDER = itemgetter(slice(3))
_FORM = "write allow or deny, a client and a device, such as: allow 192.0.2.0/24 303a:4001"


@dataclass(slots=True, frozen=True)
class AccessRule:
    """One rule. action: ALLOW or DENY."""

    action: str
    client: ClientPattern
    device: DevicePattern

    @classmethod
    def parse(cls, text: str) -> AccessRule:
        """From `allow CLIENT DEVICE`, or `deny`; without a device it is for all. Raises LocalProtocolError.

        A client with a blank in its name stands in double quotes, as a string of JSON.
        """
        action, _, rest = text.strip().partition(" ")
        rest = rest.strip()
        if action.lower() not in (ALLOW, DENY) or not rest:
            raise LocalProtocolError(f"{text!r} is not a rule of access: {_FORM}")
        try:
            client, device = _split(rest)
            return cls(action.lower(), ClientPattern.parse(client), DevicePattern.parse(device or devices.ALL))
        except ValueError as error:
            raise LocalProtocolError(f"{text!r} is not a rule of access: {error}") from None

    def matches(self, requester: Requester, info: DeviceInfo, serial: str = "") -> bool:
        """Whether it decides about this client and this device."""
        return self.client.matches(requester) and self.device.matches(info, serial)

    def __str__(self) -> str:
        """As `parse` takes it."""
        client = str(self.client)
        if any(character.isspace() or character == '"' for character in client):
            client = json.dumps(client, ensure_ascii=False)
        return f"{self.action} {client} {self.device}"


class Decision(NamedTuple):
    """True if allowed. reason: why not, for the log and people. rule: which decided, None if none did."""

    allowed: bool
    reason: str = NOT_ALLOWED
    rule: AccessRule | None = None

    def __bool__(self) -> bool:
        return self.allowed


ALLOWED = Decision(allowed=True, reason="")


class AccessRules:
    """A mode and rules, each once, in their order; not changed any more. A decision looks at the matching ones only."""

    def __init__(self, mode: str = CLOSED, rules: Iterable[AccessRule | str] = ()) -> None:
        """Raises LocalProtocolError for a mode or a text that cannot be meant."""
        if mode not in MODES:
            raise LocalProtocolError(f"{mode!r} is not a mode of access: write open or closed")
        parsed = (AccessRule.parse(rule) if isinstance(rule, str) else rule for rule in rules)
        self.mode = mode
        self._rules = tuple(dict.fromkeys(parsed))
        # Of each action: client's key -> device's key -> number of the rule
        self._found: dict[str, dict[clients.Key, dict[devices.Key, int]]] = {ALLOW: {}, DENY: {}}
        prefixes: dict[int, set[int]] = {4: set(), 6: set()}
        for number, rule in enumerate(self._rules):
            found = self._found[rule.action].setdefault(rule.client.key, {})
            found[rule.device.key] = number
            if rule.action == DENY and rule.device.serial:  # a device whose number is not known may be this one
                found.setdefault((*rule.device.key[:3], devices.UNKNOWN), number)
            if rule.client.network is not None:
                prefixes[rule.client.network.version].add(rule.client.network.prefixlen)
        self._prefixes = {version: sorted(lengths) for version, lengths in prefixes.items()}

    def connecting(self, requester: Requester, *, may_identify: bool = False) -> Decision:
        """Whether it could have any device at all. may_identify: it may still prove to be somebody that is allowed."""
        allowing, denying = self._matching(requester)
        denied = [denied[devices.ALL_KEY] for denied in denying if devices.ALL_KEY in denied]
        if denied:
            return self._refused(min(denied))
        if self.mode == OPEN or requester.is_local or may_identify:
            return ALLOWED
        if any(_is_more(numbers, denying) for numbers in allowing):
            return ALLOWED
        if not allowing:
            return Decision(allowed=False, reason=NO_RULE)
        key = self._rules[min(min(numbers.values()) for numbers in allowing)].device.key
        return self._refused(min(numbers[wide] for numbers in denying for wide in (key, key[:3]) if wide in numbers))

    def deciding(self, requester: Requester, info: DeviceInfo, serial: str | None = "") -> Decision:
        """Whether it may have this device.

        serial: its serial number, empty if it has none; None if it has one that is not known: it may be any.
        """
        allowing, denying = self._matching(requester)
        keys = devices.keys_of(info, serial)
        denied = [numbers[key] for numbers in denying for key in keys if key in numbers]
        if denied:
            return self._refused(min(denied))
        allowed = [numbers[key] for numbers in allowing for key in keys if key in numbers]
        if allowed:
            return self._allowed(min(allowed))
        return ALLOWED if self.mode == OPEN or requester.is_local else Decision(allowed=False, reason=NO_RULE)

    @property
    def lets_others_in(self) -> bool:
        """Whether a client of another machine could be allowed that has proved nothing but its address."""
        return self.mode == OPEN or any(
            rule.action == ALLOW and rule.client.kind in (clients.ANY, clients.NETWORK) for rule in self._rules
        )

    def with_mode(self, mode: str) -> AccessRules:
        """The same rules in this mode. Raises LocalProtocolError."""
        return AccessRules(mode, self._rules)

    def with_rules(self, rules: Iterable[AccessRule]) -> AccessRules:
        """These and more, behind them."""
        return AccessRules(self.mode, (*self._rules, *rules))

    def without_rules(self, rules: Iterable[AccessRule]) -> AccessRules:
        """These but some."""
        gone = set(rules)
        return AccessRules(self.mode, (rule for rule in self._rules if rule not in gone))

    def __iter__(self) -> Iterator[AccessRule]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AccessRules) and (self.mode, self._rules) == (other.mode, other._rules)

    def __hash__(self) -> int:
        return hash((self.mode, self._rules))

    def __repr__(self) -> str:
        return f"AccessRules({self.mode!r}, {[str(rule) for rule in self._rules]})"

    def _matching(self, requester: Requester) -> tuple[list[dict[devices.Key, int]], list[dict[devices.Key, int]]]:
        """Of the rules that match who asks: those that allow and those that deny, by the keys of their devices."""
        keys = clients.keys_of(requester, self._prefixes)
        allow, deny = self._found[ALLOW], self._found[DENY]
        return [allow[key] for key in keys if key in allow], [deny[key] for key in keys if key in deny]

    def _refused(self, number: int) -> Decision:
        rule = self._rules[number]
        return Decision(allowed=False, reason=f"the rule `{rule}` denies it", rule=rule)

    def _allowed(self, number: int) -> Decision:
        return Decision(allowed=True, reason="", rule=self._rules[number])


def _is_more(allowed: dict[devices.Key, int], denying: list[dict[devices.Key, int]]) -> bool:
    """Whether there is a device that a rule of `allowed` allows and none of `denying` denies."""
    if not denying:
        return True
    # There may be thousands: loops of Python's own. A rule that denies all devices was looked for before.
    is_denied = (denying[0] if len(denying) == 1 else set().union(*denying)).__contains__
    wider = map(_WIDER, filterfalse(is_denied, allowed))
    return next(filterfalse(is_denied, wider), None) is not None


def _split(text: str) -> tuple[str, str]:
    """A client and what follows it. Raises ValueError."""
    if text.startswith('"'):
        client, end = json.JSONDecoder().raw_decode(text)
        return str(client), text[end:].strip()
    client, _, device = text.partition(" ")
    return client, device.strip()
