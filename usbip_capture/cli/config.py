"""`usbip-capture config`: servers by name, and where they are configured."""

from __future__ import annotations

import argparse
import json
import os

from usbip_capture.address import DEFAULT_PORT, format_address
from usbip_capture.cli.exits import DONE, FAILED
from usbip_capture.cli.groups import add_command, add_json
from usbip_capture.cli.terminal import say, tell
from usbip_capture.configuration import (
    CONFIGURATION,
    ENVIRONMENT,
    SERVERS_VARIABLE,
    ConfiguredServer,
    configuration_path,
    configured,
)
from usbip_capture.shown import one_line

_EXAMPLES = """\
  usbip-capture config                 what is configured, and where
  usbip-capture config --json | jq -r .file

A configuration file, in TOML:

  [servers]
  bench = "192.0.2.10:3241"
  "Rack 1" = "pi.local"

Then `usbip-capture list bench` asks that server; its name does wherever HOST is taken, and Wireshark has an interface
for it.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands, "config", "show the configuration: servers by name",
        "Show which servers are configured, and the file to write them into.", _EXAMPLES,
    )  # fmt: skip
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it; the exit code: 1 if an entry cannot be used."""
    servers = configured()
    usable = [server for server in servers if server.host]
    path = configuration_path()
    if args.json:
        print(json.dumps(_as_json(path, servers), indent=2))
    else:
        there = "" if os.path.exists(path) else "  (not there yet: see `usbip-capture config --help`)"
        say([f"file: {path}{there}"])
        width = max((len(server.name) for server in usable), default=0)
        for server in usable:
            where = f"  ({_place(server)})" if server.source != CONFIGURATION else ""
            say([f"  {one_line(server.name):{width}}  {_address(server)}{where}"])
    for server in servers:
        if server.problem:
            tell(f"{server.entry!r} in {_place(server)} cannot be used: {server.problem}")
    return DONE if len(usable) == len(servers) else FAILED


def _as_json(path: str, servers: list[ConfiguredServer]) -> dict[str, object]:
    entries = [
        {"name": s.name, "host": s.host, "port": s.port or DEFAULT_PORT, "source": s.source} for s in servers if s.host
    ]
    problems = [{"entry": s.entry, "source": s.source, "problem": s.problem} for s in servers if s.problem]
    return {"file": path, "exists": os.path.exists(path), "servers": entries, "problems": problems}


def _address(server: ConfiguredServer) -> str:
    return format_address(server.host, server.port or DEFAULT_PORT)


def _place(server: ConfiguredServer) -> str:
    return SERVERS_VARIABLE if server.source == ENVIRONMENT else configuration_path()
