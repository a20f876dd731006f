"""Options of the table on the command line of `usbip-capture capture`: declared once, the same in both programs."""

from __future__ import annotations

import argparse

import pytest

from usbip_capture.cli.commands import parse as command_line
from usbip_capture.cli.commands import parser
from usbip_capture.cli.table_options import choices_of
from usbip_capture.errors import LocalProtocolError
from usbip_capture.options.option import BOOLEAN, Option
from usbip_capture.options.parsing import subparsers
from usbip_capture.options.table import OPTIONS, Choices

#: What the command has in its own way: HOST, DEVICE, --syslog as a switch; and the log file, which it has not.
OWN = ("host", "port", "device", "devices", "syslog", "log-level", "log-file")
SHARED = [option for option in OPTIONS if option.name not in OWN]


def parse(*words: str) -> argparse.Namespace:
    return subparsers(parser("capture"))["capture"].parse_args(["demo", *words])


@pytest.mark.parametrize("option", SHARED, ids=lambda option: option.name)
def test_the_command_has_each_option_of_a_capture(option: Option) -> None:
    action = subparsers(parser("capture"))["capture"]._option_string_actions[option.flag]
    assert (action.help or "").startswith(option.help.replace("%", "%%"))


def test_without_options_both_capture_the_same() -> None:
    assert vars(choices_of(parse())) == vars(Choices({}))


@pytest.mark.parametrize("option", [option for option in SHARED if option.limits], ids=lambda option: option.name)
def test_limits_are_those_of_the_table(option: Option) -> None:
    assert option.limits is not None
    for limit in option.limits:
        assert getattr(choices_of(parse(option.flag, str(limit))), option.key) == limit
    for beyond in (option.limits[0] - 1, option.limits[1] + 1):
        with pytest.raises(LocalProtocolError, match=option.flag):
            parse(f"{option.flag}={beyond}")


@pytest.mark.parametrize("option", [o for o in SHARED if o.kind == BOOLEAN], ids=lambda option: option.name)
def test_switches_do_not_take_the_next_word(option: Option) -> None:
    for flag, value in ((option.flag, True), (f"--no-{option.name}", False)):
        args = subparsers(parser("capture"))["capture"].parse_args([flag, "pi"])
        assert (args.server, getattr(choices_of(args), option.key)) == ("pi", value)


@pytest.mark.parametrize("option", [o for o in SHARED if o.kind == BOOLEAN], ids=lambda option: option.name)
def test_switches_take_on_and_off_as_the_plug_in_does(option: Option) -> None:
    for value in (True, False):
        word = "on" if value else "off"
        for words in ((option.flag, word), (f"{option.flag}={word}",)):
            for around in (("demo", *words), (*words, "demo")):
                args = command_line("capture", list(around))
                assert (args.server, args.device, getattr(choices_of(args), option.key)) == ("demo", "", value)


def test_values_that_cannot_be_name_what_can() -> None:
    with pytest.raises(LocalProtocolError, match="--mode must be probe or relay or server or syslog, not 'x'"):
        parse("--mode", "x")
