"""`usbip-capture unbind`: has devices not exported any more."""

from __future__ import annotations

import argparse

from usbip_capture.cli.bind import add_rules, change
from usbip_capture.cli.groups import add_command

_ABOUT = """\
Remove rules from the configuration, by which devices are exported; a server that runs follows, and who has such a
device loses it.
"""
_EXAMPLES = """\
  usbip-capture unbind 1-1.4
  usbip-capture unbind 303a:4001 class:03
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "unbind", "have devices not exported any more", _ABOUT, _EXAMPLES)
    add_rules(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Remove the rules; the exit code. Raises UsbipError."""
    return change(args, removing=True)
