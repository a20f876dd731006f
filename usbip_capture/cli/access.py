"""`usbip-capture access`: who may have which device, now and from each start of the server on."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from usbip_capture.cli.commanding import add_running_server, running_server
from usbip_capture.cli.exits import DONE, FAILED
from usbip_capture.cli.groups import add_command, add_json
from usbip_capture.cli.terminal import print_lines
from usbip_capture.errors import LocalProtocolError

if TYPE_CHECKING:
    from usbip_capture.access.rules import AccessRule, AccessRules
    from usbip_capture.control_socket.asking import Control
    from usbip_capture.live.messages import Message

SHOW, OPEN, CLOSE, ALLOW, DENY, REMOVE = "show", "open", "close", "allow", "deny", "remove"
_ABOUT = """\
Have a mode and rules of who may have which device written into the configuration, under [server]; a server that runs
follows, and sessions that are not allowed any more end. Closed, the mode at first, is for this machine and whom a rule
allows; open is for everybody who can connect. A rule that denies wins over all that allow.

CLIENT is any, local (this machine), an address or a network, paired, paired:NAME, cert or cert:NAME. DEVICE is a port
such as 1-1.4, VID:PID, VID:PID:SERIAL, class:03, or all, which it is if none is named.
"""
_EXAMPLES = """\
  usbip-capture access show
  usbip-capture access allow 192.0.2.0/24                all devices
  usbip-capture access allow 2001:db8::7 1-1.4           what is plugged into this port
  usbip-capture access deny 192.0.2.66 303a:4001 1-1.2   some devices
  usbip-capture access remove allow 192.0.2.0/24         the rule of these words
  usbip-capture access open                              everybody, but whom a rule denies
  usbip-capture access close
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "access", "who may have which device", _ABOUT, _EXAMPLES)
    parser.add_argument("action", choices=(SHOW, OPEN, CLOSE, ALLOW, DENY, REMOVE), help="what to do")
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help=f"of allow and deny: CLIENT [DEVICE ...]; of {REMOVE}: the same rule"
    )
    add_running_server(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show or change it; the exit code. Raises UsbipError."""
    action, words = args.action, args.words
    if action in (SHOW, OPEN, CLOSE) and words:
        raise LocalProtocolError(f"access {action} takes no further words, not {' '.join(words)!r}")
    if action == SHOW:
        return _show(args)
    if args.json:
        raise LocalProtocolError("--json goes with access show")
    removing = action == REMOVE
    if removing:
        if words[:1] not in ([ALLOW], [DENY]):
            raise LocalProtocolError("name the rule, as in: usbip-capture access remove allow 192.0.2.0/24 1-1.4")
        action, *words = words
    rules = _rules(action, words) if action in (ALLOW, DENY) else []
    return _change(args, rules, {OPEN: "open", CLOSE: "closed"}.get(action, ""), removing=removing)


def _rules(action: str, words: list[str]) -> list[AccessRule]:
    """One for each device. Raises LocalProtocolError."""
    from usbip_capture.access.clients import ClientPattern
    from usbip_capture.access.devices import DevicePattern
    from usbip_capture.access.rules import AccessRule

    if not words:
        raise LocalProtocolError(f"name a client, as in: usbip-capture access {action} 192.0.2.0/24 1-1.4")
    client, *devices = words
    parsed = ClientPattern.parse(client)
    return [AccessRule(action, parsed, DevicePattern.parse(device)) for device in devices or ["all"]]


def _show(args: argparse.Namespace) -> int:
    from usbip_capture.control_socket.asking import running
    from usbip_capture.servers.configuration import configuration_path

    servers = [running_server(args)] if args.running_server else running()
    answers = [(server, server.call("access")) for server in servers]
    path = str(answers[0][1].get("configuration", "")) if len(answers) == 1 else ""
    path = path or configuration_path()
    written = _written(path)
    if args.json:
        running_now = [
            {
                "name": server.name,
                "mode": answer.get("mode"),
                "rules": answer.get("access_rules"),
                "paired": answer.get("paired_rules"),
            }
            for server, answer in answers
        ]
        shown = {"configuration": path, "mode": written.mode, "rules": [str(rule) for rule in written]}
        print(json.dumps({**shown, "servers": running_now}, indent=2))
        return DONE
    print_lines([f"{written.mode}, in {path}", *(f"  {rule}" for rule in written)])
    for server, answer in answers:
        rules = _texts(answer)
        if (answer.get("mode"), rules) == (written.mode, [str(rule) for rule in written]):
            print_lines([f"so it is for the server {server.name}"])
        else:
            print_lines([f"but the server {server.name} is {answer.get('mode')}", *(f"  {rule}" for rule in rules)])
        if paired := _texts(answer, "paired_rules"):
            print_lines(["for clients that are paired with it, also:", *(f"  {rule}" for rule in paired)])
    return DONE


def _written(path: str) -> AccessRules:
    """What the configuration has. Raises UsbipError."""
    from usbip_capture.configuration.text import read_text
    from usbip_capture.servers.server_table import parse_server_table
    from usbip_capture.serving.rules_in_force import rules_of

    return rules_of(parse_server_table(read_text(path).encode(), path))


def _change(args: argparse.Namespace, rules: list[AccessRule], mode: str, *, removing: bool) -> int:
    """Change the file, then the servers that run. Raises UsbipError."""
    from usbip_capture.configuration.access import add_rules, remove_rules, set_mode
    from usbip_capture.control_socket.asking import running
    from usbip_capture.servers.configuration import configuration_path

    done = DONE
    servers = [running_server(args)] if args.running_server else running()
    path = _path_of(servers) or configuration_path()
    if mode:
        was = "" if set_mode(path, mode) else " already"
        print_lines([f"access is{was} {mode}, in {path}"])
    else:
        changed = (remove_rules if removing else add_rules)(path, rules)
        for rule in rules:
            print_lines([f"{rule}: {_done(removing, rule in changed)} {path}"])
        if removing and len(changed) < len(set(rules)):  # who may have what by a rule that is written otherwise has it
            done = FAILED
    texts = [str(rule) for rule in rules]
    for server in servers:
        _have_followed(server, mode, [] if removing else texts, texts if removing else [], always=len(servers) == 1)
    if not servers:
        print_lines(["no server of yours is running: it holds from the next `usbip-capture serve` on"])
    return done


def _done(removing: bool, changed: bool) -> str:
    if removing:
        return "removed from" if changed else "not in"
    return "added to" if changed else "already in"


def _path_of(servers: list[Control]) -> str:
    """The configuration that the only server reads, which for a service is not the user's; empty if it is not one."""
    return str(servers[0].call("access").get("configuration", "")) if len(servers) == 1 else ""


def _have_followed(server: Control, mode: str, added: list[str], removed: list[str], *, always: bool) -> None:
    answer = server.call("change-access", mode=mode, add=added, remove=removed, always=always)
    if answer.get("changed"):
        print_lines([f"the server {server.name} is {answer.get('mode')} now, {counted(answer)}"])
    else:
        print_lines([f"the server {server.name} has rules of its own; with --server {server.name} it follows"])


def counted(answer: Message) -> str:
    """How many rules are in force."""
    number = len(_texts(answer))
    return f"with {number} rule{'s' if number > 1 else ''}" if number else "without rules"


def _texts(answer: Message, name: str = "access_rules") -> list[str]:
    found = answer.get(name)
    return [str(rule) for rule in found] if isinstance(found, list) else []
