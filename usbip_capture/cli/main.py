"""`usbip-capture`: subcommands for people without Wireshark at hand."""

from __future__ import annotations

import argparse
import sys

from usbip_capture import __version__, console
from usbip_capture.cli import convert, demo, selftest, stats, syslog, use
from usbip_capture.errors import LocalProtocolError
from usbip_capture.filters.language import FilterError

_EXAMPLES = """\
examples:
  usbip-capture demo                          serve the simulated device on 127.0.0.1:3240
  usbip-capture demo --listen [::]:3240       to other machines as well
  usbip-capture stats capture.pcapng          what a capture holds
  usbip-capture stats capture.pcapng --html page.html --filter 'bulk and in'
  usbip-capture convert tcp.pcap usb.pcapng   from a recording of TCP to a capture of USB
  usbip-capture syslog 192.168.1.20           what an ESP32 bridge logs
  usbip-capture use pi -- program.py          run a PyUSB program on the devices of the server `pi`
  usbip-capture selftest pi                   what that server, and a device there, do right and wrong

exit status: 0 all is well, 1 it failed (one sentence says why), 2 wrong arguments, 130 Ctrl-C came before it was done
"""


def main(argv: list[str] | None = None) -> int:
    """Run with these arguments (default: the program's) and return the exit code."""
    return console.run("usbip-capture", lambda: _command(argv))


def _command(argv: list[str] | None) -> int:
    given = sys.argv[1:] if argv is None else argv
    # What follows is another program's.
    at = given.index("--") if given[:1] == ["use"] and "--" in given else len(given)
    args = _parser().parse_args(given[:at])
    args.program = given[at + 1 :]
    try:
        return int(args.run(args))
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
    for command in (demo, stats, convert, syslog, use, selftest):
        command.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
