"""What commands for a running server share: which one is meant, and its devices."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from usbip_capture.control_socket.asking import Control
    from usbip_capture.live.messages import Message


def add_running_server(parser: argparse.ArgumentParser) -> None:
    """Which of several running servers."""
    parser.add_argument(
        "--server",
        dest="running_server",
        metavar="NAME",
        default="",
        help="which running server, by its name or by ADDR:PORT where it listens, if there are several",
    )


def add_busid(parser: argparse.ArgumentParser) -> None:
    """An exported device."""
    parser.add_argument("busid", metavar="BUSID", help="the device, by its port, such as 1-1.4")


def running_server(args: argparse.Namespace) -> Control:
    """The one that is meant. Raises NotRunning, LocalProtocolError."""
    from usbip_capture.control_socket.asking import find

    return find(args.running_server)


def rows(answer: Message, name: str) -> list[Message]:
    """A list of objects in an answer; what is not one is left out."""
    found = answer.get(name)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def columns(lines: list[list[str]]) -> list[str]:
    """Lines of a table, each column as wide as its longest text; one that is empty is left out."""
    from usbip_capture.system.shown import one_line

    clean = [[one_line(text) for text in line] for line in lines]
    used = [at for at in range(len(clean[0])) if any(line[at] for line in clean)]
    widths = {at: max(len(line[at]) for line in clean) for at in used}
    return ["  ".join(f"{line[at]:{widths[at]}}" for at in used).rstrip() for line in clean]
