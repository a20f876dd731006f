"""Rules of what is exported: written and read alike, never for hubs and what comes from elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.errors import LocalProtocolError
from usbip_capture.server.rules import ExportRule, Rules
from usbip_capture.usb.info import DeviceInfo, InterfaceInfo, Speed

INTERFACES = (InterfaceInfo(3, 1, 1), InterfaceInfo(8, 6, 80))


def device(bDeviceClass: int = 0) -> DeviceInfo:
    return DeviceInfo("1-1.4", 1, 5, Speed.HIGH, 0x303A, 0x4001, bDeviceClass=bDeviceClass, interfaces=INTERFACES)


@pytest.mark.parametrize(
    ("rule", "serial", "matches"),
    [
        ("1-1.4", "", True),
        (" 1-1.4 ", "", True),
        ("1-1", "", False),
        ("1-1.40", "", False),
        ("303a:4001", "", True),
        ("0x303A:0x4001", "", True),
        ("303a:4002", "", False),
        ("303a:4001:AB 1:2", "AB 1:2", True),
        ("303a:4001:AB", "AB 1:2", False),
        ("303a:4001:AB", "", False),
        ("class:03", "", True),
        ("CLASS:8", "", True),
        ("class:0xff", "", False),
        ("All", "", True),
    ],
)
def test_what_a_rule_matches(rule: str, serial: str, matches: bool) -> None:
    parsed = ExportRule.parse(rule)
    assert parsed.matches(device(), serial) is matches
    assert ExportRule.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "1-", "1-1.", "1-1.1.1.1.1.1.1.1", "usb1", "303a", "303a:", "30xa:1", "303a:4001:", "12345:1"),
        *("303a:4001:\x1b[2J", "class:", "class:100", "class:hid", "class:09", "*", "everything", "1-1,1-2"),
    ],
)
def test_what_is_not_a_rule(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        ExportRule.parse(text)


@given(st.text(max_size=20) | st.text("0123456789abcdef:-.clas", max_size=12))
def test_any_text_is_a_rule_or_an_error(text: str) -> None:
    try:
        rule = ExportRule.parse(text)
    except LocalProtocolError:
        return
    assert ExportRule.parse(str(rule)) == rule


@pytest.mark.parametrize("rule", ["1-1.4", "303a:4001", "class:03", "all"])
def test_hubs_and_devices_from_elsewhere_stay(rule: str) -> None:
    rules = Rules([rule], force=True)
    assert rules.exporting(device())
    assert rules.exporting(device(9)) is None
    assert rules.exporting(device(), is_foreign=True) is None


def test_disks_in_use_need_force_or_their_name() -> None:
    for rule in ("all", "class:08"):
        assert Rules([rule]).exporting(device(), is_in_use=True) is None
        assert Rules([rule], force=True).exporting(device(), is_in_use=True)
    for rule in ("1-1.4", "303a:4001"):
        assert str(Rules(["all", rule]).exporting(device(), is_in_use=True)) == rule


def test_rules_are_kept_once_in_their_order() -> None:
    rules = Rules(["all", "1-1", "ALL"])
    assert list(map(str, rules)) == ["all", "1-1"]
    more = rules.with_rule(ExportRule.parse("303A:1")).with_rule(ExportRule.parse("1-1"))
    assert list(map(str, more)) == ["all", "1-1", "303a:0001"]
    assert list(map(str, more.without_rule(ExportRule.parse("1-1")))) == ["all", "303a:0001"]
    assert (len(more), more == rules, rules == Rules(["all", "1-1"])) == (3, False, True)
