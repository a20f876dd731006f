"""`usbip-capture compare`: where two captures of the same session differ."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from usbip_capture.cli.groups import add_command, add_json
from usbip_capture.cli.terminal import print_lines
from usbip_capture.cli.values import seconds
from usbip_capture.errors import DeviceNotFound, LocalProtocolError, UsbipError

if TYPE_CHECKING:
    from usbip_capture.comparing.differences import Comparison
    from usbip_capture.replayed.recording import Recording

_ABOUT = """\
Compare two captures of the same session: what was asked is aligned, whatever tags and times there were, and each
difference is named: what only one of them has, status, length, data with its first byte, descriptors.
"""
_EXAMPLES = """\
  usbip-capture compare yesterday.pcapng today.pcapng
  usbip-capture compare good.pcapng bad.pcapng --html page.html
  usbip-capture compare a.pcapng b.pcapng --device 0403:6001 --tolerance 0.05
"""
_MOST = 200


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "compare", "where two captures of the same session differ", _ABOUT, _EXAMPLES)
    parser.add_argument("first", metavar="A", help="a capture: pcapng or pcap, of usbmon, USBPcap or ours")
    parser.add_argument("second", metavar="B", help="the other one")
    parser.add_argument(
        "--device",
        action="append",
        metavar="DEVICE",
        help="a busid or VID:PID in both; given twice, that of A and that of B (default: by VID:PID, else in order)",
    )
    parser.add_argument(
        "--tolerance", type=seconds, metavar="SECONDS", help="by which times may differ (default: not compared)"
    )
    parser.add_argument("--html", metavar="PAGE", help="write both side by side, for any browser; - is standard output")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Report; the exit code: 0 if they are equal, 1 if not. Raises UsbipError."""
    from usbip_capture.comparing.differences import compare
    from usbip_capture.comparing.text import as_data, lines, summary
    from usbip_capture.replayed.recording import read_recordings

    if args.html == "-" and args.json:
        raise LocalProtocolError("--html - and --json cannot both be standard output: name a file for the page")
    pairs = _paired(read_recordings(args.first), read_recordings(args.second), args.device or [])
    found = [
        (first, second, compare(first.exchanges, second.exchanges, (first.known, second.known), args.tolerance))
        for first, second in pairs
    ]
    if args.html:
        _write_page(args, found)
    if args.json:
        data = [{"devices": [str(a.info), str(b.info)], **as_data(comparison)} for a, b, comparison in found]
        print(json.dumps({"comparisons": data}, indent=2))
    elif args.html != "-":
        for first, second, comparison in found:
            name = str(first.info) if str(first.info) == str(second.info) else f"{first.info} and {second.info}"
            print_lines([f"{name}: {summary(comparison)}", *(f"  {line}" for line in lines(comparison, _MOST))])
    return 1 if any(comparison.differences for _, _, comparison in found) else 0


def _paired(ours: list[Recording], theirs: list[Recording], devices: list[str]) -> list[tuple[Recording, Recording]]:
    """Raises DeviceNotFound."""
    from usbip_capture.replayed.recording import chosen

    if devices:
        return [(chosen(ours, devices[0]), chosen(theirs, devices[-1]))]
    if len(ours) == len(theirs) == 1:
        return [(ours[0], theirs[0])]
    left = list(theirs)
    pairs = []
    for one in ours:
        like = next((other for other in left if other.info.vid_pid == one.info.vid_pid), None)
        if like is not None:
            left.remove(like)
            pairs.append((one, like))
    if len(pairs) < max(len(ours), len(theirs)):
        lists = "; ".join(", ".join(str(one.info) for one in side) for side in (ours, theirs))
        raise DeviceNotFound(f"the captures do not have the same devices ({lists}): name one of each with --device")
    return pairs


def _write_page(args: argparse.Namespace, found: list[tuple[Recording, Recording, Comparison]]) -> None:
    """Raises UsbipError."""
    from usbip_capture.comparing.html import html_page
    from usbip_capture.system.replacement import Replacement

    if len(found) > 1:
        raise LocalProtocolError("a page has one device: name it with --device")
    names = [os.path.basename(path) for path in (args.first, args.second)]
    page = html_page(found[0][2], names[0], names[1])
    if args.html == "-":
        sys.stdout.write(page)
        return
    for path in (args.first, args.second):
        if os.path.exists(args.html) and os.path.samefile(args.html, path):
            raise LocalProtocolError(f"{args.html} is one of the captures: choose another name for the page")
    try:
        with Replacement(args.html) as file:
            file.write(page.encode())
    except OSError as error:
        raise UsbipError(f"the page cannot be written to {args.html}: {error.strerror or error}") from error
