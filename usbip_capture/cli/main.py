"""`usbip-capture`: subcommands for people without Wireshark at hand, and for scripts.

Nothing is imported before it is needed: a command pays for its own module only.
"""

from __future__ import annotations

import os
import sys

from usbip_capture import __version__
from usbip_capture.cli.commands import COMMANDS, parse, parser, split
from usbip_capture.system import console
from usbip_capture.system.compiling import build

TYPE_CHECKING = False  # not from typing: that module alone takes as long to import as all that `--version` needs
if TYPE_CHECKING:
    import argparse

#: Ctrl-C is how they are meant to end.
_UNTIL_STOPPED = ("capture", "demo", "syslog", "relay", "replay", "serial", "serve", "tunnel")
#: Their failures have one code only: others are those of the program, or of the tests.
_ONE_FAILURE = ("use", "selftest")


def main(argv: list[str] | None = None) -> int:
    """Run with these arguments (default: the program's) and return the exit code."""
    given = sys.argv[1:] if argv is None else argv
    return console.run("usbip-capture", lambda: _command(given))


def _command(given: list[str]) -> int:
    if given == ["--version"]:
        print(f"usbip-capture {__version__} ({build()})")
        return 0
    if "_ARGCOMPLETE" in os.environ:
        from usbip_capture.cli.completion import complete

        complete()
    command, arguments = split(given)
    if command not in COMMANDS:
        return _no_command(given, command)
    from usbip_capture.errors import LocalProtocolError

    try:
        args = parse(command, arguments)
    except LocalProtocolError as error:
        return _misused(command, str(error))
    return _run(command, args)


def _no_command(given: list[str], command: str) -> int:
    from usbip_capture.cli.groups import VALUED
    from usbip_capture.options.parsing import meant

    if command:
        hint = meant(command, COMMANDS) or ": see usbip-capture --help"
        return _misused("", f"there is no command {command!r}{hint}")
    made = parser()
    if {"--help", "-h"} & set(given):
        made.print_help()
        return 0
    for flag in given:
        if flag.startswith("-") and flag.partition("=")[0] not in (*VALUED, "--syslog", "--json"):
            hint = meant(flag, (*VALUED, *made.flags())) or ": see usbip-capture --help"
            return _misused("", f"{flag} is not an option{hint}")
    return _misused("", "give a COMMAND, such as list: see usbip-capture --help")


def _misused(command: str, sentence: str) -> int:
    print(f"{f'usbip-capture {command}'.strip()}: {sentence}", file=sys.stderr)
    return console.MISUSED


def _run(command: str, args: argparse.Namespace) -> int:
    from usbip_capture.cli import exits
    from usbip_capture.cli.standard_output import text_beside_binary
    from usbip_capture.cli.terminal import report

    # Names that a device gives itself must not end a command in a terminal that cannot show them.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None and command != "stats":
        reconfigure(errors="backslashreplace")
    try:
        with console.EndingInOrder(), text_beside_binary(args):
            return _trusting(args)
    except KeyboardInterrupt:
        if command not in _UNTIL_STOPPED:
            raise
        return exits.DONE
    except Exception as error:
        if not exits.is_reported(error):
            raise
        code = exits.exit_code(error)
        if code == exits.USAGE:
            return _misused(command, exits.sentence(error))
        report(exits.sentence(error))
        return min(code, exits.FAILED) if command in _ONE_FAILURE else code


def _trusting(args: argparse.Namespace) -> int:
    """Run the command; once more each time when the person at the terminal trusts a server that is new."""
    from usbip_capture.errors import UntrustedServer

    while True:
        try:
            return int(args.run(args))
        except UntrustedServer as error:
            from usbip_capture.cli.trust import asked

            if not asked(error):
                raise


if __name__ == "__main__":
    sys.exit(main())
