"""`usbip-capture`: subcommands for people without Wireshark at hand, and for scripts.

Nothing is imported before it is needed: a command pays for its own module only.
"""

from __future__ import annotations

import os
import sys

from usbip_capture import __version__, console
from usbip_capture.cli.commands import COMMANDS, parser, split

TYPE_CHECKING = False  # not from typing: that module alone takes as long to import as all that `--version` needs
if TYPE_CHECKING:
    import argparse

#: Ctrl-C is how they are meant to end.
_UNTIL_STOPPED = ("capture", "demo", "syslog", "relay", "serial")
#: Their failures have one code only: others are those of the program, or of the tests.
_ONE_FAILURE = ("use", "selftest")


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


def _no_command(given: list[str], command: str) -> int:
    if not command:
        parser().parse_args(given)  # help, version, or what is wrong
        return 2
    from difflib import get_close_matches

    close = get_close_matches(command, COMMANDS, 1)
    hint = f"did you mean {close[0]}?" if close else "see usbip-capture --help"
    print(f"usbip-capture: there is no command {command!r}: {hint}", file=sys.stderr)
    return 2


def _run(command: str, args: argparse.Namespace) -> int:
    from usbip_capture.cli import exits

    # Names that a device gives itself must not end a command in a terminal that cannot show them.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None and command != "stats":
        reconfigure(errors="backslashreplace")
    try:
        with console.ending_in_order():
            return int(args.run(args))
    except KeyboardInterrupt:
        if command not in _UNTIL_STOPPED:
            raise
        return exits.DONE
    except Exception as error:
        if not exits.is_told(error):
            raise
        print(f"usbip-capture: {exits.sentence(error)}", file=sys.stderr)
        code = exits.exit_code(error)
        return min(code, exits.FAILED) if command in _ONE_FAILURE and code != exits.USAGE else code


if __name__ == "__main__":
    sys.exit(main())
