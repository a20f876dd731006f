"""The rules of access by which a running server decides: of the configuration, and of the command line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace

from usbip_capture.access.clients import PAIRED
from usbip_capture.access.devices import ALL
from usbip_capture.access.rules import ALLOW, CLOSED, OPEN, AccessRule, AccessRules
from usbip_capture.net.networks import parse_networks
from usbip_capture.net.ruling import rules_for
from usbip_capture.servers.server_table import ServerTable, read_server_table

log = logging.getLogger(__name__)


class RulesInForce:
    """Those of `table`, or of the configuration, which is followed unless there are `rules` in `given`.

    given: what was asked for by hand. changing: held during a change. reload: has the configuration read, and
    `follow` called with it; False if it cannot be read. on_change: called with the rules after each change.
    Raises LocalProtocolError for what is not a rule.
    """

    def __init__(
        self,
        given: ServerTable,
        table: ServerTable,
        changing: AbstractContextManager[object],
        reload: Callable[[], bool],
        on_change: Callable[[AccessRules], object],
    ) -> None:
        self.follows = given.rules is None
        self._changing = changing
        self._reload = reload
        self._on_change = on_change
        self._given, self._has_networks = given, bool(given.allow)
        if not self.follows:
            table = given
        elif table is given:  # what is exported does not come from the configuration
            table = read_server_table()
        self.paired: frozenset[str] = frozenset()
        self._rules = self.in_force = self._made(table)

    def allow_paired(self, names: Iterable[str]) -> None:
        """These clients are paired with the server: each may have all devices, until a rule allows something to any.

        Sessions of those that are not paired any more end.
        """
        with self._changing:
            paired = frozenset(names)
            if paired != self.paired:
                self.paired = paired
                self.in_force = self._with_paired(self._rules)
                self._on_change(self.in_force)

    @property
    def rules(self) -> AccessRules:
        """The mode, and the rules that were asked for; `in_force` has those for clients that are paired, too."""
        return self._rules

    def set(self, mode: str, rules: Iterable[AccessRule | str]) -> None:
        """Decide by this mode, `open` or `closed`, and these rules from now on; sessions not allowed any more end.

        What the configuration has comes into force again when it is changed. Raises LocalProtocolError.
        """
        wanted = AccessRules(mode, rules)
        with self._changing:
            self._change(wanted)

    def change(self, mode: str, added: Iterable[AccessRule], removed: Iterable[AccessRule]) -> bool:
        """What was changed in the configuration, if that is followed, or else is to be changed here. mode: or empty.

        False if the configuration cannot be read, which is logged; then all stays as it was. Raises LocalProtocolError.
        """
        gone = list(removed)
        with self._changing:
            self._forget(mode, gone)
            if self.follows:
                return self._reload()
            rules = self._rules.without_rules(gone).with_rules(added)
            self._change(rules.with_mode(mode) if mode else rules)
        return True

    def follow(self, table: ServerTable) -> None:
        """The configuration is this now."""
        if self.follows:
            self._change(self._made(table))

    def _forget(self, mode: str, removed: Iterable[AccessRule]) -> None:
        """Of what was given by hand, what contradicts a change that somebody has made since."""
        gone = set(removed)
        self._given = replace(
            self._given,
            allow=tuple(network for network in self._given.allow if gone.isdisjoint(_rules([network]))),
            allow_public=self._given.allow_public and mode != CLOSED,
        )

    def _made(self, table: ServerTable) -> AccessRules:
        given = self._given
        return rules_of(
            replace(
                table,
                access=OPEN if given.allow_public else table.access,
                allow=given.allow if self._has_networks else table.allow,
            )
        )

    def _with_paired(self, rules: AccessRules) -> AccessRules:
        """Names are what clients choose: where rules allow something to some of them, no other one has everything."""
        if any(rule.action == ALLOW and rule.client.kind == PAIRED for rule in rules):
            return rules
        return rules.with_rules(AccessRule.parse(f"{ALLOW} {PAIRED}:{name} {ALL}") for name in sorted(self.paired))

    def _change(self, rules: AccessRules) -> None:
        if rules == self._rules:
            return
        self._rules, self.in_force = rules, self._with_paired(rules)
        log.info("access is now %s", summary(rules))
        self._on_change(rules)


def rules_of(table: ServerTable) -> AccessRules:
    """What a table of the configuration means. Raises LocalProtocolError."""
    mode = table.access or (OPEN if table.allow_public else CLOSED)
    return AccessRules(mode, [*(table.rules or ()), *_rules(table.allow)])


def summary(rules: AccessRules) -> str:
    """In a few words: the mode, and the first of the rules."""
    texts = [str(rule) for rule in rules]
    more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
    return f"{rules.mode}, {', '.join(texts[:3]) or 'without rules'}{more}"


def _rules(networks: Iterable[str]) -> list[AccessRule]:
    return rules_for(parse_networks(",".join(networks)), ALLOW)
