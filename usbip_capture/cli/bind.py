"""`usbip-capture bind`: has devices exported, now and from each start of the server on."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from usbip_capture.cli.commanding import add_running_server, rows, running_server
from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command
from usbip_capture.cli.terminal import print_lines

if TYPE_CHECKING:
    from usbip_capture.control_socket.asking import Control

_RULES = "a port such as 1-1.4, VID:PID, VID:PID:SERIAL, class:03, or all; may be repeated"
_ABOUT = """\
Have devices exported: the rule is written into the configuration, under [server], and a server that runs follows. It
holds for what is plugged in later, too.
"""
_EXAMPLES = """\
  usbip-capture bind 1-1.4                    whatever is plugged into this port
  usbip-capture bind 303a:4001 class:03       devices of this kind, and of this class
  usbip-capture unbind 1-1.4                  the other way round
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "bind", "have devices exported, by the configuration", _ABOUT, _EXAMPLES)
    add_rules(parser)
    parser.set_defaults(run=run)


def add_rules(parser: argparse.ArgumentParser) -> None:
    """The rules to add, or to remove."""
    parser.add_argument("rules", nargs="+", metavar="RULE", help=_RULES)
    add_running_server(parser)


def run(args: argparse.Namespace) -> int:
    """Add the rules; the exit code. Raises UsbipError."""
    return change(args, removing=False)


def change(args: argparse.Namespace, *, removing: bool) -> int:
    """Change the file, then the servers that run. Raises UsbipError."""
    from usbip_capture.configuration.exports import add_exports, remove_exports
    from usbip_capture.control_socket.asking import running
    from usbip_capture.server.rules import ExportRule
    from usbip_capture.servers.configuration import configuration_path

    rules = [ExportRule.parse(rule) for rule in args.rules]
    servers = [running_server(args)] if args.running_server else running()
    path = _path_of(servers) or configuration_path()
    changed = (remove_exports if removing else add_exports)(path, rules)
    for rule in rules:
        was = "" if rule in changed else " already"
        print_lines([f"{rule} is{f'{was} not' if removing else was} to be exported, in {path}"])
    for server in servers:
        _have_followed(server, [str(rule) for rule in rules], removing, always=len(servers) == 1)
    if not servers:
        print_lines(["no server of yours is running: it holds from the next `usbip-capture serve` on"])
    return DONE


def _path_of(servers: list[Control]) -> str:
    """The configuration that the only server reads, which for a service is not the user's; empty if it is not one."""
    return str(servers[0].call("status").get("configuration", "")) if len(servers) == 1 else ""


def _have_followed(server: Control, rules: list[str], removing: bool, *, always: bool) -> None:
    answer = server.call("bind", rules=rules, remove=removing, always=always)
    if not answer.get("changed"):
        print_lines([f"the server {server.name} exports by its command line; with --server {server.name} it follows"])
        return
    devices = ", ".join(
        f"{device.get('busid')} {device.get('product', '')}".strip() for device in rows(answer, "devices")
    )
    print_lines([f"the server {server.name} exports now: {devices or 'nothing that is plugged in'}"])
