"""`usbip-capture release`: a device is not reserved any more, or for who comes next."""

from __future__ import annotations

import argparse
import time

from usbip_capture.cli.commanding import add_busid, add_running_server, rows, running_server
from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command
from usbip_capture.cli.terminal import print_lines
from usbip_capture.cli.turns import moment

_ABOUT = """\
End the reservation of a device before its time is over. Who comes next has the device then; who has attached it and may
still have it keeps it.
"""
_EXAMPLES = """\
  usbip-capture release 1-1.4                        of whoever has it now
  usbip-capture release 1-1.4 --client 192.0.2.7     of this one, who may still wait for it
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "release", "end the reservation of a device", _ABOUT, _EXAMPLES)
    add_busid(parser)
    parser.add_argument(
        "--client", metavar="CLIENT", default="", help="whose, as it was reserved (default: who has it now)"
    )
    add_running_server(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Have it done; the exit code. Raises UsbipError."""
    turns = rows(running_server(args).call("release", busid=args.busid, client=args.client), "turns")
    if turns:
        until = moment(turns[0], "until", time.time())
        print_lines([f"{args.busid} is reserved for {turns[0].get('client')} now, until {until}"])
    else:
        print_lines([f"{args.busid} is not reserved any more"])
    return DONE
