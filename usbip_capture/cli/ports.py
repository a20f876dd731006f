"""`usbip-capture ports`: what could be opened as serial ports, as URLs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

from usbip_capture.cli import exits, listing
from usbip_capture.cli.groups import add_command, add_json, add_old_name, add_recording, add_servers
from usbip_capture.cli.list import answers
from usbip_capture.cli.session import chosen_servers, recording
from usbip_capture.cli.terminal import print_lines, report
from usbip_capture.cli.values import wait
from usbip_capture.serial_port.url import url_of
from usbip_capture.servers.address import ServerAddress

if TYPE_CHECKING:
    from usbip_capture.describe.reading import Description

_EXAMPLES = """\
  usbip-capture ports pi                 serial ports of the server `pi`
  usbip-capture ports                    of all servers that are configured or announce themselves
  usbip-capture ports demo --json | jq -r '.[].url'

Programs of pyserial take them as the name of a port; `usbip-capture serial` opens a terminal.

Each device is imported for a moment to see what it has, which resets it on many servers.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "ports",
        "serial ports, as URLs to open them with",
        "Find what could be opened as serial ports, as usbip:// URLs.",
        _EXAMPLES,
    )
    add_servers(parser)
    add_old_name(parser, "--timeout", "--connect-timeout", wait)
    add_json(parser)
    add_recording(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a URL a line; the exit code: that of the first server that failed, 1 if there is no port."""
    servers = chosen_servers(args)
    found: list[dict[str, object]] = []
    failed: list[int] = []
    with recording(args, servers) as writer:
        for listed in answers(args, servers):
            if listed.error is not None:
                report(str(listed.error))
                failed.append(exits.exit_code(listed.error))
            listing.describe(listed, writer)
            for problem in listed.problems:
                report(str(problem))
            for port in _ports(listed):
                found.append(port)
                if not args.json:
                    print_lines([f"{port['url']}  {port['name']}"])
    if args.json:
        print(json.dumps(found, indent=2))
    elif not found and not failed:
        report("no serial port found")
    return failed[0] if failed else exits.DONE if found else exits.FAILED


def _ports(listed: listing.Listed) -> Iterator[dict[str, object]]:
    for info in listed.devices:
        description = listed.descriptions.get(info.busid)
        interfaces = serial_interfaces(description) if description is not None else []
        for number in interfaces:
            yield {
                "url": url(listed.server, info.busid, number if len(interfaces) > 1 else None),
                "name": listed.name(info),
                "server": str(listed.server),
                "busid": info.busid,
                "interface": number,
                "vid_pid": f"{info.idVendor:04x}:{info.idProduct:04x}",
                "idVendor": info.idVendor,
                "idProduct": info.idProduct,
            }


def url(server: ServerAddress, busid: str, interface: int | None) -> str:
    """As `usbip://192.168.1.20/1-2.3`; the interface is named where a device has several ports."""
    where, given = url_of(server)
    given += [] if interface is None else [f"interface={interface}"]
    return f"usbip://{where}/{quote(busid, safe=':')}{'?' if given else ''}{'&'.join(given)}"


def serial_interfaces(found: Description) -> list[int]:
    """bInterfaceNumber of each serial port of the active configuration."""
    from usbip_capture.uart.ports import find_ports

    active = [c for c in found.configurations if c.bConfigurationValue == found.active]
    return [port.interface for c in active for port in find_ports(found.device, c, found.info.speed)]
