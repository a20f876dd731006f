"""What a running server does when it is asked who may have which device, or to follow a change of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from usbip_capture.access.rules import MODES, AccessRule
from usbip_capture.errors import LocalProtocolError, RemoteProtocolError, UsbipError
from usbip_capture.live.messages import Message, text
from usbip_capture.servers.configuration import configuration_path
from usbip_capture.serving.rules_in_force import RulesInForce


def access_handlers(access: RulesInForce) -> Mapping[str, Callable[[Message], Message]]:
    """The requests by name, as those of `control`."""

    def change(request: Message) -> Message:
        """The configuration was changed so. always: also where that is not what is followed."""
        mode = text(request, "mode")
        if mode not in ("", *MODES):
            raise LocalProtocolError(f"{mode!r} is not a mode of access: give open or closed")
        changed = access.follows or bool(request.get("always"))
        if changed and not access.change(mode, _rules(request, "add"), _rules(request, "remove")):
            raise UsbipError("the server cannot read the configuration: who may have which device stays as it was")
        return {"changed": changed, **access_of(access)}

    return {"access": lambda request: access_of(access), "change-access": change}


def access_of(access: RulesInForce) -> Message:
    """The mode, the rules, those that clients have by being paired, and whether it is all from the configuration."""
    return {
        "mode": access.rules.mode,
        "access_rules": [str(rule) for rule in access.rules],
        "paired_rules": [str(rule) for rule in access.in_force][len(access.rules) :],
        "follows_access": access.follows,
        "configuration": configuration_path(),
    }


def _rules(request: Message, name: str) -> list[AccessRule]:
    rules = request.get(name, [])
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise RemoteProtocolError("rules on the channel are not a list of texts")
    return [AccessRule.parse(rule) for rule in rules]
