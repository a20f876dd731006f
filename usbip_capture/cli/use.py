"""`usbip-capture use`: runs an unmodified PyUSB program with a server's devices in place of this machine's."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from usbip_capture import injected
from usbip_capture.address import DEFAULT_PORT
from usbip_capture.cli.groups import LOG_PORT, HelpFormatter, port, seconds
from usbip_capture.cli.terminal import tell
from usbip_capture.errors import LocalProtocolError, UsbipError

if TYPE_CHECKING:
    from usbip_capture.hosts import Selector, Server

NO_PROGRAM = "no program given: write it after --, as in `usbip-capture use pi -- program.py`"
#: Seconds for which a device may be away after it was given back.
_AWAY = 1.0
_RETRY_INTERVAL = 0.05

_EPILOG = """\
examples:
  usbip-capture use pi -- python3 -m serial.tools.list_ports
  usbip-capture use pi --device 0483:df11 --pcap flash.pcapng -- pydfu.py -u firmware.dfu
  usbip-capture use pi -- ./measure.py --channel 3

PROGRAM is a Python program that uses PyUSB: a file, a command, or `-m MODULE`. Programs of C that use libusb are not
reached. exit status: that of PROGRAM; 1 if it could not be started, 2 for wrong arguments
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The subcommand's options."""
    parser = commands.add_parser(
        "use",
        help="run a PyUSB program on a server's devices",
        usage="usbip-capture use HOST [options] -- PROGRAM [ARGS...]",
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("host", metavar="HOST", help="the USB/IP server: HOST, HOST:PORT or [IPv6]:PORT; or demo")
    parser.add_argument("--port", type=port, default=DEFAULT_PORT, help="its TCP port (default: %(default)s)")
    parser.add_argument(
        "--device",
        default="",
        metavar="DEVICE",
        help="let the program see this one only: a busid or VID:PID, several with commas (default: all)",
    )
    parser.add_argument("--pcap", default="", metavar="FILE", help="capture all transfers into FILE")
    parser.add_argument(
        "--syslog", action="store_true", help="also show the log of the device on standard error, and capture it"
    )
    parser.add_argument("--syslog-port", type=port, default=LOG_PORT, help="its log port (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=seconds, default=2.0, metavar="SECONDS", help="for connecting (default: %(default)s)"
    )
    parser.add_argument(
        "--reconnect",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="wait so long for a device that is lost, and import it again (default: 0, leave it lost)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the program; its exit status. Raises UsbipError when there is no such program or server."""
    from usbip_capture.capture.sinks import check_file
    from usbip_capture.cli.session import log_of
    from usbip_capture.hosts import Selector, Server, parse_selection
    from usbip_capture.pyusb_backend import get_backend

    if not args.program:
        raise LocalProtocolError(NO_PROGRAM)
    command = _command(args.program)
    # What is wrong is better said now than in a program's traceback.
    get_backend(args.host, args.port, args.timeout, device=args.device, reconnect=args.reconnect).close()
    if args.pcap:
        check_file(args.pcap)
    selection = parse_selection(args.device) or [Selector()]
    server = Server.parse(args.host, args.port, args.timeout)
    _look_for(server, selection)
    # Into a capture only the program's own process can write the log.
    shown = args.syslog and not args.pcap
    log = log_of(server, args.syslog_port, None) if shown else contextlib.nullcontext()
    with log, tempfile.TemporaryDirectory(prefix="usbip-capture-") as folder:
        marker = Path(folder, "used")
        settings = {name: getattr(args, name) for name in ("host", "port", "device", "timeout", "reconnect")}
        settings["pcap"] = os.path.abspath(args.pcap) if args.pcap else ""
        settings["syslog_port"] = args.syslog_port if args.syslog and args.pcap else 0
        settings["marker"] = str(marker)
        status = _run(command, settings)
        if not marker.exists():
            tell(
                f"{' '.join(args.program)} has not asked PyUSB for a device: is it a Python program that uses PyUSB, "
                "and not run with -I, -E or -S?"
            )
        return status


def _look_for(server: Server, selection: list[Selector]) -> None:
    """Say it when there is no such device. Raises UsbipError when there is no server.

    A device that another program has just given back is away for half a second on Linux: it is waited for.
    """
    deadline = time.monotonic() + _AWAY
    while True:
        devices = server.devices()
        if any(selector.matches(info) for selector in selection for info in devices):
            return
        if time.monotonic() > deadline:
            break
        time.sleep(_RETRY_INTERVAL)
    wanted = " or ".join(map(str, selection)) or "device"
    there = ", ".join(map(str, devices))
    others = f", but {there}" if there else ""
    tell(f"{server} exports no {wanted} now (or it is in use){others}")


def _command(program: list[str]) -> list[str]:
    """How to start it. Raises UsbipError."""
    first, *rest = program
    if first == "-m":
        return [sys.executable, *program]
    found = shutil.which(first)
    if found is not None and not (os.name == "nt" and first.lower().endswith(".py")):
        return [found, *rest]
    if os.path.isfile(first):
        return [sys.executable, *program]
    raise UsbipError(f"there is no program {first!r}: check its name, or give its path")


def _run(command: list[str], settings: dict[str, object]) -> int:
    environment = dict(os.environ)
    paths = [*injected.__path__, *filter(None, [environment.get("PYTHONPATH", "")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    environment["USBIP_CAPTURE_USE"] = json.dumps(settings)
    before = signal.getsignal(signal.SIGINT)
    try:
        process = subprocess.Popen(command, env=environment)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program, which this one outlives
        status = process.wait()
    except OSError as error:
        raise UsbipError(f"{command[0]} cannot be started: {error.strerror or error}") from error
    finally:
        signal.signal(signal.SIGINT, before)
    return 128 - status if status < 0 else status
