"""`usbip-capture reserve`: a device is for one client only, for a time, and who comes next."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

from usbip_capture.cli.commanding import add_running_server, columns, rows, running_server
from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command, add_json
from usbip_capture.cli.terminal import print_lines, report
from usbip_capture.cli.turns import moment
from usbip_capture.cli.values import duration
from usbip_capture.errors import LocalProtocolError

if TYPE_CHECKING:
    from usbip_capture.control_socket.asking import Control
    from usbip_capture.live.messages import Message

_ABOUT = """\
Reserve a device for a client, for a time: nobody else can attach it, and who else has it is disconnected. If it is
reserved for others, the client comes next. The server that you run here keeps that, also when it is started again.
"""
_EXAMPLES = """\
  usbip-capture reserve 1-1.4 --for 2h                        for programs of this machine
  usbip-capture reserve 1-1.4 --for 90m --client 192.0.2.7    for another one; a network, or paired:NAME
  usbip-capture reserve --list                                who has what until when, and who comes next
  usbip-capture release 1-1.4                                 before the time is over
"""
_TITLE = ["device", "client", "from", "until"]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "reserve", "reserve a device for a client, for a time", _ABOUT, _EXAMPLES)
    parser.add_argument("busid", metavar="BUSID", nargs="?", help="the device, by its port, such as 1-1.4")
    parser.add_argument("--for", dest="seconds", type=duration, metavar="TIME", help="how long: 2h, 90m, 1d, 1h30m")
    parser.add_argument(
        "--client",
        metavar="CLIENT",
        default="",
        help="for whom: an address, a network, paired:NAME, cert:NAME, local (default: local, this machine)",
    )
    parser.add_argument("--list", action="store_true", help="what is reserved, of BUSID or of all devices")
    add_running_server(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Reserve it, or list what is reserved; the exit code. Raises UsbipError."""
    if args.list:
        if args.seconds or args.client:
            raise LocalProtocolError("--list only shows what is reserved: leave out --for and --client")
        return _list(running_server(args), args.busid or "", as_json=args.json)
    if not args.busid or not args.seconds:
        raise LocalProtocolError("name a device and a time, as in: usbip-capture reserve 1-1.4 --for 2h")
    answer = running_server(args).call("reserve", busid=args.busid, seconds=args.seconds, client=args.client)
    if args.json:
        print(json.dumps(answer.get("turn"), indent=2))
    else:
        print_lines([_made(args.busid, answer)])
    return DONE


def _made(busid: str, answer: Message) -> str:
    made, turns, now = answer.get("turn"), rows(answer, "turns"), time.time()
    turn = made if isinstance(made, dict) else {}
    line, until = f"{busid} is reserved for {turn.get('client')}", moment(turn, "until", now)
    if turn not in turns[1:]:
        return f"{line} until {until}"
    earlier = ", ".join(str(other.get("client")) for other in turns[: turns.index(turn)])
    return f"{line} from {moment(turn, 'begins', now)} until {until}, after {earlier}"


def _list(server: Control, busid: str, *, as_json: bool) -> int:
    turns = [
        {"busid": device.get("busid"), **turn}
        for device in rows(server.call("leases"), "leases")
        if busid in ("", device.get("busid"))
        for turn in rows(device, "turns")
    ]
    if as_json:
        print(json.dumps(turns, indent=2))
    elif turns:
        print_lines(columns([_TITLE, *(_row(turn, time.time()) for turn in turns)]))
    else:
        report(f"{busid} is not reserved" if busid else "nothing is reserved")
    return DONE


def _row(turn: Message, now: float) -> list[str]:
    return [str(turn.get("busid")), str(turn.get("client")), moment(turn, "begins", now), moment(turn, "until", now)]
