"""`usbip-capture read`: what an IN endpoint sends, as text or as it is."""

from __future__ import annotations

import argparse
import json
import sys
import time

from usbip_capture.cli.endpoint import add_endpoint, check_direction, ready
from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command, add_recording
from usbip_capture.cli.hexdump import NO_DATA, hexdump
from usbip_capture.cli.session import chosen_device, chosen_server, imported, recording, transfer_timeout
from usbip_capture.cli.terminal import Waiting, print_lines
from usbip_capture.cli.values import count, whole
from usbip_capture.wire.structs import MAX_TRANSFER

_EXAMPLES = """\
  usbip-capture read demo --ep 0x83                       one report of the keyboard
  usbip-capture read demo --ep 0x82 --count 2 --raw       two lines of the serial port, as they are
  usbip-capture read demo --ep 0x83 --count 5 --json | jq -r .data
  usbip-capture read pi --device 1-1.2 --ep 0x81 --count 0 --transfer-timeout 0 --pcap reads.pcapng
                                                          until Ctrl-C, and captured
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands, "read", "read from an endpoint", "Read from an IN endpoint, and show what it sends.", _EXAMPLES
    )
    add_endpoint(parser, "0x81")
    parser.add_argument(
        "--count",
        type=count,
        default=1,
        metavar="TRANSFERS",
        help="number of transfers; 0: until Ctrl-C (default: %(default)s)",
    )
    parser.add_argument(
        "--length",
        type=whole(1, MAX_TRANSFER),
        metavar="BYTES",
        help="bytes to ask for in each transfer (default: the endpoint's packet)",
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--raw", action="store_true", help="write the bytes themselves to standard output")
    output.add_argument("--json", action="store_true", help="for scripts: a line of JSON for each transfer")
    add_recording(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read; the exit code. Raises UsbipError."""
    from usbip_capture.host import transfers as host_transfers

    check_direction(args.endpoint, inward=True)
    server, selector = chosen_server(args), chosen_device(args)
    show = _raw if args.raw else _json if args.json else _text
    try:
        with recording(args, [server]) as writer, imported(server, selector, writer) as device:
            endpoint = ready(device, args.endpoint, args.alternate)
            size = args.length or max(endpoint.packet_size, 1)
            done = 0
            with Waiting(f"reading endpoint {args.endpoint:#04x}") as waiting:
                while not args.count or done < args.count:
                    buffer = bytearray(size)
                    got = host_transfers.read(device.handle, endpoint, buffer, transfer_timeout(args))
                    data = bytes(buffer[:got])
                    done += 1
                    waiting.clear()
                    show(data)
                    sys.stdout.flush()
                    if done != args.count:
                        waiting.show()
    except KeyboardInterrupt:
        if args.count:
            raise
    return DONE


def _raw(data: bytes) -> None:
    sys.stdout.buffer.write(data)


def _json(data: bytes) -> None:
    print_lines([json.dumps({"time": round(time.time(), 6), "length": len(data), "data": data.hex()})])


def _text(data: bytes) -> None:
    print_lines(hexdump(data) if data else [NO_DATA])
