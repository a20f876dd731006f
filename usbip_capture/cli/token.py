"""`usbip-capture token`: who may sign in to the dashboard of the running server."""

from __future__ import annotations

import argparse
import json
import time

from usbip_capture.cli.commanding import add_running_server, columns, rows, running_server
from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command, add_json
from usbip_capture.cli.terminal import print_lines, report
from usbip_capture.cli.turns import moment
from usbip_capture.errors import LocalProtocolError

#: As `web.roles` has them, which is not loaded here.
_ROLES = ("look", "operate", "administer")
_TITLE = ["NAME", "ROLE", "SINCE"]
_ABOUT = """\
Make a token for the dashboard of the server that you run here (serve --web), and print the link that signs a browser in
with it; programs send the token as Authorization: Bearer TOKEN. It is shown only now. Roles: look sees everything,
operate may also disconnect, export, reset and capture, administer may also change settings, access and tokens.
"""
_EXAMPLES = """\
  usbip-capture token laptop --role administer     a link for a browser
  usbip-capture token prometheus                   for a program that only looks
  usbip-capture token --list                       who may sign in
  usbip-capture token --remove laptop              not any more; it is signed out
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "token", "who may sign in to the running server's dashboard", _ABOUT, _EXAMPLES)
    parser.add_argument("name", nargs="?", metavar="NAME", help="what the token is called")
    parser.add_argument("--role", choices=_ROLES, help="what it may do (default: look)")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--list", action="store_true", help="the tokens that there are, without what is secret of them")
    one.add_argument("--remove", metavar="NAME", help="have this token not taken any more")
    add_running_server(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Have it done; the exit code. Raises UsbipError."""
    if (args.list or args.remove is not None) and (args.name is not None or args.role is not None):
        raise LocalProtocolError("--list and --remove go without another NAME, and without --role")
    if args.list:
        return _list(args)
    if args.remove is not None:
        running_server(args).call("token-remove", name=args.remove)
        print_lines([f"the token {args.remove} is removed: who used it is signed out"])
        return DONE
    if args.name is None:
        raise LocalProtocolError("name the token, such as: usbip-capture token laptop --role administer")
    answer = running_server(args).call("token-add", name=args.name, role=args.role or _ROLES[0])
    links = answer.get("links")
    if args.json:
        print(json.dumps({"name": args.name, "links": links}, indent=2))
        return DONE
    print_lines([str(link) for link in links] if isinstance(links, list) else [])
    report(f"the token {args.name} is made; keep the link: it is not shown again")
    return DONE


def _list(args: argparse.Namespace) -> int:
    answer = running_server(args).call("tokens")
    tokens = rows(answer, "tokens")
    if args.json:
        print(json.dumps(tokens, indent=2))
        return DONE
    now = time.time()
    lines = [[str(one.get("name")), str(one.get("role")), moment(one, "created", now)] for one in tokens]
    print_lines(columns([_TITLE, *lines]))
    return DONE
