"""`usbip-capture syslog`: the log of a device, or of many, on the console, coloured by severity."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from usbip_capture.cli.groups import HelpFormatter, add_old_name
from usbip_capture.cli.log_handler import reported
from usbip_capture.cli.terminal import fresh_line, is_colourful, report
from usbip_capture.cli.values import capture_file, port
from usbip_capture.errors import LocalProtocolError
from usbip_capture.net.address import parse_address
from usbip_capture.report.units import count
from usbip_capture.syslog import LOG_PORT
from usbip_capture.syslog.severity import CRITICAL, DEBUG, ERROR, NOTICE, SEVERITIES, WARNING

if TYPE_CHECKING:
    from usbip_capture.syslog.message import Message

_RESET = "\x1b[0m"
# Ref: ECMA-48, 8.3.117 (SGR)
_COLOURS = {
    **dict.fromkeys(range(CRITICAL + 1), "\x1b[1;31m"),
    ERROR: "\x1b[31m",
    WARNING: "\x1b[33m",
    NOTICE: "\x1b[1m",
    DEBUG: "\x1b[2m",
}

_EXAMPLES = f"""\
examples:
  usbip-capture syslog 192.168.1.20                  what an ESP32 bridge logs, on its port {LOG_PORT}
  usbip-capture syslog demo --level warning          the built-in device's log; warnings and worse
  usbip-capture syslog --listen --pcap log.pcapng    wait for devices on TCP and UDP port {LOG_PORT}, and capture
  usbip-capture syslog --listen tls:*:6514 --certificate server.pem
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `syslog` to the subcommands."""
    parser = commands.add_parser(
        "syslog",
        help="show the log of a device, or of devices that send it",
        epilog=_EXAMPLES,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("server", nargs="?", metavar="HOST", help="connect to HOST or HOST:PORT, until it answers")
    parser.add_argument("--host", metavar="HOST", help="the same, as an option")
    parser.add_argument(
        "--listen",
        nargs="?",
        const="",
        metavar="PLACES",
        help="wait for devices at [tcp:|udp:|tls:]ADDRESS[:PORT], or a comma-separated list; "
        "alone: TCP and UDP, everywhere",
    )
    parser.add_argument(
        "--syslog-port",
        type=port,
        default=LOG_PORT,
        metavar="PORT",
        help="its log port, unless HOST or PLACES name one (default: %(default)s)",
    )
    add_old_name(parser, "--port", "--syslog-port", port, metavar="PORT")
    parser.add_argument("--level", choices=SEVERITIES, default="debug", help="minimum severity to show")
    colours = ("auto", "always", "never")
    parser.add_argument("--colour", "--color", choices=colours, default="auto", help="colours by severity")
    parser.add_argument(
        "--pcap",
        type=capture_file,
        metavar="FILE",
        help="also capture the messages, for Wireshark; - is standard output, the lines go to standard error then",
    )
    parser.add_argument("--json", action="store_true", help="for scripts: a JSON object on a line for each message")
    parser.add_argument("--align", action="store_true", help="in the capture, align the device's clock to this one's")
    parser.add_argument("--certificate", default="", metavar="FILE", help="PEM file with certificate and key, for TLS")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show messages until stopped; the exit code. Raises UsbipError."""
    from usbip_capture.collector import SyslogReceiver
    from usbip_capture.collector.display import line

    _check(args)
    host, port = parse_address(args.server, args.syslog_port) if args.server else (None, args.syslog_port)
    receiver = SyslogReceiver(
        host,
        port,
        args.pcap,
        listen=args.listen,
        certificate=args.certificate,
        min_severity=args.level,
        align_clock=args.align,
        ends_with_capture=True,
    )
    output = sys.stderr if args.pcap == "-" else sys.stdout
    coloured = args.colour == "always" or (args.colour == "auto" and is_colourful(output))
    try:
        with reported("usbip_capture.collector"), receiver:
            for place in receiver.bound:
                report(f"waiting for logs on {place}")
            for message in receiver:
                if args.json:
                    shown = json.dumps(as_json(message))
                else:
                    colour = _COLOURS.get(message.severity, "") if coloured else ""
                    shown = f"{colour}{line(message, with_source=host is None)}{_RESET if colour else ''}"
                print(f"{shown}\n", end="", file=output, flush=True)  # in one piece, as `report` does
    except KeyboardInterrupt:  # its ordinary end
        fresh_line()
    finally:
        counts = receiver.counts
        missed = [f"{counts.missed} not shown: the terminal was too slow"] if counts.missed else []
        if flaws := ", ".join([*counts.flaws(), *missed]):
            report(f"of {count(counts.messages, 'message')}: {flaws}")
    return 0


def as_json(message: Message) -> dict[str, object]:
    """A message for scripts. arrival, device_time: seconds, see `Message`."""
    return {
        "arrival": message.arrival_ns / 1e9,
        "device_time": None if message.device_ns is None else message.device_ns / 1e9,
        "source": message.source,
        "severity": message.severity_name,
        "facility": message.facility,
        "timestamp": message.timestamp,
        "hostname": message.hostname,
        "app_name": message.app_name,
        "procid": message.procid,
        "msgid": message.msgid,
        "text": message.text,
        "format": message.format,
        "flaw": message.flaw,
    }


def _check(args: argparse.Namespace) -> None:
    """Raises LocalProtocolError for options that would do nothing."""
    if bool(args.server) == (args.listen is not None):
        raise LocalProtocolError("give either HOST to connect to, or --listen")
    if args.align and args.pcap is None:
        raise LocalProtocolError("--align changes times in a capture: add --pcap FILE")
    if args.certificate and not (args.listen and "tls:" in args.listen.lower()):
        raise LocalProtocolError("--certificate is for listening with TLS: add --listen tls:ADDRESS:PORT")
