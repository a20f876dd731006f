"""`usbip-capture labgrid-config`: writes the configuration of labgrid's exporter for what is plugged in here."""

from __future__ import annotations

import argparse

from usbip_capture.cli import exits
from usbip_capture.cli.groups import add_command
from usbip_capture.cli.labgrid_exporter import check_labgrid
from usbip_capture.cli.terminal import print_lines

_EXAMPLES = """\
  usbip-capture labgrid-config > exporter.yaml
  usbip-capture labgrid-config --allow 192.0.2.0/24 > exporter.yaml
  usbip-capture labgrid-config --by-port           by port, whatever is plugged in there later

Then: usbip-capture labgrid-exporter exporter.yaml
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "labgrid-config",
        "the configuration of labgrid's exporter for what is plugged in here",
        "Write the configuration of labgrid's exporter, in YAML: each device that is plugged in here and can be lent, "
        "in a group that is called as its port.",
        _EXAMPLES,
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="NETWORK",
        help="who may use the devices, such as 192.0.2.0/24; may be repeated (default: this machine, and who reaches "
        "it by labgrid's ssh)",
    )
    parser.add_argument(
        "--by-port",
        action="store_true",
        help="name devices by their ports (default: by VID:PID and serial number, where that means one device)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it; the exit code. Raises UsbipError."""
    check_labgrid()
    from usbip_capture.devices.libusb.bus import LocalBus
    from usbip_capture.labgrid.proposal import proposal
    from usbip_capture.net.networks import parse_networks

    allow = [str(network) for network in parse_networks(",".join(args.allow))]
    print_lines(proposal(LocalBus.shared().devices(), by_port=args.by_port, allow=allow))
    return exits.DONE
