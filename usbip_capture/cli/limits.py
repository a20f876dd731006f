"""The options of limits, which whatever listens for USB/IP clients has."""

from __future__ import annotations

import argparse

from usbip_capture.access.limits import CONNECTIONS_PER_SECOND
from usbip_capture.cli.values import MAX_COUNT, whole


def add_limits(parser: argparse._ActionsContainer, most: str = "") -> None:
    """How many clients there may be. most: how many by default where there is always a limit."""
    number = whole(0, MAX_COUNT)
    of_all = f"at a time (default: {most})" if most else "at a time; 0: no limit (default: 0)"
    parser.add_argument("--max-clients", type=number, metavar="N", help=of_all)
    parser.add_argument(
        "--max-clients-per-address",
        type=number,
        metavar="N",
        help="at a time from one address; 0: no limit (default: 0)",
    )
    parser.add_argument(
        "--connections-per-second",
        type=number,
        metavar="N",
        help=f"from one address; 0: no limit (default: {CONNECTIONS_PER_SECOND})",
    )


def given_limits(args: argparse.Namespace) -> dict[str, int]:
    """Those of these options that are given, as `Limits` calls them."""
    names = ("max_clients", "max_clients_per_address", "connections_per_second")
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}
