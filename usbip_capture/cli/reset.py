"""`usbip-capture reset`: reset a device of the running server."""

from __future__ import annotations

import argparse

from usbip_capture.cli.commanding import add_busid, add_running_server, running_server
from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command
from usbip_capture.cli.terminal import print_lines

_ABOUT = """\
Reset a device of the server that you run here, as if it was plugged in anew, whether a client has it or not. One that
has it sees the transfers fail that were in flight.
"""
_EXAMPLES = """\
  usbip-capture reset 1-1.4
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "reset", "reset a device of the running server", _ABOUT, _EXAMPLES)
    add_busid(parser)
    add_running_server(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Have it done; the exit code. Raises UsbipError."""
    running_server(args).call("reset", busid=args.busid)
    print_lines([f"{args.busid} was reset"])
    return DONE
