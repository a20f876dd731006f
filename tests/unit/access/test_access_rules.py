"""Rules of access: decided as a slow and obvious model does, whatever rules there are; written and read alike."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usbip_capture.access.clients import ClientPattern, Requester
from usbip_capture.access.devices import DevicePattern
from usbip_capture.access.rules import ALLOW, CLOSED, DENY, MODES, NO_RULE, OPEN, AccessRule, AccessRules
from usbip_capture.errors import LocalProtocolError
from usbip_capture.usb.info import DeviceInfo, InterfaceInfo, Speed

HOSTS = ("192.0.2.7", "::ffff:192.0.2.7", "192.0.2.130", "198.51.100.1", "2001:db8::7", "fe80::1%eth0", "127.0.0.1", "")
IDENTITIES = ("", "paired:ann", "paired:bob", "cert:ann")
CLIENTS = (
    "any", "local", "paired", "paired:ann", "cert", "cert:ann", "192.0.2.7", "192.0.2.0/25", "192.0.2.0/24",
    "0.0.0.0/0", "::/0", "2001:db8::/32", "2001:db8::7", "::ffff:192.0.2.0/121", "fe80::/10", "127.0.0.0/8",
)  # fmt: skip
DEVICES = ("all", "1-1", "1-2", "303a:4001", "303a:4001:A", "303a:4001:B", "0403:6001", "class:03", "class:08")
#: Each thing that a pattern of DEVICES names, with and without the others, and what none of them names.
PLUGGED = tuple(
    (
        DeviceInfo(busid, 1, 2, Speed.HIGH, *identity, interfaces=tuple(InterfaceInfo(code, 0, 0) for code in classes)),
        serial,
    )
    for busid in ("1-1", "1-2", "1-3")
    for identity in ((0x303A, 0x4001), (0x0403, 0x6001), (0x1209, 1))
    for serial in ("", "A", "B", "C")
    for classes in ((), (3,), (8,), (3, 8))
)

requesters = st.builds(Requester.of, st.sampled_from(HOSTS), st.sampled_from(HOSTS), st.sampled_from(IDENTITIES))
rules = st.builds(
    AccessRule,
    st.sampled_from((ALLOW, DENY)),
    st.sampled_from(CLIENTS).map(ClientPattern.parse),
    st.sampled_from(DEVICES).map(DevicePattern.parse),
)
rule_sets = st.builds(AccessRules, st.sampled_from(MODES), st.lists(rules, max_size=12))


def slow_client(pattern: str, requester: Requester) -> bool:
    """Whether a client is one of these, as the words say."""
    if pattern == "any":
        return True
    if pattern == "local":
        return requester.is_local
    if pattern.startswith(("paired", "cert")):
        return requester.identity == pattern or requester.identity.startswith(pattern + ":")
    return requester.address is not None and requester.address in ipaddress.ip_network(pattern)


def slow_device(pattern: str, info: DeviceInfo, serial: str) -> bool:
    """Whether a device is one of these, as the words say."""
    names = {"all", info.busid, str(info)[5:-1], f"{str(info)[5:-1]}:{serial}"}
    return pattern in names | {f"class:{interface.bInterfaceClass:02x}" for interface in info.interfaces}


def slow_decision(asked: AccessRules, requester: Requester, info: DeviceInfo, serial: str) -> tuple[bool, object]:
    """What is decided, and by which rule: all of them looked at, one after the other."""
    matching = [
        rule
        for rule in asked
        if slow_client(str(rule.client), requester) and slow_device(str(rule.device), info, serial)
    ]
    for action in (DENY, ALLOW):
        for rule in matching:
            if rule.action == action:
                return action == ALLOW, rule
    return asked.mode == OPEN or requester.is_local, None


@settings(max_examples=300, derandomize=True, deadline=None)
@given(rule_sets, requesters, st.sampled_from(PLUGGED))
def test_a_device_is_allowed_as_by_the_slow_model(
    asked: AccessRules, requester: Requester, plugged: tuple[DeviceInfo, str]
) -> None:
    decision = asked.deciding(requester, *plugged)
    assert (decision.allowed, decision.rule) == slow_decision(asked, requester, *plugged)
    assert bool(decision.reason) is not decision.allowed


@settings(max_examples=300, derandomize=True, deadline=None)
@given(rule_sets, requesters)
def test_a_client_may_connect_exactly_if_there_is_a_device_it_could_have(
    asked: AccessRules, requester: Requester
) -> None:
    decision = asked.connecting(requester)
    assert decision.allowed is any(slow_decision(asked, requester, *plugged)[0] for plugged in PLUGGED)
    assert bool(decision.reason) is not decision.allowed
    if not decision and asked.mode == OPEN:
        assert decision.rule is not None
        assert decision.rule.action == DENY


@settings(max_examples=100, derandomize=True, deadline=None)
@given(rule_sets, requesters)
def test_who_may_still_identify_itself_may_connect_unless_it_is_denied_everything(
    asked: AccessRules, requester: Requester
) -> None:
    known = [requester._replace(identity=identity) for identity in IDENTITIES]
    if any(asked.connecting(one) for one in known):
        assert asked.connecting(requester, may_identify=True) or not asked.connecting(requester)
    denied = AccessRules(asked.mode, (*asked, AccessRule.parse("deny any")))
    assert not denied.connecting(requester, may_identify=True)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(rule_sets, rules, requesters, st.sampled_from(PLUGGED))
def test_a_further_deny_rule_never_allows_and_a_further_allow_rule_never_denies(
    asked: AccessRules, rule: AccessRule, requester: Requester, plugged: tuple[DeviceInfo, str]
) -> None:
    before, after = asked.deciding(requester, *plugged), asked.with_rules([rule]).deciding(requester, *plugged)
    assert after.allowed <= before.allowed if rule.action == DENY else after.allowed >= before.allowed
    closed, opened = asked.with_mode(CLOSED), asked.with_mode(OPEN)
    assert closed.deciding(requester, *plugged).allowed <= opened.deciding(requester, *plugged).allowed


@settings(derandomize=True)
@given(rules)
def test_a_rule_is_written_as_it_is_read(rule: AccessRule) -> None:
    assert AccessRule.parse(str(rule)) == rule


names = st.text(min_size=1).filter(lambda text: text.isprintable() and text == text.strip())


@settings(derandomize=True)
@given(names, names)
def test_names_and_serial_numbers_may_have_blanks_and_quotes(name: str, serial: str) -> None:
    rule = AccessRule(ALLOW, ClientPattern.parse(f"cert:{name}"), DevicePattern.parse(f"303a:4001:{serial}"))
    assert (rule.client.name, rule.device.serial) == (name, serial)
    assert AccessRule.parse(str(rule)) == rule


@settings(derandomize=True)
@given(st.text() | st.builds("allow {} {}".format, st.text(), st.text()))
def test_a_text_is_a_rule_or_an_error_of_its_own(text: str) -> None:
    try:
        rule = AccessRule.parse(text)
    except LocalProtocolError:
        return
    assert AccessRule.parse(str(rule)) == rule


@pytest.mark.parametrize(
    "text",
    [
        "", "allow", "permit any all", "allow 192.0.2.300", "allow 192.0.2.0/33 all", "allow pi all", "allow any pi",
        "allow paired: all", "deny cert:\x1b all", "allow any 303a:4001:\x07", 'allow "cert:a all', "allow 10 all",
        'allow "" all', "allow fe80::1%eth0/64 all", "deny any all all", "allow paired:ann\n1-1\n1-2",
    ],
)  # fmt: skip
def test_what_is_not_a_rule_is_refused_and_named(text: str) -> None:
    with pytest.raises(LocalProtocolError) as refused:
        AccessRule.parse(text)
    assert repr(text) in str(refused.value)


def test_a_rule_without_a_device_is_for_all() -> None:
    assert str(AccessRule.parse(" ALLOW  192.0.2.9/24 ")) == "allow 192.0.2.0/24 all"
    assert str(AccessRule.parse("deny ::ffff:192.0.2.0/120 0x303A:4001")) == "deny 192.0.2.0/24 303a:4001"
    assert str(AccessRule.parse("deny ::ffff:192.0.2.7")) == "deny 192.0.2.7 all"


def test_the_first_rule_that_decides_is_named() -> None:
    asked = AccessRules(OPEN, ["allow any", "deny 192.0.2.0/24 1-1", "deny any 303a:4001", "deny 192.0.2.7"])
    info = DeviceInfo("1-1", 1, 2, Speed.HIGH, 0x303A, 0x4001)
    assert str(asked.deciding(Requester.of("192.0.2.7"), info).rule) == "deny 192.0.2.0/24 1-1"
    assert str(asked.deciding(Requester.of("192.0.3.7"), info).rule) == "deny any 303a:4001"
    assert str(asked.connecting(Requester.of("192.0.2.7")).rule) == "deny 192.0.2.7 all"


def test_closed_is_the_default_and_lets_in_this_machine_only() -> None:
    closed, info = AccessRules(), DeviceInfo("1-1", 1, 2, Speed.HIGH, 0x303A, 0x4001)
    assert closed.mode == CLOSED
    assert closed.connecting(Requester.of("192.0.2.7")).reason == NO_RULE
    for own in (
        Requester.of(""),
        Requester.of("::1"),
        Requester.of("192.0.2.1", "192.0.2.1"),
        Requester.of("127.9.9.9"),
    ):
        assert closed.deciding(own, info)
        assert closed.connecting(own)
        assert not closed.with_rules([AccessRule.parse("deny local 1-1")]).deciding(own, info)


@pytest.mark.parametrize(
    ("mode", "rule", "lets_in"),
    [
        (CLOSED, "deny 192.0.2.0/24", False),
        (CLOSED, "allow local", False),
        (CLOSED, "allow paired", False),
        (CLOSED, "allow cert:ann 1-1", False),
        (CLOSED, "allow 192.0.2.7 1-1", True),
        (CLOSED, "allow any 1-1", True),
        (OPEN, "deny any", True),
    ],
)
def test_whether_others_could_be_let_in(mode: str, rule: str, lets_in: bool) -> None:
    assert AccessRules(mode, [rule]).lets_others_in is lets_in


def test_an_unknown_mode_is_never_open() -> None:
    for mode in ("", "Open", "public"):
        with pytest.raises(LocalProtocolError):
            AccessRules(mode)
