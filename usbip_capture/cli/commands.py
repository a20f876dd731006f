"""The table of the commands, and their parsers. A command's module is imported when its parser is wanted."""

from __future__ import annotations

from usbip_capture import __version__

TYPE_CHECKING = False  # not from typing: that module alone takes as long to import as all that `--version` needs
if TYPE_CHECKING:
    import argparse

    from usbip_capture.options.parsing import Parser

#: Name -> what it is for, in the order of the help. `module_of` has the module that is it.
COMMANDS = {
    "discover": "find servers that announce themselves on the network",
    "list": "the devices of servers; -v: with all descriptors, -t: as a tree",
    "fleet": "all servers and their devices at once; what is missing; stats: figures",
    "local": "the devices of this machine, and whether they can be lent",
    "probe": "read a device and report what it is",
    "control": "one control transfer",
    "read": "read from an endpoint",
    "write": "write to an endpoint",
    "capture": "capture a device's traffic into a file, a pipe or Wireshark, or print it",
    "ports": "serial ports, as URLs to open them with",
    "serial": "a terminal on a serial device, or its pseudo-terminal or TCP port",
    "attach": "attach a device of a server to this machine (Linux)",
    "detach": "detach a device that is attached to this machine (Linux)",
    "attached": "the devices that are attached to this machine (Linux)",
    "syslog": "show the log of a device, or of devices that send it",
    "relay": "see what any USB/IP client sends to a server",
    "tunnel": "a server behind TLS or ssh, for any USB/IP client",
    "serve": "lend this machine's USB devices to USB/IP clients",
    "labgrid-exporter": "labgrid's exporter: lend devices to whoever acquires their place",
    "labgrid-config": "the configuration of labgrid's exporter for what is plugged in here",
    "status": "what the running server exports, and where",
    "clients": "who is connected to the running server",
    "events": "what happens at the running server, and has happened",
    "kick": "disconnect the client that has a device",
    "reset": "reset a device of the running server",
    "power": "switch the power of a port off and on",
    "reserve": "reserve a device for a client, for a time",
    "release": "end the reservation of a device",
    "bind": "have devices exported, by the configuration",
    "unbind": "have devices not exported any more",
    "access": "who may have which device",
    "pair": "pair with a server by a one-time code, for tls://",
    "token": "who may sign in to the running server's dashboard",
    "trust": "trust the certificate of a server, for tls://",
    "stats": "what a capture holds, per device and endpoint",
    "convert": "from a recording of TCP to a capture of USB",
    "compare": "where two captures of the same session differ",
    "replay": "serve the devices of a capture, as they answered then",
    "use": "run a PyUSB program on a server's devices",
    "selftest": "try a server and a device, and report what they do right and wrong",
    "demo": "serve the built-in simulated device to others",
    "config": "show or change the configuration: servers by name",
    "completion": "completion of command lines, for bash, zsh and fish",
}

_EXAMPLES = """\
examples:
  usbip-capture discover                          which servers are there
  usbip-capture list pi                           what the server `pi` exports
  usbip-capture capture pi -o capture.pcapng      capture until Ctrl-C
  usbip-capture capture pi --wireshark            the same, in Wireshark
  usbip-capture list demo -v                      the simulated device, wherever HOST is taken

`usbip-capture COMMAND --help` has more. Options that commands share, such as --host and --pcap, may also be given
before the command.

exit codes: 0 all is well, 2 wrong arguments, else one sentence reports why; docs/commands.md has them all
"""


def module_of(command: str) -> str:
    """The module of a command, with `add_parser`."""
    return f"usbip_capture.cli.{command.replace('-', '_')}"


def split(given: list[str]) -> tuple[str, list[str]]:
    """The command, empty if there is none, and its arguments, those before it among them."""
    from usbip_capture.cli.groups import VALUED

    at = 0
    while at < len(given) and given[at].startswith("-"):
        at += 2 if given[at] in VALUED else 1
    return (given[at], given[:at] + given[at + 1 :]) if at < len(given) else ("", [])


def parse(command: str, given: list[str]) -> argparse.Namespace:
    """What `given` means to a command. Raises LocalProtocolError for what it does not understand."""
    from usbip_capture.cli.chosen import settle

    # What follows is another program's.
    at = given.index("--") if command == "use" and "--" in given else len(given)
    program = given[at + 1 :]
    made = _of_command(parser(command), command)
    own = made.switched(given[:at])
    if command != "use" or program:  # who forgets the -- gets a sentence
        made.check_options(own)
    args, unknown = made.parse_known_intermixed_args(own)
    if unknown and (command != "use" or program):
        made.error(made.unknown(unknown[0]))
    args.command, args.program = command, program
    settle(args)
    return args


def _of_command(made: Parser, command: str) -> Parser:
    from usbip_capture.options.parsing import subparsers

    return subparsers(made)[command]


def parser(command: str = "") -> Parser:
    """The parser of one command, or of the program's overview."""
    from usbip_capture.cli.groups import HelpFormatter
    from usbip_capture.options.parsing import Parser

    made = Parser(
        prog="usbip-capture",
        description="USB over IP: devices, captures and what is in them.",
        epilog=_EXAMPLES,
        formatter_class=HelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"usbip-capture {__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    if command:
        from importlib import import_module

        import_module(module_of(command)).add_parser(commands)
    else:
        for name, text in COMMANDS.items():
            commands.add_parser(name, help=text)
    return made
