"""`usbip-capture`: subcommands for people without Wireshark at hand, and for scripts.

Nothing is imported before it is needed: a command pays for its own module only.
"""

from __future__ import annotations

import os
import sys

from usbip_capture import __version__, console

TYPE_CHECKING = False       # not from typing: that module alone takes as long to import as all that `--version` needs
if TYPE_CHECKING:
    import argparse

#: Name -> what it is for, in the order of the help. The module `usbip_capture.cli.<name>` has it.
COMMANDS = {
    "discover": "find servers that announce themselves on the network",
    "list": "the devices of servers; -v: with all descriptors, -t: as a tree",
    "probe": "read a device and say what it is",
    "control": "one control transfer",
    "read": "read from an endpoint",
    "write": "write to an endpoint",
    "capture": "capture a device's traffic into a file, a pipe or Wireshark",
    "ports": "serial ports, as URLs to open them with",
    "serial": "a terminal on a serial device, or its pseudo-terminal or TCP port",
    "syslog": "show the log of a device, or of devices that send it",
    "relay": "see what any USB/IP client says to a server",
    "stats": "what a capture holds, per device and endpoint",
    "convert": "from a recording of TCP to a capture of USB",
    "use": "run a PyUSB program on a server's devices",
    "selftest": "try a server and a device, and say what they do right and wrong",
    "demo": "serve the built-in simulated device to others",
    "config": "show the configuration: servers by name",
    "completion": "completion of command lines, for bash, zsh and fish",
}
#: Ctrl-C is how they are meant to end.
_UNTIL_STOPPED = ("capture", "demo", "syslog", "relay")
#: Their failures have one code only: others are those of the program, or of the tests.
_ONE_FAILURE = ("use", "selftest")

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

    from usbip_capture.cli.groups import HelpFormatter

    made = argparse.ArgumentParser(
        prog="usbip-capture",
        description="USB over IP: devices, captures and what is in them.",
        epilog=_EXAMPLES,
        formatter_class=HelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"usbip-capture {__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    if command:
        from importlib import import_module

        import_module(f"usbip_capture.cli.{command}").add_parser(commands)
    else:
        for name, text in COMMANDS.items():
            commands.add_parser(name, help=text)
    return made


def _no_command(given: list[str], command: str) -> int:
    if not command:
        parser().parse_args(given)      # help, version, or what is wrong
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
