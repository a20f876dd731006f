"""`usbip-capture fleet`: all servers and their devices at once, what is missing, and what devices have done."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from usbip_capture.cli import exits
from usbip_capture.cli.groups import add_command, add_json, add_servers
from usbip_capture.cli.terminal import Waiting, is_terminal, print_lines, report
from usbip_capture.errors import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usbip_capture.cli.fleet_view import Picture
    from usbip_capture.cli.standing import LiveLines
    from usbip_capture.fleet.answers import FleetAnswer
    from usbip_capture.fleet.members import Member
    from usbip_capture.fleet.memory import FleetMemory, Missing

_STATS = "stats"
_ABOUT = """\
Show all servers and their devices at once. Servers of this project are asked by their dashboard, as far as that and a
token are configured: versions, clients, throughput and errors too. What was there the last time, and is not now, is
missing.
"""
_EXAMPLES = """\
  usbip-capture fleet                        all servers that are configured
  usbip-capture fleet pi bench tls://lab     these servers
  usbip-capture fleet --discover             also those that announce themselves
  usbip-capture fleet --labgrid              also what labgrid's places have
  usbip-capture fleet --tree
  usbip-capture fleet --watch                again and again, until Ctrl-C
  usbip-capture fleet --accept               what is missing is not expected any more
  usbip-capture fleet stats                  what devices have done, from /metrics
  usbip-capture fleet --json | jq -r '.servers[] | select(.error) | .name'

A server that is called stats is named by --host. Exit codes: 3 if a server does not answer, else 4 if something is
missing for certain.
"""
#: Seconds from one look to the next, and between two writings of what there was, if nothing has changed.
_PERIOD, _WRITING = 2.0, 60.0
#: Seconds that a coordinator may take at least.
_COORDINATOR = 5.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    about = "all servers and their devices at once; what is missing; stats: figures"
    parser = add_command(commands, "fleet", about, _ABOUT, _EXAMPLES)
    add_servers(parser, "all that are configured", "with --discover")
    parser.add_argument("--discover", action="store_true", help="also all that announce themselves on the network")
    parser.add_argument(
        "--labgrid", action="store_true", help="also the servers of labgrid's places, as its coordinator has them"
    )
    parser.add_argument("-t", "--tree", action="store_true", help="as a tree of buses and ports")
    parser.add_argument("--watch", action="store_true", help="look again and again, until Ctrl-C")
    parser.add_argument("--accept", action="store_true", help="what is missing now is not expected any more")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show them; the exit code. Raises UsbipError."""
    figures = args.servers[:1] == [_STATS]
    words = [*args.servers[figures:], *([args.host] if args.host else [])]
    if figures and (args.tree or args.watch or args.accept):
        raise LocalProtocolError("fleet stats shows figures once: it takes neither --tree, --watch nor --accept")
    if args.json and args.tree:
        raise LocalProtocolError("use either --json or --tree")
    members, announced = _members(args, words)
    if not members:
        if not args.labgrid:
            report("no server is configured: name one, as in `usbip-capture fleet pi`, or look for them by --discover")
        return exits.DONE if args.labgrid else exits.FAILED
    if figures:
        from usbip_capture.cli.fleet_stats import stats

        return stats(members, as_json=args.json)
    return (_watch if args.watch else _once)(args, _Look(args, members, announced))


def _members(args: argparse.Namespace, words: list[str]) -> tuple[list[Member], set[str] | None]:
    """The servers, and the keys of those that announce themselves, if that was asked for."""
    from usbip_capture.fleet import members as fleet

    directory = fleet.Directory()
    found = [directory.member(word, args.port, args.connect_timeout) for word in words]
    if not words:
        found = directory.members(args.connect_timeout)
    announced = None
    if args.discover:
        with Waiting("looking for servers"):
            others = fleet.announced_members(args.mdns_timeout, args.connect_timeout)
        announced = {member.key for member in others}
        found += others
    if args.labgrid:
        found += _lab_members(args)
    found = fleet.together(found)
    fleet.never_asks(found)
    return found, announced


def _lab_members(args: argparse.Namespace) -> list[Member]:
    """Raises UsbipError."""
    from usbip_capture.coordinator.asking import asked
    from usbip_capture.fleet.lab_members import lab_members
    from usbip_capture.servers.configuration import required_coordinator

    where = required_coordinator()
    with Waiting("asking labgrid's coordinator"):
        lab = asked(where, max(args.connect_timeout, _COORDINATOR))
    members, idle = lab_members(lab, args.connect_timeout)
    if idle:
        report(f"{idle} of labgrid's devices {'is' if idle == 1 else 'are'} lent to nobody now")
    return members


def _once(args: argparse.Namespace, look: _Look) -> int:
    from usbip_capture.cli.fleet_view import as_json

    with Waiting("asking all servers"):
        picture = look.taken()
    look.written()
    if args.json:
        print(json.dumps(as_json(picture), indent=2))
    else:
        _print(picture, args)
    return _exit_code(picture)


def _watch(args: argparse.Namespace, look: _Look) -> int:
    """A terminal has the servers of which something is wrong first, for its room is bounded; the exit code."""
    from usbip_capture.cli.standing import LiveLines

    view = LiveLines() if is_terminal(sys.stdout) and is_terminal(sys.stderr) and not args.json else None
    try:
        with view or nullcontext():
            while True:
                due = time.monotonic() + _PERIOD
                _show(look.taken(), args, view)
                look.written()
                time.sleep(max(due - time.monotonic(), 0.0))
    except KeyboardInterrupt:
        pass
    look.written(whole=True)
    return exits.DONE


def _show(picture: Picture, args: argparse.Namespace, view: LiveLines | None) -> None:
    from usbip_capture.cli.fleet_view import as_json, lines, summary
    from usbip_capture.system.shown import one_line

    if args.json:
        print(json.dumps(as_json(picture)), flush=True)
    elif view is None:
        _print(picture, args)
        print(flush=True)
    else:
        shown = [one_line(line) for line in lines(picture.worst_first(), tree=args.tree)[:-1]]
        view.put(summary(picture), "Ctrl-C stops", shown[0], shown[1:])


def _print(picture: Picture, args: argparse.Namespace) -> None:
    from usbip_capture.cli.fleet_view import lines

    print_lines(lines(picture, tree=args.tree))


class _Look:
    """Asks the fleet, and compares with what there was before. announced: as `FleetMemory.compare` has it."""

    def __init__(self, args: argparse.Namespace, members: list[Member], announced: set[str] | None) -> None:
        from usbip_capture.fleet.memory import read_memory

        self._args = args
        self._members = members
        self._announced = announced
        self._memory: FleetMemory = read_memory()
        self._asked: Sequence[FleetAnswer] = ()
        self._forgotten: list[str] = []
        self._before: object = None
        self._due = 0.0

    def taken(self) -> Picture:
        """A picture of now."""
        from usbip_capture.cli.fleet_view import Picture
        from usbip_capture.fleet.asking import ask_all

        self._asked = ask_all(self._members)
        now, before = int(time.time()), dict(self._memory.servers)
        missing = self._memory.compare(self._asked, now, self._announced)
        if self._args.accept:
            self._accept(missing)
            missing = type(missing)()
        return Picture(self._asked, missing, before, now)

    def written(self, *, whole: bool = False) -> None:
        """Have it remembered, if it has changed, or for a while not been written."""
        from usbip_capture.fleet.memory import write_memory

        there = {
            answer.member.key: {device.identity for device in answer.devices}
            for answer in self._asked
            if answer.error is None
        }
        if whole or there != self._before or time.monotonic() >= self._due:
            self._before, self._due = there, time.monotonic() + _WRITING
            write_memory(self._memory, there, self._forgotten)

    def _accept(self, missing: Missing) -> None:
        known = set(self._memory.servers)
        self._memory.accept(missing)
        self._forgotten += known - set(self._memory.servers)


def _exit_code(picture: Picture) -> int:
    failed = [answer.error for answer in picture.answers if answer.error is not None]
    if failed:
        return exits.exit_code(failed[0])
    return exits.DEVICE if picture.certain else exits.DONE
