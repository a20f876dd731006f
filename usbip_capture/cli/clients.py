"""`usbip-capture clients`: who is connected to the running server."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

from usbip_capture.cli.commanding import add_running_server, columns, rows, running_server
from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command, add_json
from usbip_capture.cli.terminal import print_lines, report
from usbip_capture.cli.turns import reserved

if TYPE_CHECKING:
    from usbip_capture.live.messages import Message

_ABOUT = "Show who is connected to the server that you run here, since when, with which device, and what has passed."
_EXAMPLES = """\
  usbip-capture clients
  usbip-capture clients --server bench        of several servers, the one called bench
  usbip-capture clients --json | jq -r '.[].client'
"""
_TITLE = ["client", "device", "", "attached", "URBs", "bytes", "product"]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "clients", "who is connected to the running server", _ABOUT, _EXAMPLES)
    add_running_server(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print them; the exit code. Raises UsbipError."""
    clients = rows(running_server(args).call("clients"), "clients")
    if args.json:
        print(json.dumps(clients, indent=2))
    elif clients:
        reservations = [reserved(client) for client in clients]
        lines = [[*_row(client), text] for client, text in zip(clients, reservations, strict=True)]
        print_lines(columns([[*_TITLE, "reserved" if any(reservations) else ""], *lines]))
    else:
        report("nobody is connected")
    return DONE


def _row(client: Message) -> list[str]:
    def text(name: str) -> str:
        return str(client.get(name, ""))

    imported = client.get("imported")
    attached = duration(time.time() - imported) if isinstance(imported, (int, float)) and imported else ""
    return [text("client"), text("busid"), text("vid_pid"), attached, text("urbs"), text("bytes"), text("product")]


def duration(seconds: float) -> str:
    """As `0:42`, `1:00:42`."""
    minutes, rest = divmod(max(int(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
