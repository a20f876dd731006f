"""`usbip-capture capture`: what Wireshark's interface does, without Wireshark, or with one that is started for it."""

from __future__ import annotations

import argparse

from usbip_capture.cli.groups import add_command, add_device, add_json, add_old_name, add_recording, add_server
from usbip_capture.cli.session import chosen_server
from usbip_capture.cli.values import capture_file, count, duration, wait, whole
from usbip_capture.errors import LocalProtocolError

_EXAMPLES = """\
  usbip-capture capture pi                                    print a line for each URB, as usbmon does
  usbip-capture capture demo -o demo.pcapng --duration 3
  usbip-capture capture pi -o pi.pcapng.gz                    compressed; Wireshark opens it as it is
  usbip-capture capture pi --device 1-1.2 --filter 'bulk and ep == 0x81' -o bulk.pcapng
  usbip-capture capture pi --device all -o all.pcapng -b filesize:100000 -b files:10
                                                              a ring of ten files of 100 MB
  usbip-capture capture pi -o - | tshark -r -                 into a pipe
  usbip-capture capture pi --wireshark --syslog               in Wireshark, with the device's log

Ctrl-C stops; the capture is complete then. The device is read as a host does when it meets it, then its IN endpoints
are read; while it is captured it is yours, and nobody else's. Without -o, each URB is printed when it is submitted and
when it is completed: the time, then the line of usbmon's text form. With -o on a terminal, a line for each endpoint
shows URBs and megabytes per second, errors and the last status.

-b takes what dumpcap's -b does: duration:SECONDS, interval:SECONDS, filesize:KB, packets:NUMBER begin the next file,
files:NUMBER keeps that many. The language of filters is in docs/filters.md.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "capture",
        "capture a device's traffic into a file, a pipe or Wireshark, or print it",
        "Capture the traffic of a device until Ctrl-C: into a file, a pipe or Wireshark, or as lines of text.",
        _EXAMPLES,
    )
    add_server(parser)
    add_old_name(parser, "--timeout", "--connect-timeout", wait)
    add_device(parser, several=", a comma-separated list, or all (default: the only one that is exported)")
    _add_output(parser)
    _add_choices(parser)
    add_json(parser)
    add_recording(parser, pcap=False)
    parser.set_defaults(run=run)


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where to")
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "-o",
        "--output",
        "--pcap",
        dest="output",
        type=capture_file,
        metavar="FILE",
        help="a file (compressed if it ends with .gz), a named pipe, or - for standard output (default: print lines of"
        " text instead)",
    )
    where.add_argument("--wireshark", action="store_true", help="start Wireshark, and show it there")
    group.add_argument(
        "-b",
        "--rotate",
        action="append",
        default=[],
        metavar="KEY:NUMBER",
        help="several files, as dumpcap writes them; may be repeated",
    )
    group.add_argument(
        "--live",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show what passes on each endpoint (default: on a terminal, with -o or --wireshark)",
    )
    group.add_argument("-q", "--quiet", action="store_true", help="no live view, no remarks and no summary")


def _add_choices(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what")
    flag = argparse.BooleanOptionalAction
    group.add_argument("--filter", default="", metavar="EXPR", help="only these URBs, such as 'bulk and ep == 0x81'")
    group.add_argument("--duration", type=duration, default=0, metavar="SECONDS", help="stop after this time")
    group.add_argument("--count", type=count, default=0, metavar="PACKETS", help="stop after this number of packets")
    group.add_argument(
        "--snaplen",
        type=whole(64, 262144),
        default=0,
        metavar="BYTES",
        help="bytes to keep of each packet, its header of 64 bytes included",
    )
    group.add_argument("--descriptors", action=flag, default=True, help="read all descriptors at the start")
    group.add_argument("--listen-in", action=flag, default=True, help="read the IN endpoints")
    group.add_argument("--reconnect", action=flag, default=True, help="wait for a device that was disconnected")


def run(args: argparse.Namespace) -> int:
    """Capture until stopped; the exit code. Raises UsbipError."""
    from usbip_capture.capture.rotation import Rotation
    from usbip_capture.cli.capturing import Capturing
    from usbip_capture.filters.language import parse

    server = chosen_server(args)
    parse(args.filter)
    rotation = Rotation.parse(args.rotate) if args.rotate else None
    named = args.output not in (None, "-")
    if rotation is not None and not named:
        raise LocalProtocolError("-b is for files: name one with -o")
    if args.json and not named and not args.wireshark:
        raise LocalProtocolError("--json and the packets both want standard output: name a file with -o")
    return Capturing(args, server, rotation).run()
