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
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from usbip_capture.cli.groups import HelpFormatter, add_device, add_offer, add_old_name, add_recording, add_server
from usbip_capture.cli.terminal import report
from usbip_capture.cli.values import seconds, wait
from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.net.address import DEFAULT_PORT
from usbip_capture.system.console import Terminated
from usbip_capture.use import injected

if TYPE_CHECKING:
    from usbip_capture.servers.address import Selector, ServerAddress

NO_PROGRAM = "no program given: write it after --, as in `usbip-capture use pi -- program.py`"
#: Seconds for which a device may be missing after it was released.
_MISSING = 1.0
_RETRY_INTERVAL = 0.05
#: What a backend is made of; the rest is for other commands.
_PACKAGES = ("usbip_capture", "usb", "pcapng")

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
        usage="usbip-capture use HOST [DEVICE] [options] -- PROGRAM [ARGS...]",
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
    )
    add_server(parser)
    add_old_name(parser, "--timeout", "--connect-timeout", wait)
    add_device(parser, several=" or a comma-separated list: what the program sees (default: all)")
    parser.add_argument(
        "--reconnect",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="how long to wait for a device that is lost, to import it again (default: 0, leave it lost)",
    )
    add_recording(parser)
    add_offer(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the program; its exit status. Raises UsbipError when there is no such program or server."""
    from usbip_capture.capture.sinks import check_file
    from usbip_capture.capture.span import check_offer
    from usbip_capture.cli.session import chosen_devices, chosen_server, log_of, resolved
    from usbip_capture.servers.address import Selector

    if not args.program:
        raise LocalProtocolError(NO_PROGRAM)
    command = _command(args.program)
    if args.pcap:
        check_file(args.pcap)
    check_offer(args.offer, args.hindsight)
    server = chosen_server(args)
    # What is wrong is better reported now than in a program's traceback.
    selection = [resolved(server, selector) for selector in chosen_devices(args)]
    _look_for(server, selection or [Selector()])
    # Into a capture only the program's own process can write the log.
    shown = args.syslog and not args.pcap
    log = log_of(server, args.syslog_port, None) if shown else contextlib.nullcontext()
    with log, tempfile.TemporaryDirectory(prefix="usbip-capture-") as folder:
        marker = Path(folder, "used")
        settings: dict[str, object] = {"host": str(server), "port": DEFAULT_PORT, "timeout": server.timeout}
        settings["device"] = ",".join(map(str, selection))
        settings["reconnect"] = args.reconnect
        settings["pcap"] = os.path.abspath(args.pcap) if args.pcap else ""
        settings["syslog_port"] = args.syslog_port if args.syslog and args.pcap else 0
        settings["offer"] = args.offer
        settings["hindsight"] = args.hindsight
        settings["marker"] = str(marker)
        settings["packages"] = _package_folders(server)
        status = _run(command, settings)
        if not marker.exists():
            report(
                f"{' '.join(args.program)} has not asked PyUSB for a device: is it a Python program that uses PyUSB, "
                "and not run with -I, -E or -S?"
            )
        return status


def _package_folders(server: ServerAddress) -> list[str]:
    """Where this Python has our package and those it needs: the program's own Python may have none of them."""
    from usbip_capture.servers.address import LOCAL

    names = [*_PACKAGES]
    if server.host == LOCAL:
        from usbip_capture.devices.libusb.binding import PACKAGES  # not for those who have no libusb

        names += PACKAGES
    found = [find_spec(name) for name in names]
    folders = [os.path.dirname(os.path.dirname(spec.origin)) for spec in found if spec is not None and spec.origin]
    return list(dict.fromkeys(folders))


def _look_for(server: ServerAddress, selection: list[Selector]) -> None:
    """Report when there is no such device. Raises UsbipError when there is no server.

    A device that another program has just released is missing for half a second on Linux: it is waited for.
    """
    deadline = time.monotonic() + _MISSING
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
    report(f"{server.offers} no {wanted} now (or it is in use){others}")


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
        try:
            status = process.wait()
        except Terminated:
            # As Ctrl-C would, so that its capture is completed; a program in a script's background ignores that.
            ignored = before is signal.SIG_IGN
            process.send_signal(signal.SIGTERM if ignored or os.name == "nt" else signal.SIGINT)
            process.wait()
            raise
    except OSError as error:
        raise UsbipError(f"{command[0]} cannot be started: {error.strerror or error}") from error
    finally:
        signal.signal(signal.SIGINT, before)
    return 128 - status if status < 0 else status
