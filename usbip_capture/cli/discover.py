"""`usbip-capture discover`: servers that announce themselves on the network, printed as they answer."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from typing import TYPE_CHECKING

from usbip_capture.cli.exits import DONE, FAILED
from usbip_capture.cli.groups import add_browsing, add_command, add_json, add_old_name
from usbip_capture.cli.terminal import BOLD, DIM, Paint, Waiting, report
from usbip_capture.cli.values import wait
from usbip_capture.net.address import format_address
from usbip_capture.system.shown import one_line

if TYPE_CHECKING:
    from usbip_capture.servers.mdns import DiscoveredServer

_EXAMPLES = """\
  usbip-capture discover                 look for three seconds
  usbip-capture discover --mdns-timeout 10    look longer
  usbip-capture discover --json | jq -r '.[].host'

Servers that are found become interfaces in Wireshark, and `usbip-capture list` asks them. Linux's usbipd and
usbipd-win do not announce themselves: name such a server yourself.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "discover",
        "find servers that announce themselves on the network",
        "Look for USB/IP servers that announce themselves by mDNS (_usbip._tcp), over IPv4 and IPv6.",
        _EXAMPLES,
    )
    add_browsing(parser, "how long to look (default: %(default)g)")
    add_old_name(parser, "--timeout", "--mdns-timeout", wait)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print servers until the time is over; the exit code. Raises ServerUnreachable."""
    from usbip_capture.servers import memory
    from usbip_capture.servers.mdns import browsing

    found: dict[str, DiscoveredServer] = {}
    lock = threading.Lock()
    paint = Paint(sys.stdout)
    with Waiting("looking for servers") as waiting:

        def on_found(server: DiscoveredServer) -> None:
            with lock:
                if found.get(server.name) == server:
                    return
                found[server.name] = server
                if not args.json:
                    waiting.clear()
                    print("".join(f"{line}\n" for line in lines(server, paint)), end="", flush=True)
                    waiting.show()
            for place in (*server.places, *server.dashboards):
                memory.remember_server(*place, server.name, "mdns")

        with browsing(on_found):
            threading.Event().wait(args.mdns_timeout)
    with lock:
        servers = sorted(found.values(), key=lambda server: server.name)
    if args.json:
        print(json.dumps([as_json(server) for server in servers], indent=2))
    elif not servers:
        report(
            f"no server has announced itself within {args.mdns_timeout:g} s: name one, as in `usbip-capture list pi`"
        )
    return DONE if servers else FAILED


def lines(server: DiscoveredServer, paint: Paint) -> list[str]:
    """A server as people read it: address, name; other addresses and TXT data below."""
    where = [one_line(format_address(*place)) for place in server.places]
    shown = [f"{paint(BOLD, where[0])}  {one_line(server.name)}", *(f"    {other}" for other in where[1:])]
    others = [address for address in server.addresses if address != server.host]
    if others:
        shown.append(paint(DIM, f"    also {one_line(', '.join(others))}"))
    if server.properties:
        text = " ".join(f"{key}={value}" for key, value in sorted(server.properties.items()))
        shown.append(paint(DIM, f"    {one_line(text)}"))
    return shown


def as_json(server: DiscoveredServer) -> dict[str, object]:
    """A server for scripts."""
    return {
        "name": server.name,
        "host": server.host,
        "port": server.port,
        "places": [format_address(*place) for place in server.places],
        "addresses": list(server.addresses),
        "txt": dict(sorted(server.properties.items())),
    }
