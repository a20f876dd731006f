"""`usbip-capture demo`: the built-in simulated device, served to others."""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from usbip_capture.cli.groups import add_command
from usbip_capture.cli.terminal import print_lines, report
from usbip_capture.errors import CannotListen
from usbip_capture.net.address import DEFAULT_PORT, format_address, parse_address
from usbip_capture.syslog import LOG_PORT

if TYPE_CHECKING:
    from usbip_capture.demo.device import DemoServer


_EXAMPLES = """\
  usbip-capture demo
  usbip-capture demo --listen 0.0.0.0:3240
  usbip-capture demo --lsusb devices      with a file devices/1-2.lsusb for each device
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand and its options."""
    parser = add_command(
        commands,
        "demo",
        "serve the built-in simulated device to others",
        "Serve the built-in simulated device, and others made of lsusb's text, until Ctrl-C.",
        _EXAMPLES,
    )
    parser.add_argument(
        "--listen",
        metavar="ADDR:PORT",
        default=f"127.0.0.1:{DEFAULT_PORT}",
        help="where to listen (default: %(default)s)",
    )
    parser.add_argument(
        "--syslog-listen",
        metavar="ADDR:PORT",
        help=f"where to offer its log (default: port {LOG_PORT} beside the other)",
    )
    parser.add_argument(
        "--lsusb",
        metavar="DIR",
        help="serve the devices of DIR too: files BUSID.lsusb with the text of lsusb -v; serial ports echo, and so do "
        "the bulk endpoints of others; 99-99 is refused to those who import it",
    )
    parser.set_defaults(run=lambda args: serve(args.listen, args.syslog_listen, args.lsusb))


def serve(listen: str, log_listen: str | None, lsusb: str | None) -> int:
    """Serve until interrupted; the exit code. Raises UsbipError."""
    from usbip_capture.demo.device import BUSID, DemoServer

    server = DemoServer()
    added = _add_devices(server, lsusb) if lsusb else []
    address, port = server.listen(*_listen_address(listen))
    where = format_address(address, port)
    log_port = _offer_log(server, address, log_listen)
    print(f"Serving the demo device at {where}, until Ctrl-C. Look at it with:")
    print(f"  usbip --tcp-port {port} list -r {address}")
    print(f"  usbip-capture capture {where} {BUSID} -o demo.pcapng")
    if log_port:
        print(f"  usbip-capture syslog {format_address(address, log_port)}")
    for line in added:
        print_lines([f"Serving {line} there as well."])
    if not (address.startswith("127.") or address == "::1"):
        if address in ("0.0.0.0", "::"):
            print("From another machine: this one's name or address instead.")
        print("Anyone who reaches this machine can use it: USB/IP has no authentication.")
    sys.stdout.flush()
    done = threading.Event()
    try:
        while not done.wait(1.0):
            pass
    except KeyboardInterrupt:  # its ordinary end
        pass
    finally:
        server.close()
    return 0


def _add_devices(server: DemoServer, directory: str) -> list[str]:
    """What was added, as lines to read."""
    from usbip_capture.demo.lsusb import add_directory

    return [f"{info}" for info in add_directory(server, Path(directory), _note)]


def _note(sentence: str) -> None:
    print(f"usbip-capture: {sentence}", file=sys.stderr)


def _offer_log(server: DemoServer, address: str, listen: str | None) -> int:
    """The port of its log; 0 if nobody asked for one, and the usual port cannot be had."""
    try:
        return server.listen_log(*(_listen_address(listen) if listen else (address, LOG_PORT)))[1]
    except CannotListen as error:
        if listen:
            raise
        report(f"{error}; the device is served without its log")
        return 0


def _listen_address(text: str) -> tuple[str, int]:
    """ADDR:PORT, ADDR, PORT or :PORT."""
    address, colon, port = text.strip().rpartition(":")
    if port.isascii() and port.isdigit() and not address and (colon or "." not in port):
        return parse_address(f"127.0.0.1:{port}")
    return parse_address(text)
