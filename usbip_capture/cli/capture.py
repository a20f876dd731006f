"""`usbip-capture capture`: what Wireshark's interface does, without Wireshark, or with one that is started for it."""

from __future__ import annotations

import argparse

from usbip_capture.cli.groups import (
    add_command,
    add_device,
    add_json,
    add_old_name,
    add_output,
    add_rotation,
    add_server,
)
from usbip_capture.cli.session import chosen_server
from usbip_capture.cli.table_options import add_options, choices_of
from usbip_capture.cli.values import wait
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
  usbip-capture capture --mode server bench -o -              what others do at a server with a dashboard

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
    parser.set_defaults(run=run)


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where to")
    where = group.add_mutually_exclusive_group()
    add_output(
        where,
        "a file (compressed if it ends with .gz), a named pipe, or - for standard output (default: print lines of text"
        " instead)",
    )
    where.add_argument("--wireshark", action="store_true", help="start Wireshark, and show it there")
    add_rotation(group)
    group.add_argument(
        "--live",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show what passes on each endpoint (default: on a terminal, with -o or --wireshark)",
    )
    group.add_argument("-q", "--quiet", action="store_true", help="no live view, no remarks and no summary")


def _add_choices(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what")
    group.add_argument("--filter", default="", metavar="EXPR", help="only these URBs, such as 'bulk and ep == 0x81'")
    add_options(
        group,
        *("mode", "descriptors", "listen-in", "reconnect", "snaplen", "duration", "count", "record-unlinks"),
        *("relay-listen", "relay-allow", "token"),
    )
    group = parser.add_argument_group("the log of the device")
    group.add_argument("--syslog", action="store_true", help="also capture the log, from the server's log port")
    # None: not given. An empty text is a place to listen on: everywhere.
    add_options(
        group,
        *("syslog-port", "syslog-listen", "syslog-level", "syslog-align", "syslog-certificate"),
        syslog_listen=None,
    )


def run(args: argparse.Namespace) -> int:
    """Capture until stopped; the exit code. Raises UsbipError."""
    from usbip_capture.capture.rotation import Rotation
    from usbip_capture.capture_session.settings import RELAY, SERVER, needs_server
    from usbip_capture.cli.capturing import Capturing
    from usbip_capture.filters.language import parse

    choices = choices_of(args)
    if args.syslog and args.syslog_listen is not None:
        raise LocalProtocolError("use either --syslog, to connect to the log, or --syslog-listen")
    choices.syslog = "connect" if args.syslog else "off" if args.syslog_listen is None else "listen"
    server = chosen_server(args) if needs_server(choices) else None
    dashboard = None
    if choices.mode == SERVER:
        from usbip_capture.servers.dashboards import Dashboard

        dashboard = Dashboard.parse(args.server, args.port, choices.token, args.connect_timeout)
    parse(args.filter)
    rotation = Rotation.parse(args.rotate) if args.rotate else None
    named = args.output not in (None, "-")
    if rotation is not None and not named:
        raise LocalProtocolError("-b is for files: name one with -o")
    if args.json and not named and not args.wireshark:
        raise LocalProtocolError("--json and the packets both want standard output: name a file with -o")
    if choices.mode == RELAY and (rotation is not None or not (args.output or args.wireshark)):
        raise LocalProtocolError("--mode relay needs -o with one file, or --wireshark, and cannot be used with -b")
    if choices.mode == SERVER and rotation is not None:
        raise LocalProtocolError("--mode server cannot be used with -b")
    return Capturing(args, choices, server, rotation, dashboard).run()
