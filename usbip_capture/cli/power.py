"""`usbip-capture power`: the power of a port."""

from __future__ import annotations

import argparse

from usbip_capture.cli.commanding import add_busid, add_running_server, running_server
from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command
from usbip_capture.cli.terminal import print_lines

_ABOUT = """\
Switch the power of the port of a device off or on, or off and after 2 seconds on again, where its hub can do that for
each port by itself; few can, and of the others there is a sentence.
"""
_EXAMPLES = """\
  usbip-capture power 1-1.4 cycle        off, and on again
  usbip-capture power 1-1.4 off
  usbip-capture power 1-1.4 on
"""
_DONE = {"off": "has no power", "on": "has power", "cycle": "has power again"}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "power", "switch the power of a port off and on", _ABOUT, _EXAMPLES)
    add_busid(parser)
    parser.add_argument("action", choices=tuple(_DONE), help="what to do")
    add_running_server(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Have it done; the exit code. Raises UsbipError."""
    running_server(args).call("power", busid=args.busid, action=args.action)
    print_lines([f"the port {args.busid} {_DONE[args.action]}"])
    return DONE
