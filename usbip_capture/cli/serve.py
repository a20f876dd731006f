"""`usbip-capture serve`: lends this machine's own USB devices to any USB/IP client."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from usbip_capture.access.limits import MAX_REQUEST_TIMEOUT, REQUEST_TIMEOUT
from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command, add_rotation
from usbip_capture.cli.limits import add_limits
from usbip_capture.cli.log_handler import queued
from usbip_capture.cli.service import add_service, run_service
from usbip_capture.cli.terminal import is_terminal, print_lines
from usbip_capture.cli.values import MAX_COUNT, capture_file, socket_path, whole
from usbip_capture.errors import CaptureError, LocalProtocolError, UsbipError
from usbip_capture.net.address import DEFAULT_PORT, format_address
from usbip_capture.system import console
from usbip_capture.system.service_notification import READY, STOPPING, notify

if TYPE_CHECKING:
    from usbip_capture.servers.server_table import ServerTable
    from usbip_capture.serving.local_server import LocalServer
    from usbip_capture.serving.restarting import Restart

log = logging.getLogger(__name__)

#: Whose log is printed.
_LOGGERS = (
    "usbip_capture.cli.serve",
    "usbip_capture.control_socket",
    "usbip_capture.devices.libusb",
    "usbip_capture.lending",
    "usbip_capture.net.listening",
    "usbip_capture.server",
    "usbip_capture.servers",
    "usbip_capture.serving",
    "usbip_capture.web",
)
#: Seconds between two looks of the live view.
_PERIOD = 1.0
#: A signal handler runs only between two waits on some systems.
_LOOK = 0.2

_ABOUT = """\
Lend this machine's own USB devices to USB/IP clients on any system: Linux's usbip, usbip-win2, usbip-capture. Without a
rule, the exports of the configuration are lent. Ctrl-C ends it, and each device is its kernel driver's again.

A device is named by its port (1-1.4), by VID:PID or by VID:PID:SERIAL; `usbip-capture local` lists them. What is
plugged in later, or comes back there as another device, is exported as well.
"""
_EXAMPLES = """\
  usbip-capture serve --device 1-1.4          then: usbip attach -r 127.0.0.1 -b 1-1.4
  usbip-capture serve --device 303a:4001 --pcap session.pcapng
  usbip-capture serve --class 03              each device with an interface of this class
  usbip-capture serve --all --listen 0.0.0.0 --allow 192.0.2.0/24
  usbip-capture serve --all --web             with a dashboard at http://127.0.0.1:8080
  usbip-capture serve --all --service install    as a service of systemd; sudo: of the machine
  usbip-capture serve --restore               bind the drivers that a server left unbound that was killed
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "serve", "lend this machine's USB devices to USB/IP clients", _ABOUT, _EXAMPLES)
    _add_rules(parser)
    _add_access(parser)
    _add_dashboard(parser)
    _add_recording(parser)
    parser.add_argument(
        "--restore",
        action="store_true",
        help="only bind the kernel drivers that a server left unbound that was killed; each start does so, too",
    )
    add_service(parser)
    parser.set_defaults(run=run, parser=parser)


def _add_rules(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what")
    group.add_argument(
        "--device", action="append", metavar="DEVICE", help="a port, VID:PID or VID:PID:SERIAL; may be repeated"
    )
    group.add_argument(
        "--class",
        dest="classes",
        action="append",
        metavar="CODE",
        help="each device with an interface of this class, such as 03; may be repeated",
    )
    group.add_argument(
        "--all",
        action="store_true",
        help="each device but hubs, disks in use, and what is attached here from elsewhere",
    )
    group.add_argument("--force", action="store_true", default=None, help="with --all and --class: disks in use, too")
    group.add_argument(
        "--max-devices", type=whole(0, MAX_COUNT), metavar="N", help="at a time; 0: no limit (default: 0)"
    )
    group.add_argument(
        "--reset",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="reset a device when a client has released it (default: on)",
    )


def _add_recording(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recording")
    group.add_argument(
        "--pcap",
        type=capture_file,
        metavar="FILE",
        help="capture all sessions into FILE, each on an interface of its own",
    )
    add_rotation(group)
    group.add_argument(
        "--audit", metavar="FILE", help="who connected, had which device or was refused: a line of JSON for each event"
    )
    group.add_argument(
        "--audit-syslog",
        metavar="TARGET",
        help="the same to a syslog: HOST[:PORT], tcp:HOST[:PORT], /dev/log or unix:PATH",
    )
    group.add_argument(
        "--hook",
        dest="hooks",
        action="append",
        metavar="EVENT=PROGRAM|URL",
        help="what is called at plug, unplug, attach, detach, refused or capture-done: a program with its arguments, "
        "without a shell, or an http(s) address; EVENT may be several, with commas; may be repeated",
    )
    parser.add_argument(
        "--live",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show who is attached, and what passes (default: on a terminal)",
    )


def _add_access(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("to whom")
    group.add_argument(
        "--listen",
        action="append",
        metavar="ADDR[:PORT]",
        help=f"where clients connect to; port 0 takes a free one; may be repeated (default: 127.0.0.1:{DEFAULT_PORT})",
    )
    _add_tls(group)
    group.add_argument(
        "--unix",
        type=socket_path,
        metavar="PATH",
        help="a Unix socket, which only you can connect to; without --listen, nowhere else",
    )
    group.add_argument(
        "--allow",
        action="append",
        metavar="NETWORK",
        help="who may connect from other machines, such as 192.0.2.0/24; may be repeated",
    )
    group.add_argument(
        "--allow-public", action="store_true", default=None, help="everybody may connect who reaches this machine"
    )
    add_limits(group)
    group.add_argument(
        "--request-timeout",
        type=whole(1, MAX_REQUEST_TIMEOUT),
        metavar="SECONDS",
        help=f"seconds for the first request of a client (default: {REQUEST_TIMEOUT})",
    )
    group.add_argument(
        "--announce",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="announce the server on the local network (default: where other machines can connect)",
    )
    group.add_argument("--name", help="what this server is called (default: as this machine)")


def _add_tls(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--tls",
        action="append",
        nargs="?",
        const="*",
        metavar="ADDR[:PORT]",
        help="where clients connect to within TLS: those that are paired, and those that rules allow (default: "
        "everywhere, port 3241); may be repeated",
    )
    group.add_argument(
        "--client-ca", metavar="FILE", help="authorities whose certificates prove with --tls who a client is, in PEM"
    )


def _add_dashboard(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("dashboard")
    group.add_argument(
        "--web",
        action="append",
        nargs="?",
        const="127.0.0.1",
        metavar="ADDR[:PORT]",
        help="pages for a browser, and interfaces for scripts: devices, clients, events, captures (default: this "
        "machine only, port 8080); may be repeated",
    )
    group.add_argument(
        "--web-tls",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="the dashboard within TLS, with the certificate of --tls",
    )
    group.add_argument(
        "--web-host",
        action="append",
        metavar="NAME",
        help="a further name by which browsers call this machine, such as pi.example.org; may be repeated",
    )
    group.add_argument("--captures", metavar="DIR", help="where captures that are begun in the dashboard are kept")
    group.add_argument(
        "--captures-size",
        type=whole(0, MAX_COUNT),
        metavar="MB",
        help="MB that these may take together; 0: no limit (default: 4000)",
    )


def run(args: argparse.Namespace) -> int:
    """Lend until stopped; the exit code. Raises UsbipError."""
    if args.restore:
        return _restore(args)
    from usbip_capture.serving.restarting import Restart

    settings(args)
    if args.service:
        return run_service(args)
    stopping = threading.Event()
    console.on_request_to_end(lambda number: _stop(number, stopping), signal.SIGINT)
    restart = Restart(lambda: settings(args), given=_given(args))
    with queued(*_LOGGERS):
        while not stopping.is_set():
            _lend(restart, stopping, is_terminal(sys.stderr) if args.live is None else args.live)
    return DONE


def _lend(restart: Restart, stopping: threading.Event, live: bool) -> None:
    """Until stopped, or to be started again. Raises UsbipError."""
    server, wanted = restart.start()
    with server:
        _report_where(server, wanted)
        notify(READY)
        _wait(server, lambda: stopping.is_set() or restart.requested, stopping, live)
        if stopping.is_set():
            notify(STOPPING)
        else:
            log.info("the server restarts, as it was asked to in the dashboard")
        try:
            server.close()
        except CaptureError as error:
            if stopping.is_set():
                raise
            log.error("%s", error)  # the devices are lent all the same
        log.info("all devices are released")


def _restore(args: argparse.Namespace) -> int:
    given = [field for field in (*_own(), "device", "classes", "all", "service") if getattr(args, field, None)]
    if given:
        raise LocalProtocolError("--restore goes alone: each start does so, too")
    from usbip_capture.lending.restore import restore

    restored = restore()
    print_lines(restored.bound)
    if restored.left:
        raise UsbipError(restored.complaint)
    if not restored.bound:
        print_lines(["no driver is left unbound"])
    return DONE


def settings(args: argparse.Namespace) -> ServerTable:
    """The options, and the configuration for those that are not given."""
    from usbip_capture.server.rules import ExportRule
    from usbip_capture.servers.server_table import read_server_table

    given: dict[str, Any] = {
        field: tuple(value) if isinstance(value, list) else value for field, value in _given(args).items()
    }
    rules = [*(args.device or ()), *(f"class:{code}" for code in args.classes or ()), *(["all"] if args.all else ())]
    table = replace(read_server_table(), **given)
    if table.rotate and not table.pcap:
        raise LocalProtocolError("-b is for files: name one with --pcap")
    if table.pcap == table.audit == "-":
        raise LocalProtocolError("--pcap and --audit cannot both be standard output: name a file for one of them")
    # None: as the configuration has them, which is followed; what of it was given by hand is kept apart.
    return replace(
        table,
        exports=tuple(str(ExportRule.parse(rule)) for rule in rules) or None,
        rules=None,
        access="",
        allow=tuple(args.allow or ()),
        allow_public=bool(args.allow_public),
    )


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The options that are called as the configuration has them, as far as there are any."""
    return {field: getattr(args, field) for field in _own() if getattr(args, field, None) not in (None, [])}


def _own() -> list[str]:
    """The options that are called as the configuration has them."""
    from usbip_capture.servers.server_table import ServerTable

    return [field.name for field in fields(ServerTable) if field.name not in ("exports", "rules", "access")]


def _stop(number: int, stopping: threading.Event) -> None:
    """The first request ends it in good order, a second Ctrl-C or SIGTERM at once."""
    if number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    stopping.set()


def _report_where(server: LocalServer, wanted: ServerTable) -> None:
    from usbip_capture.net.networks import WARNING, is_loopback
    from usbip_capture.relay.listening import attach_hint
    from usbip_capture.system.shown import shell_word

    busids = [info.busid for info in server.devices]
    for address, port in server.addresses:
        host = "ADDRESS" if address in ("0.0.0.0", "::") else address
        listing = f"usbip-capture list {shell_word(format_address(host, port))}"
        log.info("serving at %s; list with: %s; %s", format_address(address, port), listing,
                 attach_hint(address, port, busids))  # fmt: skip
    if wanted.unix:
        log.info("serving at %s", wanted.unix)
    if server.tls is not None:
        for place in server.tls.addresses:
            log.info("serving with TLS at %s; the certificate is %s", format_address(*place), server.tls.fingerprint)
    if not busids:
        log.info("nothing of what is to be exported is plugged in: %s", ", ".join(server.rules) or "no rule is set")
    if not all(is_loopback(address) for address, _ in server.addresses):
        log.warning("other machines can connect: %s", WARNING)


def _wait(server: LocalServer, ended: Callable[[], bool], stopping: threading.Event, live: bool) -> None:
    if not live:
        while not ended():
            stopping.wait(_LOOK)
        return
    from usbip_capture.cli.serving_view import ServingView

    with ServingView(server) as view:
        shown = 0.0
        while not ended():
            now = time.monotonic()
            if now - shown >= _PERIOD:
                view.show(now)
                shown = now
            stopping.wait(_LOOK)
