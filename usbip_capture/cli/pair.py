"""`usbip-capture pair`: a client and a server that share a one-time code know each other from then on."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from typing import TYPE_CHECKING

from usbip_capture.cli.commanding import add_running_server, columns, rows, running_server
from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command, add_json
from usbip_capture.cli.terminal import is_terminal, print_lines, report
from usbip_capture.cli.turns import moment
from usbip_capture.errors import LocalProtocolError

if TYPE_CHECKING:
    from usbip_capture.control_socket.asking import Control
    from usbip_capture.live.messages import Message

_RIGHTS = "it may have all devices, unless a rule of access allows something to `paired`, or to any paired:NAME"
_TITLE = ["NAME", "SINCE", "CERTIFICATE"]
#: Seconds to connect, and for the server to look at the code.
_TIMEOUT = 10.0
_ABOUT = """\
Pair this client with a server that listens for TLS: with a code that the server has made, both remember each other's
certificates. The server is trusted from then on, and rules of access know this client as paired:NAME. Paired clients
may have all devices until a rule allows something to one of them, or to all: then each has what rules allow it. A code
is good for 5 minutes, 5 tries and one client.
"""
_EXAMPLES = """\
  usbip-capture pair --offer             on the server: prints a code
  usbip-capture pair --offer --name laptop   the same, for a client of this name only
  usbip-capture pair tls://pi            on the client: asks for the code
  usbip-capture pair tls://pi ABCD-EFGH-JKLM --name laptop
  usbip-capture pair --list              on the server: the clients that are paired
  usbip-capture pair --remove laptop     there: not any more; what it has attached is disconnected
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "pair", "pair with a server by a one-time code, for tls://", _ABOUT, _EXAMPLES)
    parser.add_argument("place", nargs="?", metavar="tls://HOST", help="the server, perhaps with a port")
    parser.add_argument("code", nargs="?", metavar="CODE", help="the code that it has made (default: asked for)")
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="what the server calls this client (default: this machine's); with --offer, the only name it may have",
    )
    group = parser.add_argument_group("on the server")
    one = group.add_mutually_exclusive_group()
    one.add_argument("--offer", action="store_true", help="make a code, in place of an earlier one")
    one.add_argument("--list", action="store_true", help="the clients that are paired")
    one.add_argument("--remove", metavar="NAME", help="know this client no more, and disconnect it")
    add_running_server(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Pair, or have done on the server what is asked for; the exit code. Raises UsbipError."""
    here = args.offer or args.list or args.remove is not None
    if here and (args.place or (args.name is not None and not args.offer)):
        raise LocalProtocolError("--offer, --list and --remove are for the server of this machine: name no other one")
    if args.offer:
        return _offer(args)
    if args.list:
        return _list(args)
    if args.remove is not None:
        return _remove(args)
    return _pair(args)


def _pair(args: argparse.Namespace) -> int:
    from usbip_capture.tls.client import tls_address
    from usbip_capture.tls.pairing import check_name, name_from, read_code
    from usbip_capture.tls.pairing_client import pair_with

    host, port = _place(args.place)
    name = check_name(args.name) if args.name is not None else name_from(socket.gethostname())
    code = read_code(args.code if args.code is not None else _asked(tls_address(host, port)))
    fingerprint = pair_with(host, port, code, name, _TIMEOUT)
    if args.json:
        print(json.dumps({"server": tls_address(host, port), "fingerprint": fingerprint, "name": name}, indent=2))
    else:
        print_lines([f"paired with {tls_address(host, port)}, as {name}; its certificate is {fingerprint}"])
    return DONE


def _place(text: str | None) -> tuple[str, int]:
    """Host and port of the server. Raises LocalProtocolError."""
    from usbip_capture.net.address import TLS
    from usbip_capture.servers.address import ServerAddress

    if not text:
        raise LocalProtocolError("name the server, such as tls://pi; or, on the server, give --offer")
    server = ServerAddress.parse(text)
    if not server.scheme and not server.is_built_in:
        server = ServerAddress.parse(f"{TLS}://{text}")
    if server.scheme != TLS:
        raise LocalProtocolError(f"{text!r} is not a server with TLS: write tls://HOST")
    return server.host, server.port


def _asked(where: str) -> str:
    """The code, of the person at the terminal. Raises LocalProtocolError."""
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise LocalProtocolError(f"the code is missing: usbip-capture pair {where} CODE")
    sys.stderr.write(f"the code that `usbip-capture pair --offer` has printed on {where}: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def _offer(args: argparse.Namespace) -> int:
    from usbip_capture.tls.pairing import check_name

    server = running_server(args)
    if args.name is not None:
        check_name(args.name)
    answer = server.call("pair-offer", name=args.name or "")
    if args.json:
        print(json.dumps(answer, indent=2))
        return DONE
    places = answer.get("tls")
    where = _name_of([str(place) for place in places] if isinstance(places, list) else [])
    name = f" --name {args.name}" if args.name is not None else ""
    print_lines([str(answer.get("code"))])
    report(f"the code is good for {_minutes(answer)}, and for one client; on it, run: usbip-capture pair {where}{name}")
    chosen = f"it is {args.name}" if name else "the client chooses its name, unless you fix it with --offer --name NAME"
    report(f"{chosen}; {_RIGHTS}")
    report(f"the certificate of this server is {answer.get('fingerprint')}")
    return DONE


def _minutes(answer: Message) -> str:
    seconds = answer.get("seconds")
    return f"{seconds / 60:.0f} minutes" if isinstance(seconds, (int, float)) else "some minutes"


def _name_of(places: list[str]) -> str:
    """How other machines may name the server."""
    from usbip_capture.net.address import TLS_PORT, format_address, parse_address

    address, port = parse_address(places[0], TLS_PORT) if places else ("", TLS_PORT)
    host = socket.gethostname() if address in ("", "0.0.0.0", "::") else address
    return format_address(f"tls://[{host}]" if ":" in host else f"tls://{host}", port)


def _list(args: argparse.Namespace) -> int:
    from usbip_capture.tls.paired_clients import read_paired_clients

    servers = _running(args)
    if servers:
        clients = rows(servers[0].call("paired"), "clients")
    else:
        clients = [{"name": one.name, "since": one.since, "fingerprint": one.fingerprint}
                   for one in read_paired_clients().values()]  # fmt: skip
    if args.json:
        print(json.dumps(clients, indent=2))
    elif clients:
        now = time.time()
        lines = [[str(one.get("name")), moment(one, "since", now), str(one.get("fingerprint"))] for one in clients]
        print_lines(columns([_TITLE, *lines]))
    else:
        report("no client is paired")
    return DONE


def _remove(args: argparse.Namespace) -> int:
    from usbip_capture.tls.paired_clients import remove_paired_client

    errors: list[LocalProtocolError] = []
    servers = _running(args)
    for server in servers:
        try:
            server.call("unpair", name=args.remove)
        except LocalProtocolError as error:  # another one, which has the same clients, has removed it
            errors.append(error)
    if servers and len(errors) == len(servers):
        raise errors[0]
    if not servers:
        remove_paired_client(args.remove)
    print_lines([f"{args.remove} is not paired any more"])
    report(f"rules and reservations that name paired:{args.remove} stay: whoever is paired by this name next has them")
    return DONE


def _running(args: argparse.Namespace) -> list[Control]:
    """The server that is meant, or all."""
    from usbip_capture.control_socket.asking import running

    return [running_server(args)] if args.running_server else running()
