"""`usbip-capture`: subcommands for people without Wireshark at hand."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import TYPE_CHECKING

from usbip_capture import __version__, console
from usbip_capture.address import DEFAULT_PORT, format_address, parse_address
from usbip_capture.cli import syslog
from usbip_capture.cli.stats import add_parser, stats
from usbip_capture.errors import CaptureError, LocalProtocolError
from usbip_capture.filters.language import FilterError

if TYPE_CHECKING:
    from usbip_capture.demo import DemoServer

_EXAMPLES = """\
examples:
  usbip-capture demo                          serve the simulated device on 127.0.0.1:3240
  usbip-capture demo --listen [::]:3240       to other machines as well
  usbip-capture stats capture.pcapng          what a capture holds
  usbip-capture stats capture.pcapng --html page.html --filter 'bulk and in'
  usbip-capture syslog 192.168.1.20           what an ESP32 bridge logs

exit status: 0 all is well, 1 it failed (one sentence says why), 2 wrong arguments, 130 Ctrl-C came before it was done
"""


def main(argv: list[str] | None = None) -> int:
    """Run with these arguments (default: the program's) and return the exit code."""
    return console.run("usbip-capture", lambda: _command(argv))


def _command(argv: list[str] | None) -> int:
    args = _parser().parse_args(argv)
    if args.command == "syslog":
        return syslog.run(args)
    if args.command == "demo":
        return _demo(args.listen, args.syslog_listen)
    try:
        return stats(args.file, args.filter, args.html)
    except FilterError as error:
        raise LocalProtocolError(f"--filter: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="usbip-capture",
        description="USB over IP: captures and what is in them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"usbip-capture {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="serve the built-in simulated device to others")
    demo.add_argument(
        "--listen",
        metavar="ADDR:PORT",
        default=f"127.0.0.1:{DEFAULT_PORT}",
        help="where to listen (default: %(default)s)",
    )
    demo.add_argument(
        "--syslog-listen",
        metavar="ADDR:PORT",
        help=f"where to offer its log (default: port {syslog.DEFAULT_PORT} beside the other)",
    )
    syslog.add_command(commands)
    add_parser(commands)
    return parser


def _demo(listen: str, log_listen: str | None) -> int:
    from usbip_capture.demo import BUSID, DemoServer

    server = DemoServer()
    address, port = server.listen(*_listen_address(listen))
    where = format_address(address, port)
    log_port = _offer_log(server, address, log_listen)
    print(f"Serving the demo device at {where}, until Ctrl-C. Look at it with:")
    print(f"  usbip --tcp-port {port} list -r {address}")
    print(f"  usbip-extcap --capture --extcap-interface usbip-remote --host {address} --port {port}"
          f" --device {BUSID} --fifo demo.pcapng")  # fmt: skip
    if log_port:
        print(f"  usbip-capture syslog {address} --port {log_port}")
    if not (address.startswith("127.") or address == "::1"):
        if address in ("0.0.0.0", "::"):
            print("From another machine: this one's name or address instead.")
        print("Anyone who reaches this machine can use it: USB/IP has no authentication.")
    sys.stdout.flush()
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: _interrupt())
    try:
        while not done.wait(1.0):
            pass
    except KeyboardInterrupt:       # its ordinary end
        pass
    finally:
        server.close()
    return 0


def _offer_log(server: DemoServer, address: str, listen: str | None) -> int:
    """The port of its log; 0 if nobody asked for one, and the usual port cannot be had."""
    try:
        return server.listen_log(*(_listen_address(listen) if listen else (address, syslog.DEFAULT_PORT)))[1]
    except CaptureError as error:
        if listen:
            raise
        print(f"usbip-capture: its log is not offered: {error}", file=sys.stderr)
        return 0


def _listen_address(text: str) -> tuple[str, int]:
    """ADDR:PORT, ADDR, PORT or :PORT."""
    address, colon, port = text.strip().rpartition(":")
    if port.isascii() and port.isdigit() and not address and (colon or "." not in port):
        return parse_address(f"127.0.0.1:{port}")
    return parse_address(text)


def _interrupt() -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
