"""`usbip-capture control`: one control transfer on endpoint 0."""

from __future__ import annotations

import argparse
import json
import sys
from string import hexdigits

from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import (
    add_command,
    add_device,
    add_recording,
    add_server,
)
from usbip_capture.cli.hexdump import NO_DATA, hexdump
from usbip_capture.cli.probe import add_control_timeout
from usbip_capture.cli.session import chosen_device, chosen_server, imported, recording, transfer_timeout
from usbip_capture.cli.terminal import print_lines
from usbip_capture.cli.values import data_hex, number8, number16
from usbip_capture.errors import LocalProtocolError
from usbip_capture.report.units import count
from usbip_capture.system.shown import one_line
from usbip_capture.usb.setup import Setup

#: As many as a bmRequestType has at most.
_BYTE_DIGITS = 2

_EXAMPLES = """\
  usbip-capture control demo 80 06 0100 0 18         GET_DESCRIPTOR: the device descriptor, 18 bytes
  usbip-capture control demo c0 10 0 0 8 --raw | xxd
  usbip-capture control demo 40 10 0 0 01 02 03      three bytes to the device
  usbip-capture control pi --device 1-1.2 --bm-request-type 0b10100001 --b-request 1 --w-value 0x0100 --length 8
                                     GET_REPORT of a HID

REQUEST is bmRequestType bRequest wValue wIndex, in hexadecimal as in the specification, then the length in decimal
(or 0x...) of a request that reads, or the bytes in hexadecimal of one that writes. As options, numbers are decimal,
0x..., 0b... or 0o... The direction is bit 7 of bmRequestType; --direction makes sure of it.
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
    parser.add_argument("request", nargs="*", metavar="REQUEST", help="in short: 80 06 0100 0 18, see below")
    setup = parser.add_argument_group("the request")
    setup.add_argument("--direction", choices=("in", "out"), help="of the data stage (default: that of bmRequestType)")
    setup.add_argument("--bm-request-type", type=number8, metavar="NUMBER")
    setup.add_argument("--b-request", type=number8, metavar="NUMBER")
    setup.add_argument("--w-value", type=number16, metavar="NUMBER")
    setup.add_argument("--w-index", type=number16, metavar="NUMBER")
    data = setup.add_mutually_exclusive_group()
    data.add_argument("--length", type=number16, default=None, metavar="BYTES", help="IN: how many bytes to read")
    data.add_argument("--data-hex", type=data_hex, default=None, metavar="HEX", help="OUT: the bytes to send")
    add_control_timeout(parser)
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--raw", action="store_true", help="IN: write the bytes themselves to standard output")
    output.add_argument("--json", action="store_true", help="for scripts: JSON instead of text")
    add_recording(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the transfer; the exit code. Raises UsbipError."""
    if args.request:
        try:
            take_request(args)
        except LocalProtocolError as error:
            raise _without_host(args, error) from None
    inward = check(args)
    server, selector = chosen_server(args), chosen_device(args)
    data = b"" if inward else bytes(args.data_hex or b"")
    length = args.length if inward else len(data)
    setup = Setup(args.bm_request_type, args.b_request, args.w_value or 0, args.w_index or 0, length)
    with recording(args, [server]) as writer, imported(server, selector, writer) as device:
        brought = device.control(setup, data, transfer_timeout(args))
    if not inward:
        print(json.dumps({"written": len(data)}) if args.json else f"{count(len(data), 'byte')} written")
        return DONE
    if args.raw:
        sys.stdout.buffer.write(brought)
    elif args.json:
        print(json.dumps({"length": len(brought), "data": brought.hex()}))
    else:
        print_lines(hexdump(brought) if brought else [NO_DATA])
    return DONE


def take_request(args: argparse.Namespace) -> None:
    """The options that the words of REQUEST stand for. Raises LocalProtocolError."""
    names = "bm_request_type", "b_request", "w_value", "w_index"
    rest = args.request[len(names) :]
    given = [name for name in (*names, *(("length", "data_hex") if rest else ())) if getattr(args, name) is not None]
    if given:
        raise LocalProtocolError(f"use either REQUEST or --{given[0].replace('_', '-')}, not both")
    if len(args.request) < len(names):
        raise LocalProtocolError("REQUEST needs bmRequestType bRequest wValue wIndex, as in 80 06 0100 0 18")
    for name, word, most in zip(names, args.request, (0xFF, 0xFF, 0xFFFF, 0xFFFF), strict=False):
        setattr(args, name, _hexadecimal(name, word, most))
    if args.bm_request_type & 0x80 and len(rest) > 1:
        raise LocalProtocolError(f"{rest[1]!r} is one argument too many: a request that reads ends with its length")
    try:
        if not rest:
            return
        if args.bm_request_type & 0x80:
            args.length = number16(rest[0])
        else:
            args.data_hex = data_hex(" ".join(rest))
    except argparse.ArgumentTypeError as error:
        raise LocalProtocolError(f"the {'length' if args.bm_request_type & 0x80 else 'data'} {error}") from None


def _without_host(args: argparse.Namespace, error: LocalProtocolError) -> LocalProtocolError:
    """The error, or that HOST was forgotten: then bmRequestType stands in its place, and all that follows is wrong."""
    if args.host is not None or len(args.server) > _BYTE_DIGITS or not set(args.server.lower()) <= set(hexdigits):
        return error
    shown = " ".join([args.server, *args.request])
    return LocalProtocolError(f"HOST is missing: write it first, as in `usbip-capture control pi {one_line(shown)}`")


def _hexadecimal(name: str, word: str, most: int) -> int:
    digits = word.lower().removeprefix("0x")
    if not digits or not set(digits) <= set("0123456789abcdef") or int(digits, 16) > most:
        first, *others = name.split("_")
        field = first + "".join(map(str.capitalize, others))
        raise LocalProtocolError(f"{field} must be a hexadecimal number up to {most:x}, not {word!r}")
    return int(digits, 16)


def check(args: argparse.Namespace) -> bool:
    """Whether the device sends. Raises LocalProtocolError for what is missing, or contradicts itself."""
    if args.bm_request_type is None or args.b_request is None:
        missing = "--bm-request-type" if args.bm_request_type is None else "--b-request"
        raise LocalProtocolError(f"{missing} is missing; or in short, as in `usbip-capture control pi 80 06 0100 0 18`")
    inward = bool(args.bm_request_type & 0x80)
    if args.direction is not None and (args.direction == "in") != inward:
        other = "out" if args.direction == "in" else "in"
        raise LocalProtocolError(
            f"--direction {args.direction} contradicts bmRequestType {args.bm_request_type:#04x}, whose bit 7 means "
            f"{other}: change one of them"
        )
    if inward and args.data_hex is not None:
        raise LocalProtocolError("--data-hex is for requests that send: an IN request takes --length")
    if not inward and (args.length or args.raw):
        raise LocalProtocolError("--length and --raw are for requests that read: an OUT request takes --data-hex")
    if inward and args.length is None:
        raise LocalProtocolError("a request that reads needs a length: add --length BYTES, 0 for none")
    return inward
