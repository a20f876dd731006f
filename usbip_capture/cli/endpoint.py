"""What `read` and `write` share: an endpoint of a device, ready for transfers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from usbip_capture.cli.groups import add_device, add_old_name, add_server, add_transfer_timeout
from usbip_capture.cli.values import number8, seconds
from usbip_capture.errors import LocalProtocolError

if TYPE_CHECKING:
    from usbip_capture.cli.session import Imported
    from usbip_capture.usb.descriptors import ConfigurationDescriptor, InterfaceDescriptor
    from usbip_capture.usb.endpoints import Endpoint

_IN = 0x80


def add_endpoint(parser: argparse.ArgumentParser, example: str) -> None:
    """Server, device, endpoint, and the time that a transfer may take."""
    add_server(parser)
    add_device(parser)
    parser.add_argument(
        "--ep",
        "--endpoint",
        dest="endpoint",
        type=number8,
        required=True,
        metavar="ADDRESS",
        help=f"the endpoint's address, such as {example}",
    )
    parser.add_argument(
        "--alternate",
        type=number8,
        metavar="NUMBER",
        help="alternate setting of the endpoint's interface (default: the current one)",
    )
    add_transfer_timeout(parser, 5.0)
    add_old_name(parser, "--timeout", "--transfer-timeout", seconds)


def check_direction(address: int, inward: bool) -> None:
    """Raises LocalProtocolError for an endpoint that goes the other way, and for endpoint 0."""
    if not address & 0x0F:
        raise LocalProtocolError("endpoint 0 takes control transfers: see `usbip-capture control --help`")
    if bool(address & _IN) != inward:
        way, other = ("OUT", "read") if inward else ("IN", "written to")
        raise LocalProtocolError(
            f"endpoint {address:#04x} is an {way} endpoint, which cannot be {other}: do you mean {address ^ _IN:#04x}?"
        )


def ready(device: Imported, address: int, alternate: int | None) -> Endpoint:
    """The endpoint in its alternate setting. Raises DeviceError if the device has none such: names those it has."""
    from usbip_capture.errors import RequestRefused
    from usbip_capture.usb.status import ENOENT

    handle = device.handle
    handle.ensure_configured()
    handle.configuration_value()
    active = handle.endpoints.configuration
    settings = [
        interface
        for interface in (active.interfaces if active is not None else ())
        if address in [endpoint.bEndpointAddress for endpoint in interface.endpoints]
    ]
    there = handle.endpoints.find(address) is not None
    if alternate is None and there:
        return handle.endpoint(address)
    chosen = next((setting for setting in settings if setting.bAlternateSetting == alternate), None)
    if chosen is None:
        where = "in its current settings" if alternate is None else f"in alternate setting {alternate}"
        what = f"device {device.remote.info} of {device.server} has no endpoint {address:#04x} {where}"
        raise RequestRefused(f"{what}: {_instead(active, settings)}", -ENOENT)
    current = handle.endpoints.find(address)
    if current is None or current.bAlternateSetting != alternate:
        device.opened.claim(chosen.bInterfaceNumber)
        device.opened.set_interface_altsetting(chosen.bInterfaceNumber, chosen.bAlternateSetting)
    return handle.endpoint(address)


def _instead(active: ConfigurationDescriptor | None, settings: list[InterfaceDescriptor]) -> str:
    """Where the endpoint is, if anywhere; else the endpoints that there are."""
    numbers = sorted({setting.bAlternateSetting for setting in settings})
    if numbers:
        options = " or ".join(f"--alternate {number}" for number in numbers)
        plural = "s" if len(numbers) > 1 else ""
        return f"it is in alternate setting{plural} {' and '.join(map(str, numbers))}: {options}"
    found = {
        endpoint.bEndpointAddress: interface.bAlternateSetting
        for interface in reversed(active.interfaces if active is not None else ())
        for endpoint in interface.endpoints
    }
    shown = [f"{a:#04x}" + (f" (--alternate {found[a]})" if found[a] else "") for a in sorted(found)]
    return f"it has {', '.join(shown)}" if shown else "it has none but endpoint 0"
