"""Options of the table that a command has too: same name, limits, default and help as in Wireshark's dialog."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

from usbip_capture.cli.values import port, seconds, whole
from usbip_capture.errors import LocalProtocolError
from usbip_capture.options.option import BOOLEAN, DOUBLE, UNSIGNED, Option, Value
from usbip_capture.options.table import OPTIONS, Choices

_PORTS = (1, 65535)
#: Those whose attribute of a command's arguments means the same; `--syslog`, `--device` and `--host` do not.
_KEYS = tuple(option.key for option in OPTIONS if option.name not in ("host", "port", "device", "syslog"))


def add_options(group: argparse._ArgumentGroup, *names: str, **defaults: Value | None) -> None:
    """Add these options of the table. defaults: by `Option.key`, where a command has another than the table.

    A switch is --name or --no-name here, and takes no other value than on and off: the next word may be HOST.
    """
    for option in OPTIONS:
        if option.name not in names:
            continue
        default = defaults.get(option.key, option.default)
        shown = f" (default: {option.default_text})" if option.default and option.kind != BOOLEAN else ""
        help_text = (option.help + shown).replace("%", "%%")
        if option.kind == BOOLEAN:
            flag = argparse.BooleanOptionalAction
            group.add_argument(option.flag, action=flag, default=default, help=help_text)
        else:
            group.add_argument(
                option.flag, type=_type(option), default=default, metavar=_metavar(option), help=help_text
            )


def choices_of(args: argparse.Namespace) -> Choices:
    """Choices with what `args` has of the table; the table's defaults for the rest."""
    choices = Choices({})
    for key in _KEYS:
        value = getattr(args, key, None)
        if value is not None:
            setattr(choices, key, value)
    return choices


def _metavar(option: Option) -> str:
    if option.choices and len(option.choices) <= 4:
        return "|".join(value for value, _ in option.choices)
    return option.unit.upper() or option.name.rpartition("-")[2].upper()


def _type(option: Option) -> Callable[[str], Value]:
    if option.limits == _PORTS:
        return port
    if option.kind == UNSIGNED and option.limits:
        return whole(*option.limits)
    if option.kind == DOUBLE and option.limits:
        return partial(seconds, most=option.limits[1], unit="a year")
    return partial(_parsed, option) if option.choices or option.validation else str


def _parsed(option: Option, text: str) -> Value:
    try:
        return option.parse(text)
    except LocalProtocolError:
        raise argparse.ArgumentTypeError(f"must be {option.expectation}, not {text!r}") from None
