"""`usbip-capture kick`: disconnect the client that has a device."""

from __future__ import annotations

import argparse

from usbip_capture.cli.commanding import add_busid, add_running_server, running_server
from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command
from usbip_capture.cli.terminal import print_lines

_ABOUT = """\
Disconnect the client that has a device. The device stays exported: the next client may have it, also the same one.
"""
_EXAMPLES = """\
  usbip-capture kick 1-1.4
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "kick", "disconnect the client that has a device", _ABOUT, _EXAMPLES)
    add_busid(parser)
    add_running_server(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Have it done; the exit code. Raises UsbipError."""
    running_server(args).call("kick", busid=args.busid)
    print_lines([f"the client of {args.busid} is disconnected"])
    return DONE
