"""`usbip-capture config`: servers by name, shown, added and removed."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import fields

from usbip_capture.cli.exits import DONE, FAILED
from usbip_capture.cli.groups import add_command, add_json
from usbip_capture.cli.terminal import print_lines, report
from usbip_capture.errors import LocalProtocolError
from usbip_capture.net.address import format_address, usual_port
from usbip_capture.servers.configuration import (
    CONFIGURATION,
    ENVIRONMENT,
    SERVERS_VARIABLE,
    ConfiguredServer,
    configuration_path,
    configured,
)
from usbip_capture.system.shown import one_line

_EXAMPLES = """\
  usbip-capture config                                what is configured, and where
  usbip-capture config add bench 192.0.2.10:3241      or change where it is
  usbip-capture config add 'Rack 1' pi.local
  usbip-capture config remove bench
  usbip-capture config --json | jq -r .file

The configuration file is TOML; your comments in it are kept:

  [servers]
  bench = "192.0.2.10:3241"
  "Rack 1" = "pi.local"

Its table [server] is for `usbip-capture serve`, and shown here as well.

Then `usbip-capture list bench` asks that server; its name does wherever HOST is taken, and Wireshark has an interface
for it.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands, "config", "show or change the configuration: servers by name",
        "Show which servers are configured, and in which file; add one, or remove it.", _EXAMPLES,
    )  # fmt: skip
    parser.add_argument("change", nargs="?", choices=("add", "remove"), help="what to do (default: show)")
    parser.add_argument("name", nargs="?", metavar="NAME", help="what to call the server, or what it is called")
    parser.add_argument(
        "address", nargs="?", metavar="HOST", help="with add: HOST, HOST:PORT, [IPv6]:PORT, tls://HOST or ssh://HOST"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Change it, or print it; the exit code: 1 if an entry cannot be used. Raises UsbipError."""
    if args.change:
        _change(args)
        return DONE
    servers = configured()
    usable = [server for server in servers if server.host]
    path = configuration_path()
    own, problem = _own_server()
    if args.json:
        print(json.dumps({**_as_json(path, servers), "server": own}, indent=2))
    else:
        there = "" if os.path.exists(path) else "  (not there yet: see `usbip-capture config --help`)"
        print_lines([f"file: {path}{there}"])
        width = max((len(server.name) for server in usable), default=0)
        for server in usable:
            where = f"  ({_place(server)})" if server.source != CONFIGURATION else ""
            print_lines([f"  {one_line(server.name):{width}}  {_address(server)}{where}"])
        for name, value in own.items():
            print_lines([f"serve {name}: {', '.join(value) if isinstance(value, tuple) else json.dumps(value)}"])
    for server in servers:
        if server.problem:
            report(server.complaint(_place(server)))
    if problem and len(usable) == len(servers):  # else the same may have been reported of the whole file
        report(problem)
    return DONE if len(usable) == len(servers) and not problem else FAILED


def _own_server() -> tuple[dict[str, object], str]:
    """The table of `usbip-capture serve` as far as it has values, and what is wrong with it."""
    from usbip_capture.errors import UsbipError
    from usbip_capture.servers.server_table import ServerTable, read_server_table

    try:
        table = read_server_table()
    except UsbipError as error:
        return {}, str(error)
    values = ((field.name, getattr(table, field.name), field.default) for field in fields(ServerTable))
    return {name.replace("_", "-"): value for name, value, default in values if value != default}, ""


def _change(args: argparse.Namespace) -> None:
    from usbip_capture.configuration.named_servers import add_server, remove_server

    if args.change == "remove":
        if not args.name or args.address:
            raise LocalProtocolError("remove needs the NAME of one server, as in `usbip-capture config remove bench`")
        name = remove_server(args.name)
        changed = f"{one_line(name)} is not configured any more"
    else:
        if not args.name or not args.address:
            raise LocalProtocolError("add needs NAME and HOST, as in `usbip-capture config add bench 192.0.2.10`")
        name = add_server(args.name, args.address)
        changed = f"{one_line(name)} is {args.address} from now on"
    if args.json:
        print(json.dumps(_as_json(configuration_path(), configured()), indent=2))
    else:
        print(f"{changed}, in {configuration_path()}")
    if any(s.source == ENVIRONMENT and s.name.lower() == name.lower() for s in configured()):
        report(f"{SERVERS_VARIABLE} names {one_line(name)}, too, and comes first")


def _as_json(path: str, servers: list[ConfiguredServer]) -> dict[str, object]:
    entries = [
        {"name": s.name, "host": s.host, "port": s.port or usual_port(s.host), "source": s.source}
        for s in servers
        if s.host
    ]
    problems = [{"entry": s.entry, "source": s.source, "problem": s.problem} for s in servers if s.problem]
    return {"file": path, "exists": os.path.exists(path), "servers": entries, "problems": problems}


def _address(server: ConfiguredServer) -> str:
    return format_address(server.host, server.port or usual_port(server.host))


def _place(server: ConfiguredServer) -> str:
    return SERVERS_VARIABLE if server.source == ENVIRONMENT else configuration_path()
