"""`usbip-capture tunnel`: a server behind TLS or ssh, at a port of this machine, for any USB/IP client."""

from __future__ import annotations

import argparse
import logging
import threading
from dataclasses import replace

from usbip_capture.access.limits import Limits
from usbip_capture.cli.exits import DONE, FAILED
from usbip_capture.cli.groups import add_command, add_listen, add_server
from usbip_capture.cli.limits import add_limits, given_limits
from usbip_capture.cli.log_handler import queued
from usbip_capture.cli.session import chosen_server
from usbip_capture.net.address import DEFAULT_PORT
from usbip_capture.system.shown import one_line

_LOGGER = "usbip_capture.tunnel"

_ABOUT = """\
Make a server that only TLS or ssh reaches available at a port of this machine, for clients that know neither: Linux's
`usbip`, usbip-win2. Each of their connections becomes one to the server.
"""
_EXAMPLES = """\
  usbip-capture tunnel tls://pi               then: sudo usbip attach -r 127.0.0.1 -b 1-1
  usbip-capture tunnel ssh://me@pi --listen 127.0.0.1:3241
  usbip-capture tunnel tls://pi --listen 0.0.0.0:3240 --allow 192.0.2.0/24
  usbip-capture tunnel tls://pi --stdio       for inetd, systemd and socat
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "tunnel", "a server behind TLS or ssh, for any USB/IP client", _ABOUT, _EXAMPLES)
    add_server(parser)
    add_listen(parser)
    parser.add_argument(
        "--allow",
        metavar="CIDR",
        action="append",
        help="who may connect from other machines, such as 192.0.2.0/24; may be repeated",
    )
    parser.add_argument(
        "--stdio", action="store_true", help="one connection, through standard input and output, instead of --listen"
    )
    add_limits(parser, 128)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Forward until stopped; the exit code. Raises UsbipError."""
    if args.stdio and (args.listen or args.allow or given_limits(args)):
        args.parser.error("--stdio has one connection, and neither --listen nor --allow nor limits")
    return _through_standard_streams(args) if args.stdio else _listen(args)


def _listen(args: argparse.Namespace) -> int:
    from usbip_capture.net.networks import WARNING, is_loopback, listen_address, parse_networks
    from usbip_capture.tunnel.service import MAX_CLIENTS, Tunnel

    log = logging.getLogger(_LOGGER)
    address, port = listen_address(args.listen or "")
    server = chosen_server(args)
    with queued(_LOGGER):
        allow = parse_networks(",".join(args.allow or ()))
        limits = replace(Limits(max_clients=MAX_CLIENTS), **given_limits(args))
        tunnel = Tunnel(server, address, port, allow=allow, limits=limits)
        try:
            server.devices()  # what is wrong, or asked, is better known now than with the first client
            option = "" if tunnel.port == DEFAULT_PORT else f"--tcp-port {tunnel.port} "
            log.info("%s is %s now; attach with: usbip %sattach -r %s -b BUSID", tunnel.listening, server, option,
                     tunnel.address)  # fmt: skip
            if not is_loopback(tunnel.address):
                log.info("other machines can connect: %s", WARNING)
            threading.Event().wait()
        finally:
            tunnel.close()
    return DONE


def _through_standard_streams(args: argparse.Namespace) -> int:
    from usbip_capture.cli.terminal import report
    from usbip_capture.tunnel.forwarding import Forwarding
    from usbip_capture.tunnel.streams import standard_streams

    reasons: list[OSError] = []
    server = chosen_server(args).open_transport()
    streams = standard_streams()
    forwarding = Forwarding(streams, server, reasons.append)
    forwarding.run()
    for reason in reasons:
        report(f"{server.peer}: {one_line(str(reason.strerror or reason))}")
    return FAILED if reasons else DONE
