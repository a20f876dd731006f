"""`usbip-capture attached`: the devices of servers that are attached to this machine."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command, add_json
from usbip_capture.cli.terminal import print_lines, report

if TYPE_CHECKING:
    from usbip_capture.vhci.attaching import Attachment
    from usbip_capture.vhci.controller import Vhci

_EXAMPLES = """\
  usbip-capture attached
  usbip-capture attached --json | jq -r '.[].local_busid'

Devices that `usbip attach` has attached are listed too, and `usbip port` lists those of `usbip-capture attach`. Only
root can read from where they are.
"""
_IDENTITY = ("idVendor", "idProduct", "manufacturer", "product", "serial")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "attached",
        "the devices that are attached to this machine (Linux)",
        "List the devices of servers that are attached to this machine, and where they are from.",
        _EXAMPLES,
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List them; the exit code. Raises UsbipError."""
    from usbip_capture.vhci.attaching import Attacher
    from usbip_capture.vhci.controller import Vhci

    vhci = Vhci()
    attached = Attacher(vhci).attached()
    if args.json:
        import json

        print(json.dumps([as_json(one, vhci) for one in attached], indent=2))
    elif attached:
        print_lines([line(one, vhci) for one in attached])
    else:
        report("nothing is attached")
    return DONE


def line(one: Attachment, vhci: Vhci) -> str:
    """As people read it: port, busid here, identity and name, and where it is from."""
    vid, pid, maker, product, serial = (vhci.attribute(one.port.local_busid, name) for name in _IDENTITY)
    name = ", ".join(part for part in (f"{maker} {product}".strip(), serial) if part)
    identity = f"{vid}:{pid}" if vid else "not enumerated"
    return f"port {one.port.number}: {one.port.local_busid or '-'}  {identity}  {name}  from {one.where}"


def as_json(one: Attachment, vhci: Vhci) -> dict[str, object]:
    """For scripts; what is not known is null."""
    port, origin = one.port, one.origin
    known = {name: vhci.attribute(port.local_busid, name) or None for name in _IDENTITY}
    return {
        "port": port.number,
        "hub": port.hub,
        "local_busid": port.local_busid or None,
        "speed": int(port.speed),
        "devid": port.devid,
        "host": origin.host if origin else None,
        "server_port": origin.port if origin else None,
        "busid": origin.busid if origin else None,
        **known,
    }
