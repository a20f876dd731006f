"""Options that several commands share, each declared once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from usbip_capture.cli.values import capture_file, number16, port, seconds, wait
from usbip_capture.net.address import DEFAULT_PORT
from usbip_capture.servers.patience import TIMEOUT_VARIABLE
from usbip_capture.syslog import LOG_PORT

#: Shared options with a value: before the command, too, they take the next word.
VALUED = (
    "--connect-timeout", "--device", "--host", "--mdns-timeout", "--pcap", "--pid", "--port", "--serial-number",
    "--syslog-port", "--timeout", "--transfer-timeout", "--vid",
)  # fmt: skip
_MARGIN = 20  # of a comment without a command, in columns
CONNECT_TIMEOUT = 2.0
BROWSE_TIMEOUT = 3.0

_LOG_GOES = "onto standard error, and into the capture"
_HOST = (
    "the USB/IP server: HOST, HOST:PORT, [IPv6]:PORT, tls://HOST, ssh://HOST, a name from the configuration, demo, or "
    "local"
)


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """argparse's, but sentences are broken to fit the terminal, and examples keep their lines.

    It asks for the width itself: `shutil`, which argparse asks, imports every compressor there is, for each command.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        from textwrap import fill

        shown: list[str] = []
        sentence: list[str] = []
        for line in [*text.splitlines(), ""]:
            if line and not line.startswith(" "):
                sentence.append(line)
                continue
            shown += [fill(" ".join(sentence), width)] if sentence else []
            sentence = []
            shown += _example(line, width)
        return "\n".join(indent + line for line in shown[:-1])


def _example(line: str, width: int) -> list[str]:
    """A command, and what it is for below it if there is no room beside it."""
    if len(line) > width and line.startswith(" " * _MARGIN):  # what the line above is for
        return [f"      {line.strip()}"]
    command, gap, comment = line.strip().partition("  ")
    if len(line) <= width or not gap:
        return [line]
    return [f"  {command}", f"      {comment.strip()}"]


def _columns() -> int:
    """Of the terminal. Ref: POSIX, 8.3 (COLUMNS)"""
    chosen = os.environ.get("COLUMNS", "")
    if chosen.isdecimal() and int(chosen):
        return int(chosen)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, help: str, about: str, examples: str
) -> argparse.ArgumentParser:
    """A subcommand whose help describes what it does and teaches by examples."""
    return commands.add_parser(
        name,
        help=help,
        description=about,
        epilog=f"examples:\n{examples}",
        formatter_class=HelpFormatter,
    )


def add_server(parser: argparse.ArgumentParser) -> None:
    """One server, as HOST or --host; `chosen.settle` makes `args.server` of both."""
    parser.add_argument("server", nargs="?", metavar="HOST", help=_HOST)
    _add_connection(parser)


def add_servers(
    parser: argparse.ArgumentParser, default: str = "all that can be found", browses: str = "without HOST"
) -> None:
    """Any number of servers. default: which, if none is named. browses: when it is looked for announced ones."""
    parser.add_argument("servers", nargs="*", metavar="HOST", help=f"{_HOST} (default: {default})")
    _add_connection(parser)
    add_browsing(parser, f"{browses}, how long to look for servers (default: %(default)g)")


def add_browsing(parser: argparse.ArgumentParser, help: str) -> None:
    """How long to wait for servers that announce themselves."""
    parser.add_argument("--mdns-timeout", type=wait, default=BROWSE_TIMEOUT, metavar="SECONDS", help=help)


def _add_connection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", metavar="HOST", help="the same, as an option")
    parser.add_argument(
        "--port", type=port, default=DEFAULT_PORT, help="its TCP port (default: %(default)s; with tls:// 3241)"
    )
    parser.add_argument(
        "--connect-timeout",
        type=wait,
        default=os.environ.get(TIMEOUT_VARIABLE, "").strip() or f"{CONNECT_TIMEOUT:g}",  # `wait` is applied to it, too
        metavar="SECONDS",
        help=f"for connecting, and for the server's answers (default: {TIMEOUT_VARIABLE}, else {CONNECT_TIMEOUT:g})",
    )


def add_device(parser: argparse.ArgumentParser, *, several: str = "") -> None:
    """One device of a server, as DEVICE or --device. several: what else may be given, where several devices may be."""
    only = "" if several else " (default: the only one that is exported)"
    forms = f"a busid such as 1-1.2, VID:PID in hexadecimal, VID:PID:SERIAL, or serial=NUMBER{several}{only}"
    parser.add_argument("device_word", nargs="?", metavar="DEVICE", help="the device, as for --device")
    group = parser.add_argument_group("which device")
    group.add_argument("--device", metavar="DEVICE", help=forms)
    group.add_argument("--vid", type=number16, metavar="NUMBER", help="its idVendor such as 0x303a, with --pid")
    group.add_argument("--pid", type=number16, metavar="NUMBER", help="its idProduct such as 0x4004, with --vid")
    group.add_argument("--serial-number", metavar="TEXT", help="its serial number: read from each that may be meant")


def add_listen(parser: argparse.ArgumentParser) -> None:
    """Where USB/IP clients connect to, one address."""
    parser.add_argument(
        "--listen",
        metavar="ADDR:PORT",
        help=f"where clients connect to; port 0 takes a free one (default: 127.0.0.1:{DEFAULT_PORT})",
    )


def add_transfer_timeout(parser: argparse.ArgumentParser, default: float) -> None:
    """For each transfer, in seconds."""
    parser.add_argument(
        "--transfer-timeout",
        type=seconds,
        default=default,
        metavar="SECONDS",
        help="for each transfer; 0: wait for ever (default: %(default)g)",
    )


def add_old_name(
    parser: argparse.ArgumentParser, old: str, name: str, type: Callable[[str], float], *, metavar: str = "SECONDS"
) -> None:
    """An option that was called otherwise once: scripts may still have it, the help does not."""
    dest = name.removeprefix("--").replace("-", "_")
    parser.add_argument(old, dest=dest, type=type, metavar=metavar, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def add_output(parser: argparse._ActionsContainer, help: str) -> None:
    """Where a capture goes that is all that the command makes."""
    parser.add_argument("-o", "--output", "--pcap", dest="output", type=capture_file, metavar="FILE", help=help)


def add_recording(parser: argparse.ArgumentParser, *, log_goes: str = _LOG_GOES) -> None:
    """Capture what the command does, and the device's log. log_goes: where to, for the help."""
    group = parser.add_argument_group("recording")
    group.add_argument(
        "--pcap", type=capture_file, metavar="FILE", help="capture all transfers into FILE, or a named pipe"
    )
    group.add_argument(
        "--syslog",
        action="store_true",
        help=f"also read the log of the device from its log port: {log_goes}",
    )
    group.add_argument(
        "--syslog-port", type=port, default=LOG_PORT, metavar="PORT", help="its log port (default: %(default)s)"
    )


def add_hindsight(parser: argparse._ActionsContainer, what: str) -> None:
    """Something is kept for captures that begin later."""
    parser.add_argument(
        "--hindsight",
        metavar="TIME,SIZE",
        default="",
        help=f"keep {what} for captures that begin later, such as 30s,16MiB of each device (default: nothing)",
    )


def add_offer(parser: argparse.ArgumentParser) -> None:
    """What the command does can be joined."""
    parser.add_argument(
        "--offer",
        action="store_true",
        help="list the program in Wireshark: its transfers can be captured while it runs",
    )
    add_hindsight(parser, "with --offer, its latest transfers")


def add_rotation(group: argparse._ArgumentGroup) -> None:
    """A capture in several files."""
    group.add_argument(
        "-b",
        "--rotate",
        action="append",
        default=[],
        metavar="KEY:NUMBER",
        help="several files, as dumpcap writes them; may be repeated",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Output for scripts."""
    parser.add_argument("--json", action="store_true", help="for scripts: JSON instead of text")
