"""What `read` and `write` share: an endpoint of a device, ready for transfers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from usbip_capture.cli.groups import add_device, add_server, number8, seconds
from usbip_capture.errors import LocalProtocolError

if TYPE_CHECKING:
    from usbip_capture.cli.session import Imported
    from usbip_capture.usb.endpoints import Endpoint

_IN = 0x80


def add_endpoint(parser: argparse.ArgumentParser, example: str) -> None:
    """Server, device, endpoint, and the time that a transfer may take."""
    add_server(parser, timeout_is_for_transfers=True)
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
        default=0,
        metavar="NUMBER",
        help="alternate setting of the endpoint's interface (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=5.0,
        metavar="SECONDS",
        help="for each transfer; 0: wait for ever (default: %(default)g)",
    )


def check_direction(address: int, inward: bool) -> None:
    """Raises LocalProtocolError for an endpoint that goes the other way, and for endpoint 0."""
    if not address & 0x0F:
        raise LocalProtocolError("endpoint 0 takes control transfers: see `usbip-capture control --help`")
    if bool(address & _IN) != inward:
        way, other = ("OUT", "read") if inward else ("IN", "written to")
        raise LocalProtocolError(
            f"endpoint {address:#04x} is an {way} endpoint, which cannot be {other}: do you mean {address ^ _IN:#04x}?"
        )


def ready(device: Imported, address: int, alternate: int) -> Endpoint:
    """The endpoint in its alternate setting. Raises USBError if the device has none such."""
    handle = device.handle
    handle.ensure_configured()
    handle.configuration_value()
    if alternate:
        active = handle.endpoints.configuration
        for interface in active.interfaces if active is not None else ():
            addresses = [endpoint.bEndpointAddress for endpoint in interface.endpoints]
            if interface.bAlternateSetting == alternate and address in addresses:
                device.dev.set_interface_altsetting(interface.bInterfaceNumber, alternate)
    return handle.endpoint(address)
