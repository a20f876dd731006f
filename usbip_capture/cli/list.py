"""`usbip-capture list`: what servers export, as a list, with all descriptors, or as a tree."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import TypeAlias

from usbip_capture.cli import exits, listing
from usbip_capture.cli.groups import add_command, add_json, add_old_name, add_recording, add_servers
from usbip_capture.cli.session import chosen_servers, recording
from usbip_capture.cli.terminal import Waiting, print_lines, report
from usbip_capture.cli.values import wait
from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.net.address import SSH
from usbip_capture.servers.address import ServerAddress

_EXAMPLES = """\
  usbip-capture list pi                  what the server `pi` exports
  usbip-capture list pi 192.0.2.10:3241 bench
  usbip-capture list                     of all servers that are configured, were used or announce themselves
  usbip-capture list demo -t             as a tree of buses and ports
  usbip-capture list demo -v             with all descriptors, as lsusb prints them
  usbip-capture list pi --json | jq -r '.[].devices[].busid'

Names are those that devices gave themselves when they were last read, else those of the list of USB ids. Only -v
imports the devices, one after the other, which resets them on many servers; what is in use elsewhere is left alone.
"""
_AT_ONCE = 16
Answers: TypeAlias = "SimpleQueue[listing.Listed | BaseException]"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "list",
        "the devices of servers; -v: with all descriptors, -t: as a tree",
        "List the devices that USB/IP servers export.",
        _EXAMPLES,
    )
    add_servers(parser)
    add_old_name(parser, "--timeout", "--connect-timeout", wait)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-v", "--verbose", action="store_true", help="import each device, and print its descriptors")
    how.add_argument("-t", "--tree", action="store_true", help="a tree of buses, ports and interfaces")
    add_json(parser)
    add_recording(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List all; the exit code: that of the first server that failed. Raises UsbipError."""
    if args.pcap and not args.verbose:
        raise LocalProtocolError("--pcap captures how -v reads the devices: add -v")
    servers = chosen_servers(args)
    found: list[listing.Listed] = []
    with recording(args, servers) as writer:
        for listed in answers(args, servers):
            if args.verbose:
                listing.describe(listed, writer)
            found.append(listed)
            if not args.json:
                _print(listed, args)
    if args.json:
        import json

        print(json.dumps([listing.as_json(listed) for listed in found], indent=2))
    failed = [listed.error for listed in found if listed.error is not None]
    if failed:
        return exits.exit_code(failed[0])
    if not found:
        report("no server is configured or has announced itself: name one, as in `usbip-capture list pi`")
    return exits.DONE if any(listed.devices for listed in found) else exits.FAILED


def _print(listed: listing.Listed, args: argparse.Namespace) -> None:
    if listed.error is not None:
        report(str(listed.error))
        return
    print_lines(listing.lines(listed, tree=args.tree, verbose=args.verbose))
    for error in listed.problems:
        report(str(error))
    if not listed.devices:
        report(listed.server.empty)


class _Asking:
    """Asks servers, at most _AT_ONCE at a time; each answer goes to a queue of the asker's.

    Its threads are daemons: a server that hangs does not hold up the end of the program.
    """

    def __init__(self) -> None:
        self._room = threading.Semaphore(_AT_ONCE)

    def ask(self, server: ServerAddress, answers: Answers) -> None:
        """Begin; the answer comes, whatever happens."""
        threading.Thread(target=self._run, args=(server, answers), name="usbip-list", daemon=True).start()

    def _run(self, server: ServerAddress, answers: Answers) -> None:
        with self._room:
            try:
                answers.put(_ask(server))
            except BaseException as error:  # noqa: BLE001  a fault of ours: the one that waits raises it
                answers.put(error)


def _answer(answer: listing.Listed | BaseException) -> listing.Listed:
    if isinstance(answer, BaseException):
        raise answer
    return answer


def answers(args: argparse.Namespace, servers: list[ServerAddress]) -> Iterator[listing.Listed]:
    """All servers are asked at once: those that were named in their order, others as they answer."""
    asking = _Asking()
    if not servers:
        yield from _found(args, asking)
        return
    queues: list[Answers] = [SimpleQueue() for _ in servers]
    for server, queue in zip(servers, queues, strict=True):
        asking.ask(server, queue)
    for queue in queues:
        yield _answer(queue.get())


class _Search:
    """Servers that are asked as they are found, each once."""

    def __init__(self, asking: _Asking, timeout: float) -> None:
        self.answers: Answers = SimpleQueue()
        #: Those that were used before: whether they are still there is not known.
        self.used: set[tuple[str, int]] = set()
        self._asking = asking
        self._timeout = timeout
        self._lock = threading.Lock()
        self._asked: set[tuple[str, int]] = set()

    def ask(self, host: str, port: int) -> None:
        """Ask a server, unless it was."""
        with self._lock:
            if (host, port) in self._asked:
                return
            self._asked.add((host, port))
        self._asking.ask(ServerAddress.at(host, port, self._timeout), self.answers)

    def ask_known(self) -> None:
        """Ask those that are configured or were used; those that announce themselves do it again."""
        from usbip_capture.servers.known import known_servers

        for known in known_servers():
            if known.source == "mdns":
                continue
            if known.host.startswith(f"{SSH}://"):
                from usbip_capture.net.ssh import never_ask

                never_ask()
            if known.source == "used":
                self.used.add((known.host, known.port))
            self.ask(known.host, known.port)

    @property
    def count(self) -> int:
        """How many were asked."""
        return len(self._asked)


def _found(args: argparse.Namespace, asking: _Asking) -> Iterator[listing.Listed]:
    """What is configured or was used before, and what announces itself while it is looked for, as they answer."""
    from usbip_capture.servers import memory
    from usbip_capture.servers.mdns import DiscoveredServer, browsing

    search = _Search(asking, args.connect_timeout)

    def on_found(server: DiscoveredServer) -> None:
        search.ask(*server.places[0])
        for place in server.places:
            memory.remember_server(*place, server.name, "mdns")

    search.ask_known()
    silent: list[str] = []
    answered = 0
    deadline = time.monotonic() + args.mdns_timeout
    with Waiting("looking for servers") as waiting, browsing(on_found):
        while (left := deadline - time.monotonic()) > 0 or answered < search.count:
            try:
                listed = _answer(search.answers.get(timeout=max(left, 0.05)))
            except Empty:
                continue
            answered += 1
            if listed.error is not None and listed.server.place in search.used:
                silent.append(str(listed.server))
                continue
            waiting.clear()
            yield listed
            waiting.show()
    if silent:
        report(f"used before, and not there now: {', '.join(silent)}")


def _ask(server: ServerAddress) -> listing.Listed:
    try:
        listed = listing.Listed(server, server.devices())
    except UsbipError as error:
        return listing.Listed(server, [], error)
    listing.name_devices(listed)
    return listed
