"""The command line of a capture, from the table of options; what Wireshark may add in newer versions is passed over."""

from __future__ import annotations

import argparse

from usbip_capture.errors import LocalProtocolError
from usbip_capture.options.option import BOOLEAN
from usbip_capture.options.parsing import Parser
from usbip_capture.options.table import INTERFACE, OPTIONS

_EXAMPLES = f"""\
examples:
  usbip-extcap --capture --host demo --duration 3 --fifo demo.pcapng
  usbip-extcap --capture --host pi --device 1-1.2 --fifo - | tshark -r -
  tshark -i {INTERFACE} -o extcap.usbip_remote.host:pi -o extcap.usbip_remote.device:1-1.2

exit status: 0 all is well, 1 it failed, as one sentence reports, 2 wrong arguments, 130 Ctrl-C came before it was done
"""


def parser() -> Parser:
    """All that a person may give."""
    made = Parser(
        prog="usbip-extcap",
        description="Wireshark's USB/IP interface. It also captures alone:",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,  # argparse would print and exit in the middle of a capture
    )
    made.add_argument("-h", "--help", action="store_true", help="show this help")
    _add_jobs(made)
    made.add_argument("--extcap-interface", metavar="NAME", help=f"what to capture (default: {INTERFACE})")
    made.add_argument("--fifo", metavar="FILE", help="where to write: a file, a named pipe, - for standard output")
    made.add_argument("--extcap-capture-filter", metavar="FILTER", help="write only these URBs, such as 'bulk and in'")
    for option in OPTIONS:
        default = f" (default: {option.default_text})" if option.default_text else ""
        help_text = (option.help + default).replace("%", "%%")
        metavar = option.unit.upper() or option.name.rpartition("-")[2].upper()
        if option.alone:
            # Wireshark gives a value, a person may leave it out.
            metavar = "on|off" if option.kind == BOOLEAN else "|".join(value for value, _ in option.choices)
            made.add_argument(option.flag, nargs="?", const=option.alone, metavar=metavar, help=help_text)
        else:
            made.add_argument(option.flag, metavar=metavar, help=help_text)
    return made


def _add_jobs(made: Parser) -> None:
    jobs = made.add_mutually_exclusive_group()
    jobs.add_argument("--install", action="store_true", help="put it where this machine's Wireshark looks for it")
    jobs.add_argument("--uninstall", action="store_true", help="remove it again")
    jobs.add_argument(
        "--doctor", action="store_true", help="look for everything that may be wrong, and show how to fix it"
    )
    jobs.add_argument(
        "--profile",
        nargs="?",
        const="install",
        choices=("install", "remove"),
        help="install the Wireshark profile USB-IP (columns, colours, filter buttons), or remove it",
    )
    jobs.add_argument(
        "--wireshark",
        nargs="+",
        metavar=("HOST", "DEVICE"),
        help="start Wireshark, capturing from HOST[:PORT], perhaps from one DEVICE, at once",
    )
    jobs.add_argument("--version", action="store_true", help="print the version")
    jobs.add_argument("--capture", action="store_true", help="capture, until stopped")


def parse(argv: list[str]) -> argparse.Namespace:
    """What was given, as text; None for what was not. Raises LocalProtocolError.

    What Wireshark adds in newer versions (`--extcap-...`) is passed over, a misspelt option of ours is not.
    """
    made = parser()
    namespace, unknown = made.parse_known_args(argv)
    for at, argument in enumerate(unknown):
        ours = argument.startswith("--") and not argument.startswith("--extcap-")
        value = at and unknown[at - 1].startswith("--extcap-") and "=" not in unknown[at - 1]
        if ours or not (argument.startswith("--") or value):
            raise LocalProtocolError(made.unknown(argument))
    return namespace


def given(namespace: argparse.Namespace) -> dict[str, str]:
    """The texts by option name, for `options.Choices`."""
    values = {option.name: getattr(namespace, option.key) for option in OPTIONS}
    return {name: value for name, value in values.items() if value is not None}
