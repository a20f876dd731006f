"""`usbip-capture control`: one control transfer on endpoint 0."""

from __future__ import annotations

import argparse
import json
import sys

from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import (
    add_command,
    add_device,
    add_recording,
    add_server,
    data_hex,
    number8,
    number16,
)
from usbip_capture.cli.hexdump import NO_DATA, hexdump
from usbip_capture.cli.probe import add_timeout
from usbip_capture.cli.session import chosen_device, chosen_server, imported, recording
from usbip_capture.cli.terminal import say
from usbip_capture.errors import LocalProtocolError
from usbip_capture.report.units import count

_EXAMPLES = """\
  usbip-capture control demo --direction in --bm-request-type 0x80 --b-request 0x06 --w-value 0x0100 --length 18
                                     GET_DESCRIPTOR: the device descriptor
  usbip-capture control demo --bm-request-type 0xc0 --b-request 0x10 --length 8 --raw | xxd
  usbip-capture control demo --bm-request-type 0x40 --b-request 0x10 --data-hex '01 02 03'
  usbip-capture control pi --device 1-1.2 --bm-request-type 0b10100001 --b-request 1 --w-value 0x0100 --length 8
                                     GET_REPORT of a HID

Numbers are decimal, 0x..., 0b... or 0o... The direction is bit 7 of bmRequestType; --direction makes sure of it.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "control",
        "one control transfer",
        "Make one control transfer with a device, and show what it brings.",
        _EXAMPLES,
    )
    add_server(parser)
    add_device(parser)
    setup = parser.add_argument_group("the request")
    setup.add_argument("--direction", choices=("in", "out"), help="of the data stage (default: as bmRequestType says)")
    setup.add_argument("--bm-request-type", type=number8, required=True, metavar="NUMBER")
    setup.add_argument("--b-request", type=number8, required=True, metavar="NUMBER")
    setup.add_argument("--w-value", type=number16, default=0, metavar="NUMBER")
    setup.add_argument("--w-index", type=number16, default=0, metavar="NUMBER")
    data = setup.add_mutually_exclusive_group()
    data.add_argument("--length", type=number16, default=None, metavar="BYTES", help="IN: how many bytes to read")
    data.add_argument("--data-hex", type=data_hex, default=None, metavar="HEX", help="OUT: what is sent")
    add_timeout(parser)
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--raw", action="store_true", help="IN: write the bytes themselves to standard output")
    output.add_argument("--json", action="store_true", help="for scripts: JSON instead of text")
    add_recording(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the transfer; the exit code. Raises UsbipError."""
    inward = bool(args.bm_request_type & 0x80)
    check(args, inward)
    server, selector = chosen_server(args), chosen_device(args)
    data = (args.length or 0) if inward else (args.data_hex or b"")
    setup = args.bm_request_type, args.b_request, args.w_value, args.w_index
    with recording(args, [server]) as writer, imported(server, selector, writer) as device:
        answer = device.dev.ctrl_transfer(*setup, data, args.ctrl_timeout_ms)
    if not inward:
        print(json.dumps({"written": int(answer)}) if args.json else f"{count(int(answer), 'byte')} written")
        return DONE
    brought = bytes(answer)
    if args.raw:
        sys.stdout.buffer.write(brought)
    elif args.json:
        print(json.dumps({"length": len(brought), "data": brought.hex()}))
    else:
        say(hexdump(brought) if brought else [NO_DATA])
    return DONE


def check(args: argparse.Namespace, inward: bool) -> None:
    """Raises LocalProtocolError for what contradicts itself."""
    if args.direction is not None and (args.direction == "in") != inward:
        other = "out" if args.direction == "in" else "in"
        raise LocalProtocolError(
            f"--direction {args.direction} contradicts bmRequestType {args.bm_request_type:#04x}, whose bit 7 says "
            f"{other}: change one of them"
        )
    if inward and args.data_hex is not None:
        raise LocalProtocolError("--data-hex is for requests that send: an IN request takes --length")
    if not inward and (args.length or args.raw):
        raise LocalProtocolError("--length and --raw are for requests that read: an OUT request takes --data-hex")
