"""`usbip-capture relay`: stands between any USB/IP client and a server, and captures what they send."""

from __future__ import annotations

import argparse
import logging
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from usbip_capture.access.limits import Limits
from usbip_capture.cli.groups import add_command, add_hindsight, add_listen, add_output, add_server
from usbip_capture.cli.limits import add_limits, given_limits
from usbip_capture.cli.log_handler import queued
from usbip_capture.cli.session import chosen_server
from usbip_capture.errors import CaptureError, UsbipError
from usbip_capture.net.address import parse_address
from usbip_capture.system import console

if TYPE_CHECKING:
    from usbip_capture.capture.writer import PcapWriter
    from usbip_capture.relay.service import RelayService

#: The logger that reports clients.
_LOGGER = "usbip_capture.relay"

_ABOUT = """\
Stand between any USB/IP client and a server, and see what they send to each other. What is relayed can also be captured
from Wireshark: it is listed there as "USB/IP relay: ...". Stopping a capture disconnects nobody; ending the relay does.
"""
_EXAMPLES = """\
  usbip-capture relay pi -o session.pcapng    then: usbip attach -r 127.0.0.1 -b 1-1
  usbip-capture relay pi -o - | tshark -r -
  usbip-capture relay pi --wireshark          look at it in Wireshark, as often as you like
  usbip-capture relay pi --listen 0.0.0.0:3240 --allow 192.0.2.0/24
  usbip-capture relay --stop                  end all relays of yours
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "relay", "see what any USB/IP client sends to a server", _ABOUT, _EXAMPLES)
    add_server(parser)
    add_listen(parser)
    parser.add_argument(
        "--allow",
        metavar="CLIENT",
        action="append",
        help="who may connect from other machines, such as 192.0.2.0/24, or have one device only: '192.0.2.7 1-1.4'; "
        "may be repeated",
    )
    parser.add_argument(
        "--deny",
        metavar="CLIENT",
        action="append",
        help="the other way round, also for who is allowed by --allow; may be repeated",
    )
    add_limits(parser, 256)
    add_output(parser, "capture into FILE; - is standard output")
    parser.add_argument(
        "--record-unlinks", action="store_true", help="with -o: also CMD_UNLINK and RET_UNLINK, on unlink0 and so on"
    )
    add_hindsight(parser, "what goes through")
    parser.add_argument("--wireshark", action="store_true", help="open Wireshark, capturing")
    parser.add_argument("--stop", action="store_true", help="end the relay at --listen, or all of yours")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Relay until stopped; the exit code. Raises UsbipError."""
    if args.stop:
        if (
            args.server
            or args.output
            or args.wireshark
            or args.allow
            or args.deny
            or args.hindsight
            or given_limits(args)
        ):
            args.parser.error("--stop goes with --listen only")
        with queued(_LOGGER):
            return _stop(args.listen)
    if not args.server:
        args.parser.error("name the server that has the devices, or --stop")
    if args.record_unlinks and not args.output:
        args.parser.error("--record-unlinks goes with -o; in Wireshark it is an option of the capture")
    with queued(_LOGGER):
        return _relay(args)


def _relay(args: argparse.Namespace) -> int:
    from usbip_capture.capture.span import Span
    from usbip_capture.net.networks import WARNING, is_loopback, listen_address
    from usbip_capture.relay.background import make_responsive
    from usbip_capture.relay.ruling import relay_rules
    from usbip_capture.relay.service import LIST_TIMEOUT, RelayService

    make_responsive()
    address, port = listen_address(args.listen or "")
    rules, limits = relay_rules(args.allow or (), args.deny or ()), Limits(**given_limits(args))
    keeps = Span.parse(args.hindsight) if args.hindsight else None
    service = RelayService(chosen_server(args), address, port, rules=rules, limits=limits, keeps=keeps)
    relay = service.relay

    def ready() -> None:
        _log(f"relaying {relay.listening} to {relay.server}; {relay.hint}")
        if not is_loopback(relay.address):
            _log(f"other machines can connect: {WARNING}")

    try:
        service.listed.wait(LIST_TIMEOUT)
        _stop_on_signals(service)
        if args.wireshark:
            _open_wireshark(service.channel.name)
        _capture(service, args.output, ready, record_unlinks=args.record_unlinks)
    finally:
        service.close()
    return 0


def _capture(service: RelayService, output: str | None, ready: Callable[[], None], *, record_unlinks: bool) -> None:
    """Until the relay is stopped. A capture that ends before ends alone, while anybody is attached.

    ready: called when clients may come. Raises CaptureError, at the end, if the capture has failed.
    """
    if output is None:
        ready()
        service.wait_stopped()
        return
    from usbip_capture.capture.writer import PcapWriter

    ended = threading.Event()
    with PcapWriter(output, record_unlinks=record_unlinks, on_end=lambda reason: ended.set()) as writer:
        capture = service.begin(writer)
        ready()
        while not service.stopped and not ended.is_set():
            ended.wait(0.2)
        service.end(capture)
        error = _closed(writer, output)
    if ended.is_set():
        _log(f"{error or 'nobody reads the capture any more'}; the relay ends when nobody is attached, or with Ctrl-C")
        service.wait_unused()
    if error is not None:
        raise error


def _closed(writer: PcapWriter, output: str) -> CaptureError | None:
    try:
        writer.close()
    except CaptureError as error:
        return error
    notes = f" (and {writer.notes} with notes only)" if writer.notes else ""
    where = "standard output" if output == "-" else output
    _log(f"{writer.written} packets{notes}, {writer.dropped} dropped, in {where}")
    return None


def _stop_on_signals(service: RelayService) -> None:
    """The first one ends the relay in good order, a second Ctrl-C or SIGTERM at once."""

    def stop(number: int) -> None:
        if number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        service.stop()

    console.on_request_to_end(stop, signal.SIGINT)


def _stop(listen: str | None) -> int:
    from usbip_capture.live import joining, registry
    from usbip_capture.net.networks import listen_address

    at = None if listen is None else listen_address(listen)
    entries = [
        entry for entry in registry.running() if entry.listen and (at is None or parse_address(entry.listen) == at)
    ]
    if not entries:
        where = f" at {listen}" if listen else ""
        raise UsbipError(f"no relay of yours runs{where}: nothing to stop")
    failed: UsbipError | None = None
    for entry in entries:
        try:
            joining.stop(entry)
            _log(f"stopped: {entry.display}")
        except UsbipError as error:  # the others are to be stopped all the same
            if failed is not None:
                _log(str(failed))
            failed = error
    if failed is not None:
        raise failed
    return 0


def _open_wireshark(interface: str) -> None:
    from usbip_capture.installation import start

    start.start([*start.find(), "-k", "-i", interface])


def _log(text: str) -> None:
    """Between the lines of the log, in the order in which they came."""
    logging.getLogger(_LOGGER).info("%s", text)
