"""`usbip-capture`: subcommands for people without Wireshark at hand, and for scripts.

Nothing is imported before it is needed: a command pays for its own module only.
"""

from __future__ import annotations

import os
import sys

from usbip_capture import __version__
from usbip_capture.cli import convert, demo, relay, selftest, stats, syslog, use
from usbip_capture.errors import UsbipError
from usbip_capture.filters.language import FilterError

_EXAMPLES = """\
examples:
  usbip-capture discover                          which servers are there
  usbip-capture list pi                           what the server `pi` exports
  usbip-capture capture pi -o capture.pcapng      capture until Ctrl-C
  usbip-capture capture pi --wireshark            the same, in Wireshark
  usbip-capture list demo -v                      the simulated device, wherever HOST is taken

`usbip-capture COMMAND --help` has more. Options that commands share, such as --host and --pcap, may stand before the
command, too.

exit codes: 0 all is well, 2 wrong arguments, else one sentence says why; docs/commands.md has them all
"""


def main(argv: list[str] | None = None) -> int:
    """Run with these arguments (default: the program's) and return the exit code."""
    given = sys.argv[1:] if argv is None else argv
    return console.run("usbip-capture", lambda: _command(given))


def _command(given: list[str]) -> int:
    if given == ["--version"]:
        print(f"usbip-capture {__version__}")
        return 0
    if "_ARGCOMPLETE" in os.environ:
        from usbip_capture.cli.completion import complete

        complete()
    command, arguments = split(given)
    if command not in COMMANDS:
        return _no_command(given, command)
    # What follows is another program's.
    at = arguments.index("--") if command == "use" and "--" in arguments else len(arguments)
    made = parser(command)
    args, unknown = made.parse_known_args([command, *arguments[:at]])
    args.program = arguments[at + 1 :]
    if unknown and (command != "use" or args.program):
        made.error(f"unrecognized arguments: {' '.join(unknown)}")
    return _run(command, args)


def split(given: list[str]) -> tuple[str, list[str]]:
    """The command, empty if there is none, and its arguments, those before it among them."""
    from usbip_capture.cli.groups import VALUED

    at = 0
    while at < len(given) and given[at].startswith("-"):
        at += 2 if given[at] in VALUED else 1
    return (given[at], given[:at] + given[at + 1 :]) if at < len(given) else ("", [])


def parser(command: str = "") -> argparse.ArgumentParser:
    """The parser of one command, or of the program's overview."""
    import argparse

    made = argparse.ArgumentParser(
        prog="usbip-capture",
        description="USB over IP: devices, captures and what is in them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"usbip-capture {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (demo, stats, convert, relay, use, selftest, syslog):
        command.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
