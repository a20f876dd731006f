"""`usbip-capture detach`: what was attached by `attach` or usbip goes back to its server."""

from __future__ import annotations

import argparse

from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command
from usbip_capture.cli.terminal import print_lines

_EXAMPLES = """\
  usbip-capture attached           what is attached, and at which port
  sudo usbip-capture detach 0      the device at port 0
  sudo usbip-capture detach 1-1.2  by its busid, the server's or the one that it has here
  sudo usbip-capture detach all
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "detach",
        "detach a device that is attached to this machine (Linux)",
        "Detach a device that `usbip-capture attach` or `usbip attach` has attached: its server has it again.",
        _EXAMPLES,
    )
    parser.add_argument("which", metavar="PORT|BUSID|all", help="the port, a busid, or all, as `attached` lists them")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Detach; the exit code. Raises UsbipError."""
    from usbip_capture.vhci.attaching import Attacher
    from usbip_capture.vhci.controller import Vhci

    detached = Attacher(Vhci()).detach(args.which)
    print_lines([f"{one.where} is detached from port {one.port.number}" for one in detached] or ["nothing is attached"])
    return DONE
