"""`usbip-capture selftest`: what a server and one of its devices do right and wrong."""

from __future__ import annotations

import argparse
import contextlib
import json

from usbip_capture.cli.groups import HelpFormatter, add_device, add_json, add_recording, add_server
from usbip_capture.report.units import count

_EPILOG = """\
examples:
  usbip-capture selftest pi --device 1-1.2
  usbip-capture selftest demo --json | jq .wrong

`ok` is as Linux does it, `note` otherwise but harmless, `WRONG` what programs will trip over, `-` not
applicable to this device. Requests are standard ones, and reads of IN endpoints; nothing is written to the device.

exit status: 0 nothing is wrong, 1 something is, or the device could not be tested, 2 wrong arguments
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The subcommand's options."""
    parser = commands.add_parser(
        "selftest",
        help="try a server and a device, and report what they do right and wrong",
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
    )
    add_server(parser)
    add_device(parser)
    add_json(parser)
    add_recording(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print each result as it comes; the exit status. Raises UsbipError."""
    from usbip_capture.capture.sinks import check_file
    from usbip_capture.cli.session import chosen_device, chosen_server, recording, resolved
    from usbip_capture.cli.terminal import print_lines
    from usbip_capture.selftest.results import Result, Verdict
    from usbip_capture.selftest.session import Selftest

    found: list[Result] = []

    def report(result: Result) -> None:
        found.append(result)
        if not args.json:
            print_lines([str(result)])

    if args.pcap and args.pcap != "-":
        check_file(args.pcap)
    server = chosen_server(args)
    selector = resolved(server, chosen_device(args))
    with contextlib.ExitStack() as stack:
        pcap = stack.enter_context(recording(args, [server]))
        Selftest(server, selector, report, pcap).run()
    bad = sum(result.verdict is Verdict.WRONG for result in found)
    if args.json:
        checks = [{"name": r.name, "verdict": r.verdict.name.lower(), "detail": r.detail} for r in found]
        print(json.dumps({"server": str(server), "checks": checks, "wrong": bad}, indent=2))
    else:
        print(f"{count(len(found), 'check')}, {bad} wrong")
    return 1 if bad else 0
