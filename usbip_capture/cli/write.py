"""`usbip-capture write`: bytes to an OUT endpoint."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from usbip_capture.cli.endpoint import add_endpoint, check_direction, ready
from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command, add_json, add_recording
from usbip_capture.cli.session import chosen_device, chosen_server, imported, recording, transfer_timeout
from usbip_capture.cli.values import data_hex
from usbip_capture.errors import UsbipError
from usbip_capture.report.units import count

_EXAMPLES = """\
  usbip-capture write demo --ep 0x04 --data-hex '01 02 03'
  usbip-capture write demo --ep 0x02 --text 'hello'
  usbip-capture write pi --device 1-1.2 --ep 0x01 --file firmware.bin
  echo hello | usbip-capture write demo --ep 0x02 --file - --pcap writes.pcapng
"""
#: Bytes of one transfer from a file.
_PORTION = 16 << 10


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "write", "write to an endpoint", "Write to an OUT endpoint.", _EXAMPLES)
    add_endpoint(parser, "0x01")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data-hex", type=data_hex, metavar="HEX", help="these bytes, in one transfer")
    what.add_argument("--text", help="this text as UTF-8, in one transfer")
    what.add_argument("--file", metavar="FILE", help="what is in FILE, - for standard input, 16 KiB in each transfer")
    add_json(parser)
    add_recording(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write all; the exit code. Raises UsbipError."""
    from usbip_capture.host import transfers as host_transfers

    check_direction(args.endpoint, inward=False)
    server, selector = chosen_server(args), chosen_device(args)
    written = transfers = 0
    with (
        _input(args) as portions,
        recording(args, [server]) as writer,
        imported(server, selector, writer) as device,
    ):
        endpoint = ready(device, args.endpoint, args.alternate)
        for portion in portions:
            written += host_transfers.write(device.handle, endpoint, portion, transfer_timeout(args))
            transfers += 1
    if args.json:
        print(json.dumps({"written": written, "transfers": transfers}))
    else:
        print(f"{count(written, 'byte')} written")
    return DONE


@contextmanager
def _input(args: argparse.Namespace) -> Iterator[Iterator[bytes]]:
    """The portions to be written; a file is opened before anything is done with the device. Raises UsbipError."""
    if args.data_hex is not None:
        yield iter([args.data_hex])
    elif args.text is not None:
        yield iter([args.text.encode()])
    elif args.file == "-":
        yield _portions(sys.stdin.buffer)
    else:
        try:
            file = open(args.file, "rb")  # noqa: SIM115  closed below: only opening it is this error
        except OSError as error:
            raise UsbipError(f"{args.file} cannot be read: {error.strerror or error}: give another file") from error
        with file:
            yield _portions(file)


def _portions(file: BinaryIO) -> Iterator[bytes]:
    read = getattr(file, "read1", file.read)  # what is there of a pipe, without waiting for more
    while portion := read(_PORTION):
        yield portion
