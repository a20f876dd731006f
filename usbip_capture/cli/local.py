"""`usbip-capture local`: the devices of this machine, who holds them, and whether they can be lent."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from usbip_capture.cli import exits, listing
from usbip_capture.cli.groups import add_command, add_json
from usbip_capture.cli.terminal import print_lines, report

if TYPE_CHECKING:
    from usbip_capture.devices.libusb.local_device import LocalDevice

_EXAMPLES = """\
  usbip-capture local                    busids, names, who holds which interface, what can be lent
  usbip-capture local -t                 as a tree of buses and ports
  usbip-capture local -v                 with all descriptors, as lsusb prints them
  usbip-capture local --json | jq -r '.[].devices[] | select(.lendable) | .busid'

No device is asked anything, and no rights are needed. To capture one, name this machine: `usbip-capture capture local
1-1.4`; it is then used by libusb, and its kernel drivers have it again afterwards.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "local",
        "the devices of this machine, and whether they can be lent",
        "List the USB devices of this machine: who holds them, and whether they can be lent to others.",
        _EXAMPLES,
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-v", "--verbose", action="store_true", help="all descriptors, as far as the system has read them")
    how.add_argument("-t", "--tree", action="store_true", help="a tree of buses, ports and interfaces")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List all; the exit code. Raises LibusbMissing."""
    from usbip_capture.devices.libusb.bus import LocalBus
    from usbip_capture.servers.address import LOCAL, ServerAddress

    bus = LocalBus.shared()
    devices = bus.devices()
    listed = listing.Listed(ServerAddress(LOCAL), [device.info for device in devices])
    listing.name_local_devices(listed, devices)
    listed.hub_ports = bus.hub_ports()
    if args.verbose:
        listing.describe_local_devices(listed, devices)
    if args.json:
        import json

        made = listing.as_json(listed)
        made["devices"] = [
            {**shown, **_standing_json(device)}
            for shown, device in zip(listing.devices_json(listed), devices, strict=True)
        ]
        print(json.dumps([made], indent=2))
    elif args.tree or args.verbose:
        print_lines(listing.lines(listed, tree=args.tree, verbose=args.verbose))
    elif devices:
        print_lines(_table(listed, devices))
    for error in () if args.json else listed.problems:
        report(str(error))
    if not devices:
        report(listed.server.empty)
    return exits.DONE if devices else exits.FAILED


def _table(listed: listing.Listed, devices: list[LocalDevice]) -> Iterator[str]:
    """A line for each device, below it what this machine does with it; at the end what helps."""
    from usbip_capture.devices.holders import RULES_FILE, obstacle, remedy
    from usbip_capture.devices.uses import uses

    rows = listing.lines(listed)
    rules = []
    pad = " " * (4 + max((len(device.info.busid) for device in devices), default=0))
    yield rows[0]
    for row, device in zip(rows[1:], devices, strict=True):
        yield row
        if held := _held(device):
            yield f"{pad}{held}"
        for use in uses(device.sysfs):
            yield f"{pad}in use: {use}"
        found = obstacle(device.info, device.sysfs)
        if found is None:
            yield f"{pad}can be lent" if device.sysfs else f"{pad}whether it can be lent shows when it is opened"
        elif found.rule:
            yield f"{pad}cannot be lent: {found.reason} (see below)"
            rules.append(found.rule)
        else:
            yield f"{pad}cannot be lent: {found}"
    if rules:
        yield ""
        yield f"For the right to open them write into {RULES_FILE}:"
        yield from (f"  {rule}" for rule in dict.fromkeys(rules))
        yield "then run as root: udevadm control --reload && udevadm trigger"
    elif sys.platform != "linux" and devices:
        yield ""
        yield f"Where one cannot be opened: {remedy(*devices[0].info.vid_pid)}"


def _held(device: LocalDevice) -> str:
    """Who holds which interfaces: `interfaces 0, 1: cdc_acm; 2: free`."""
    from usbip_capture.devices.holders import interface_holders

    holders = interface_holders(device.sysfs)
    numbers: dict[str, list[int]] = {}
    for number in _interface_numbers(device):
        numbers.setdefault(str(holders.get(number, "free")), []).append(number)
    if not device.sysfs or not numbers:
        return ""
    groups = [f"{', '.join(map(str, some))}: {who}" for who, some in numbers.items()]
    return f"interface{'' if sum(map(len, numbers.values())) == 1 else 's'} {'; '.join(groups)}"


def _interface_numbers(device: LocalDevice) -> list[int]:
    """Those of the current configuration."""
    from usbip_capture.usb.descriptors import parse_configuration

    parsed = map(parse_configuration, device.configurations)
    active = next((c for c in parsed if c.bConfigurationValue == device.info.bConfigurationValue), None)
    return list(dict.fromkeys(i.bInterfaceNumber for i in active.interfaces)) if active is not None else []


def _standing_json(device: LocalDevice) -> dict[str, object]:
    """What `list` does not have. lendable: null where that is known only once it is opened."""
    from usbip_capture.devices.holders import interface_holders, obstacle
    from usbip_capture.devices.uses import uses

    found = obstacle(device.info, device.sysfs)
    return {
        "ports": list(device.ports),
        "manufacturer": device.manufacturer,
        "product": device.product,
        "sysfs": device.sysfs,
        "holders": {str(number): asdict(holder) for number, holder in interface_holders(device.sysfs).items()},
        "uses": [asdict(use) for use in uses(device.sysfs)],
        "lendable": found is None if device.sysfs else None,
        "obstacle": None if found is None else asdict(found),
    }
