"""`usbip-capture labgrid-exporter`: labgrid's exporter, which lends this machine's devices to its places."""

from __future__ import annotations

import argparse
import os
import socket
from importlib.util import find_spec

from usbip_capture.cli.groups import add_command
from usbip_capture.cli.terminal import report
from usbip_capture.coordinator.asking import LABGRID_MISSING
from usbip_capture.errors import UsbipError
from usbip_capture.servers.configuration import COORDINATOR_VARIABLE, coordinator

_EXAMPLES = """\
  usbip-capture labgrid-exporter exporter.yaml
  usbip-capture labgrid-exporter -c lab.example.org -n bench-pc exporter.yaml
  usbip-capture labgrid-config > exporter.yaml     the configuration for what is plugged in here

It is labgrid's own exporter, and exports all other resources as well. Exit status: that of labgrid-exporter, which is
100 when the coordinator cannot be reached: have a service start it again.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "labgrid-exporter",
        "labgrid's exporter: lend devices to whoever acquires their place",
        "Run labgrid's exporter. A device that its configuration has as UsbipDevice is lent, by a server on a port of "
        "its own, while its place is acquired.",
        _EXAMPLES,
    )
    parser.add_argument("resources", metavar="FILE", help="the exporter's configuration, in YAML")
    parser.add_argument(
        "-c",
        "--coordinator",
        metavar="HOST[:PORT]",
        default=coordinator(),
        help=f"labgrid's coordinator (default: {COORDINATOR_VARIABLE}, else that of the configuration, else "
        "127.0.0.1:20408)",
    )
    parser.add_argument("-n", "--name", default="", help="of this exporter (default: as this machine)")
    parser.add_argument(
        "--hostname", default="", metavar="HOST", help="where clients reach this machine (default: its name)"
    )
    parser.add_argument("-i", "--isolated", action="store_true", help="clients reach all resources by ssh only")
    parser.set_defaults(run=run)


def check_labgrid() -> None:
    """Raises UsbipError where labgrid is not installed."""
    found = find_spec("labgrid")
    if found is None or found.origin is None:  # a mere folder of this name has no origin
        raise UsbipError(LABGRID_MISSING)


def run(args: argparse.Namespace) -> int:
    """Export until stopped; the exit code. Raises UsbipError."""
    check_labgrid()
    from usbip_capture.labgrid import exporter

    given = [(f"--{name}", getattr(args, name)) for name in ("coordinator", "name", "hostname")]
    arguments = [f"{flag}={value}" for flag, value in given if value] + ["--isolated"] * args.isolated
    host = args.hostname or socket.gethostname()
    known = {"env": os.environ, "isolated": args.isolated, "hostname": host, "name": args.name or socket.gethostname()}
    code = exporter.run(args.resources, arguments, known)
    if code == exporter.NO_COORDINATOR:
        where = args.coordinator or "127.0.0.1:20408"
        report(f"labgrid's coordinator at {where} cannot be reached: start it, or name another one with -c")
    return code
