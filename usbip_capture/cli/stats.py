"""`usbip-capture stats`: what a capture holds, in the terminal and as a page."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from typing import TYPE_CHECKING

from usbip_capture.cli.groups import add_command, add_json
from usbip_capture.cli.table_options import add_options
from usbip_capture.cli.terminal import is_colourful
from usbip_capture.errors import CaptureError, LocalProtocolError

if TYPE_CHECKING:
    from usbip_capture.report.measure import Measured
    from usbip_capture.report.statistics import Statistics

_EXAMPLES = """\
  usbip-capture stats capture.pcapng
  usbip-capture stats capture.pcapng --filter 'bulk and ep == 0x81'
  usbip-capture stats capture.pcapng --html page.html
  usbip-capture stats capture.pcapng --json | jq '.interfaces[].dropped'
  usbip-capture stats --live bench           what others do at a server with a dashboard, until Ctrl-C
"""
_SAMPLE = "µ┤⣿"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand and its options."""
    parser = add_command(
        commands,
        "stats",
        "what a capture holds, per device and endpoint",
        "Report what a capture holds: URBs, bytes, errors and completion times of each endpoint, and log lines.",
        _EXAMPLES,
    )
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="pcapng or pcap, of usbmon, USBPcap or ours, gzip'ed or not; - is standard input",
    )
    parser.add_argument(
        "--live",
        metavar="SERVER",
        help="instead of FILE, what others do at this server from now on: by its dashboard, as capture --mode server",
    )
    add_options(parser.add_argument_group("with --live"), "token", "duration")
    parser.add_argument(
        "--html", metavar="PAGE", help="write a page with plots on one time line, for any browser; - is standard output"
    )
    parser.add_argument(
        "--filter",
        metavar="EXPR",
        default="",
        help="count only these URBs, such as 'bulk and ep == 0x81' or 'device == 3.7' (bus 3, device 7)",
    )
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if (args.file is None) == (args.live is None):
        raise LocalProtocolError("give a FILE, or --live with a server" + (", not both" if args.file else ""))
    if args.live is None:
        return stats(args.file, args.filter, args.html, as_json=args.json)
    from usbip_capture.cli.live_stats import measure_live
    from usbip_capture.servers.dashboards import Dashboard

    measured = measure_live(Dashboard.parse(args.live, token=args.token), args.filter, args.duration)
    return _report(measured, args.html, as_json=args.json)


def stats(path: str, capture_filter: str, page: str | None, *, as_json: bool = False) -> int:
    """Report on a capture; the exit code. Raises UsbipError, and OSError when the output cannot be written."""
    from usbip_capture.report.measure import measure

    if page is not None:
        _check_page(page, path)
    return _report(measure(path, capture_filter), page, as_json=as_json)


def _report(measured: Measured, page: str | None, *, as_json: bool) -> int:
    from usbip_capture.recordings.source import shown
    from usbip_capture.report.text import text_report

    if page is not None:
        from usbip_capture.report.html import html_page

        _write_page(page, html_page(measured))
    if as_json:
        import json

        from usbip_capture.report.data import as_data

        print(json.dumps(as_data(measured), indent=2))
    else:
        lines = text_report(measured.statistics) + _plot(measured.statistics)
        _print(lines + ([] if page in (None, "-") else [f"the page is {shown(str(page))}"]))
    if measured.problem is not None:
        raise CaptureError(f"{measured.problem}; what was readable is shown")
    return 0


def _plot(statistics: Statistics) -> list[str]:
    from usbip_capture.report.plot import throughput_plot

    if not _encodes(_SAMPLE):
        return []
    try:
        plot = throughput_plot(statistics, shutil.get_terminal_size().columns, colour=is_colourful(sys.stdout))
    except ModuleNotFoundError as error:
        return ["", f"no plot: {error.name} is not installed, which 'pip install {error.name}' does"]
    return ["", *plot] if plot else []


def _encodes(text: str) -> bool:
    """Whether the output can show it."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _print(lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    if not _encodes("µ"):
        text = text.replace("µ", "u")
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    print(text.encode(encoding, "backslashreplace").decode(encoding), end="", flush=True)


def _check_page(page: str, path: str) -> None:
    """Before much is read: a capture must not be lost to its own page."""
    if os.path.exists(page) and os.path.exists(path) and os.path.samefile(page, path):
        raise CaptureError("--html names the capture itself: give the page another name")


def _write_page(page: str, text: str) -> None:
    from usbip_capture.recordings.source import shown
    from usbip_capture.system.replacement import Replacement

    if page == "-":  # sys.stdout is standard error meanwhile
        with open(1, "wb", closefd=False) as output:
            output.write(text.encode())
        return
    try:
        with Replacement(page) as file:
            file.write(text.encode())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CaptureError(f"the page {shown(page)} cannot be written: {reason}") from error
