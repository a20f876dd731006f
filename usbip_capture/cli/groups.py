"""Options that several commands share, each said once; and the types of their values."""

from __future__ import annotations

import argparse
import os

from usbip_capture.address import DEFAULT_PORT

#: Shared options with a value: before the command, too, they take the next word.
VALUED = (
    "--connect-timeout", "--device", "--host", "--mdns-timeout", "--pcap", "--pid", "--port", "--syslog-port",
    "--timeout", "--vid",
)  # fmt: skip
LOG_PORT = 1514
_MARGIN = 20  # of a comment without a command, in columns
CONNECT_TIMEOUT = 2.0
BROWSE_TIMEOUT = 3.0

_HOST = "the USB/IP server: HOST, HOST:PORT, [IPv6]:PORT, a name from the configuration, or demo"


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
    """A subcommand whose help says what it does and teaches by examples."""
    return commands.add_parser(
        name,
        help=help,
        description=about,
        epilog=f"examples:\n{examples}",
        formatter_class=HelpFormatter,
    )


def add_server(parser: argparse.ArgumentParser, *, timeout_is_for_transfers: bool = False) -> None:
    """One server, as HOST or --host."""
    parser.add_argument("server", nargs="?", metavar="HOST", help=_HOST)
    _add_connection(parser, timeout_is_for_transfers)


def add_servers(parser: argparse.ArgumentParser) -> None:
    """Any number of servers."""
    parser.add_argument("servers", nargs="*", metavar="HOST", help=_HOST + " (default: all that can be found)")
    _add_connection(parser, False)
    parser.add_argument(
        "--mdns-timeout",
        type=seconds,
        default=BROWSE_TIMEOUT,
        metavar="SECONDS",
        help="without HOST, how long to look for servers (default: %(default)g)",
    )


def _add_connection(parser: argparse.ArgumentParser, timeout_is_for_transfers: bool) -> None:
    parser.add_argument("--host", metavar="HOST", help="the same, as an option")
    parser.add_argument("--port", type=port, default=DEFAULT_PORT, help="its TCP port (default: %(default)s)")
    parser.add_argument(
        "--connect-timeout",
        *(() if timeout_is_for_transfers else ("--timeout",)),
        type=seconds,
        default=CONNECT_TIMEOUT,
        metavar="SECONDS",
        help="for connecting, and for the server's answers (default: %(default)g)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """One device of a server."""
    group = parser.add_argument_group("which device", "the only one that is exported, if nothing else is said")
    group.add_argument("--device", metavar="BUSID", help="its busid such as 1-1.2, or VID:PID in hexadecimal")
    group.add_argument("--vid", type=number16, metavar="NUMBER", help="its idVendor such as 0x303a, with --pid")
    group.add_argument("--pid", type=number16, metavar="NUMBER", help="its idProduct such as 0x4004, with --vid")


def add_recording(parser: argparse.ArgumentParser, *, pcap: bool = True) -> None:
    """Capture what the command does, and the device's log."""
    group = parser.add_argument_group("recording")
    if pcap:
        group.add_argument("--pcap", metavar="FILE", help="capture all transfers into FILE, or a named pipe")
    group.add_argument(
        "--syslog",
        action="store_true",
        help="also read the log of the device from its log port: onto standard error, and into the capture",
    )
    group.add_argument(
        "--syslog-port", type=port, default=LOG_PORT, metavar="PORT", help="its log port (default: %(default)s)"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Output for scripts."""
    parser.add_argument("--json", action="store_true", help="for scripts: JSON instead of text")


def number(text: str) -> int:
    """A whole number: 255, 0xff, 0b11111111 or 0o377."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number: write 255, 0xff, 0b11111111 or 0o377")
    return value


def number8(text: str) -> int:
    """A number of one byte."""
    return _bounded(text, 0xFF)


def number16(text: str) -> int:
    """A number of two bytes."""
    return _bounded(text, 0xFFFF)


def _bounded(text: str, most: int) -> int:
    value = number(text)
    if value > most:
        raise argparse.ArgumentTypeError(f"{text} is too large: {most:#x} is the most")
    return value


def length(text: str) -> int:
    """Bytes of one transfer, as many as USB/IP moves."""
    from usbip_capture.wire.structs import MAX_TRANSFER

    value = number(text)
    if value > MAX_TRANSFER:
        raise argparse.ArgumentTypeError(f"{text} is too large: at most {MAX_TRANSFER} bytes")
    return value


def port(text: str) -> int:
    """A TCP port."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no TCP port: 1 to 65535 are")
    return int(text)


def seconds(text: str) -> float:
    """A time, not negative."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time in seconds")
    return value


def data_hex(text: str) -> bytes:
    """Bytes in hexadecimal: `0102`, `01 02`, `01:02`."""
    try:
        return bytes.fromhex(text.replace(":", " ").replace("0x", " "))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no hexadecimal: write two digits for each byte") from None
