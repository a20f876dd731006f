"""`usbip-capture replay`: the devices of a capture, served to any USB/IP client as if they were there."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING

from usbip_capture.cli.groups import add_command
from usbip_capture.cli.terminal import print_lines, report
from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.net.address import DEFAULT_PORT, format_address
from usbip_capture.system import console

if TYPE_CHECKING:
    from usbip_capture.replayed.device import ReplayedDevice
    from usbip_capture.replayed.recording import Recording

_ABOUT = """\
Serve the devices of a capture to any USB/IP client, as they answered when it was made: a capture of this program, of
usbmon or of USBPcap. Each import begins the recording anew. Ctrl-C ends it, and reports where clients asked for
something else.

Wherever HOST is taken, replay:FILE is the same without a server: `usbip-capture list replay:session.pcapng`.
"""
_EXAMPLES = """\
  usbip-capture replay session.pcapng                 then: usbip attach -r 127.0.0.1 -b BUSID
  usbip-capture replay session.pcapng --device 0403:6001 --speed 0
  usbip-capture replay session.pcapng --strict --report differences.json
"""
_LOOK = 0.2


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "replay", "serve the devices of a capture, as they answered then", _ABOUT, _EXAMPLES)
    parser.add_argument("file", metavar="FILE", help="a capture of USB: pcapng or pcap, gzip'ed or not")
    parser.add_argument(
        "--device", action="append", metavar="DEVICE", help="a busid or VID:PID of it; may be repeated (default: all)"
    )
    parser.add_argument(
        "--listen",
        metavar="ADDR[:PORT]",
        default=f"127.0.0.1:{DEFAULT_PORT}",
        help="where clients connect to; port 0 takes a free one (default: %(default)s)",
    )
    matching = parser.add_mutually_exclusive_group()
    matching.add_argument("--strict", action="store_true", help="everything must be asked in the recorded order, once")
    matching.add_argument(
        "--loose", action="store_true", help="independent endpoints in any order, and again what was asked (default)"
    )
    parser.add_argument(
        "--speed", type=_speed, default=1.0, metavar="N", help="1 as recorded, 2 twice as fast, 0 at once (default: 1)"
    )
    parser.add_argument(
        "--diverging",
        choices=("stall", "end", "go-on"),
        default="stall",
        help="what a device does when it is asked for what is not recorded (default: stall)",
    )
    parser.add_argument("--report", metavar="FILE", help="write what was asked, and where it differed, as JSON")
    parser.set_defaults(run=run)


def _speed(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e6:
        raise argparse.ArgumentTypeError(f"must be a number from 0 on, not {text}")
    return value


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; the exit code: 1 if something was asked that is not recorded. Raises UsbipError."""
    from usbip_capture.net.networks import listen_address
    from usbip_capture.replayed.recording import read_recordings
    from usbip_capture.replayed.server import ReplayServer, choose

    recordings = choose(read_recordings(args.file), args.device or ())
    if args.strict:
        _check_strict(recordings)
    used: list[ReplayedDevice] = []
    server = ReplayServer(
        recordings,
        match="strict" if args.strict else "loose",
        speed=args.speed,
        diverging=args.diverging,
        on_open=used.append,
    )
    done = threading.Event()
    console.on_request_to_end(lambda number: done.set(), signal.SIGINT)
    with closing(server):
        address, port = server.listen(*listen_address(args.listen))
        _report_where(address, port, recordings)
        while not done.wait(_LOOK):
            pass
    return _outcome(used, args.report)


def _check_strict(recordings: list[Recording]) -> None:
    from usbip_capture.replayed.device import STRICT, ReplayedDevice

    for recording in recordings:
        ReplayedDevice(recording, match=STRICT).close()


def _report_where(address: str, port: int, recordings: list[Recording]) -> None:
    from usbip_capture.relay.listening import attach_hint

    for recording in recordings:
        print_lines([f"{recording.info}, {len(recording.exchanges)} transfers recorded"])
        for flaw in recording.flaws:
            report(f"{recording.info}: {flaw}")
    busids = [recording.info.busid for recording in recordings]
    print_lines([f"Serving at {format_address(address, port)}, until Ctrl-C; {attach_hint(address, port, busids)}"])
    sys.stdout.flush()


def _outcome(used: list[ReplayedDevice], target: str | None) -> int:
    divergences = 0
    for device in used:
        outcome, unused = device.outcome, len(device.unused)
        divergences += len(outcome.divergences) + outcome.lost
        line = (
            f"{device.info}: beside descriptors, {outcome.asked} requests answered, {outcome.repeated} of them again, "
            f"{unused} never asked"
        )
        print_lines([line, *(f"  {divergence}" for divergence in outcome.divergences[:20])])
        if more := len(outcome.divergences) - 20 + outcome.lost:
            print_lines([f"  and {more} more"] if more > 0 else [])
    if target:
        _write(target, used)
    return 1 if divergences else 0


def _write(target: str, used: list[ReplayedDevice]) -> None:
    """Raises UsbipError."""
    from dataclasses import asdict

    sessions = [
        {
            "device": str(device.info),
            "asked": device.outcome.asked,
            "repeated": device.outcome.repeated,
            "unused": [{"number": one.number, "asked": str(one)} for one in device.unused],
            "divergences": [asdict(divergence) for divergence in device.outcome.divergences],
            "more_divergences": device.outcome.lost,
        }
        for device in used
    ]
    text = json.dumps({"sessions": sessions}, indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        with open(target, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsbipError(f"the report cannot be written to {target}: {error.strerror or error}") from error
    except ValueError as error:
        raise LocalProtocolError(f"{target!r} is not the name of a file: {error}") from error
