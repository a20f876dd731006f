"""`usbip-capture events`: what happens at the running server, and has happened."""

from __future__ import annotations

import argparse
import json
import signal
import threading
from datetime import datetime
from typing import TYPE_CHECKING

from usbip_capture.cli.commanding import add_running_server, rows, running_server
from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command, add_json
from usbip_capture.cli.terminal import fresh_line, print_lines, report
from usbip_capture.errors import ServerLost
from usbip_capture.system import console

if TYPE_CHECKING:
    from usbip_capture.control_socket.asking import Control
    from usbip_capture.live.messages import Message

#: Events that one who follows sees of what was before.
_BEFORE = 10
_ALL = 0x7FFFFFFF

_ABOUT = """\
Show what has happened at the server that you run here: who connected, listed the devices, had which of them, was
refused and by which rule, was disconnected and by whom; what was exported or changed. It remembers 10 000 events.
"""
_EXAMPLES = """\
  usbip-capture events
  usbip-capture events --follow               the last 10, then each as it happens, until Ctrl-C
  usbip-capture events --json | jq -r 'select(.kind == "refused") | .client'
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    about = "what happens at the running server, and has happened"
    parser = add_command(commands, "events", about, _ABOUT, _EXAMPLES)
    parser.add_argument("--follow", "-f", action="store_true", help="go on with each event as it happens")
    add_running_server(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print them; the exit code. Raises UsbipError."""
    from usbip_capture.control_socket.asking import is_running

    server = running_server(args)
    stopping = threading.Event()
    if args.follow:
        console.on_request_to_end(lambda number: _stop(number, stopping), signal.SIGINT)
    last = _print(server, args, 0, _BEFORE if args.follow else _ALL)
    while args.follow and not stopping.is_set():
        try:
            last = _print(server, args, last, _ALL)
        except ServerLost:
            if is_running(server):
                raise
            raise ServerLost(f"the server {server.name} has ended") from None
    if stopping.is_set():
        fresh_line()
    return DONE


def _stop(number: int, stopping: threading.Event) -> None:
    """The ordinary end of following; a second request ends a server that does not answer."""
    if number == signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)
    stopping.set()


def _print(server: Control, args: argparse.Namespace, after: int, most: int) -> int:
    """Print what follows the event of this number, the last `most` at first; the number of the last one."""
    while True:
        answer = server.call("events", after=after, last=most)
        found = rows(answer, "events")
        if not found:
            return after
        first = _number(found[0])
        if after and first > after + 1:
            report(f"{first - after - 1} events are left out: the server does not remember them")
        print_lines(_lines(found, as_json=args.json))
        after, most = _number(found[-1]), _ALL
        if after >= _number(answer, "last"):
            return after


def _number(message: Message, name: str = "number") -> int:
    found = message.get(name)
    return found if isinstance(found, int) else 0


def _lines(found: list[Message], *, as_json: bool) -> list[str]:
    if as_json:
        return [json.dumps({name: value for name, value in event.items() if name != "sentence"}) for event in found]
    return [f"{_local(str(event.get('time')))}  {event.get('sentence')}" for event in found]


def _local(time: str) -> str:
    """A stamp in UTC as this machine's clock shows it."""
    try:
        stamp = datetime.strptime(time, "%Y-%m-%dT%H:%M:%S.%f%z")
    except ValueError:
        return time
    return stamp.astimezone().strftime("%Y-%m-%d %H:%M:%S")
