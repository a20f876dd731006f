"""Many servers in one process, for who asks them all: `many_servers.py SERVERS DASHBOARDS DEAD DEVICES`.

SERVERS speak USB/IP, the first DASHBOARDS of them have a dashboard as well; DEAD more accept connections and never
answer.
Prints a configuration, as `config.toml` has it, when all are there; ends when its standard input does.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import cast

from tests.fakes.local_bus import FakeBus
from usbip_capture import serve
from usbip_capture.demo.device import INFO, DemoDevice
from usbip_capture.net.address import format_address
from usbip_capture.server import Server
from usbip_capture.web.dashboard import Dashboard
from usbip_capture.web.roles import LOOK

_ANY = "127.0.0.1:0"
Tables = dict[str, list[str]]


def with_dashboard(stack: ExitStack, name: str, devices: int, tables: Tables) -> None:
    """A server of ours, whose devices have serial numbers."""
    bus = FakeBus()
    for port in range(devices):
        bus.plug(f"1-{port + 1}", serial=f"{name}-{port}")
    server = stack.enter_context(serve(["all"], bus=bus, listen=_ANY, web=_ANY))
    made = cast("Dashboard", server.dashboard)
    tables["servers"].append(f'{name} = "{server.address}"')
    tables["dashboards"].append(f'{name} = "{made.urls[0].rstrip("/")}"')
    tables["tokens"].append(f'{name} = "{made.side.tokens.add(name, LOOK)}"')


def plain(stack: ExitStack, name: str, devices: int, tables: Tables) -> None:
    """One that speaks USB/IP only."""
    server = Server()
    for port in range(devices):
        info = replace(INFO, busid=f"1-{port + 1}", devnum=port + 2)
        server.add(info, partial(DemoDevice, info))
    stack.callback(server.close)
    tables["servers"].append(f'{name} = "{format_address(*server.listen("127.0.0.1", 0))}"')


def main(servers: int, dashboards: int, dead: int, devices: int) -> None:
    tables: Tables = {"servers": [], "dashboards": [], "tokens": []}
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        for at in range(servers):
            (with_dashboard if at < dashboards else plain)(stack, f"server-{at:03d}", devices, tables)
        for at in range(dead):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
            tables["servers"].append(f'dead-{at:03d} = "127.0.0.1:{listener.getsockname()[1]}"')
        sys.stdout.writelines(f"{line}\n" for table, lines in tables.items() for line in (f"[{table}]", *lines))
        sys.stdout.flush()
        os.close(1)
        sys.stdin.read()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
