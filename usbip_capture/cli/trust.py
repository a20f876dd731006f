"""`usbip-capture trust`: servers whose certificates are known, for tls:// addresses."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command
from usbip_capture.cli.terminal import is_terminal, print_lines, report
from usbip_capture.errors import LocalProtocolError

if TYPE_CHECKING:
    from usbip_capture.errors import UntrustedServer

_ABOUT = """\
Trust a server's certificate, as ssh does with the keys of hosts: the fingerprint that is given, or, on a terminal, the
one that the server shows, if you confirm that it is the one that the server has printed. `usbip-capture pair` trusts a
server without comparing anything.
"""
_EXAMPLES = """\
  usbip-capture trust tls://pi                   shows the fingerprint, and asks
  usbip-capture trust tls://pi SHA256:uU8...     no question
  usbip-capture trust --list
  usbip-capture trust --remove tls://pi
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "trust", "trust the certificate of a server, for tls://", _ABOUT, _EXAMPLES)
    parser.add_argument("server", nargs="?", metavar="tls://HOST", help="the server, perhaps with a port")
    parser.add_argument("fingerprint", nargs="?", metavar="FINGERPRINT", help="of its certificate, as it prints it")
    parser.add_argument("--list", action="store_true", help="the servers that are trusted")
    parser.add_argument("--remove", action="store_true", help="trust it no more")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trust, list or remove; the exit code. Raises UsbipError."""
    from usbip_capture.tls.certificates import read_fingerprint
    from usbip_capture.tls.client import tls_address
    from usbip_capture.tls.known_servers import known_servers, remember, trust

    if args.list:
        lines = [f"{tls_address(*place)}  {known.fingerprint}{'  paired' * known.paired}"
                 for place, known in known_servers().items()]  # fmt: skip
        print_lines(lines or ["no server is trusted yet"])
        return DONE
    host, port = place_of(args.server)
    if args.remove:
        if (host.lower(), port) not in known_servers():
            raise LocalProtocolError(f"{tls_address(host, port)} is not trusted: see usbip-capture trust --list")
        remember(host, port, None)
        print_lines([f"{tls_address(host, port)} is not trusted any more"])
        return DONE
    if args.fingerprint is None:
        return _ask_server(host, port)
    fingerprint = read_fingerprint(args.fingerprint)
    trust(host, port, fingerprint)
    print_lines([f"{tls_address(host, port)} is trusted, with {fingerprint}"])
    return DONE


def place_of(text: str | None) -> tuple[str, int]:
    """Host and port of a tls:// address. Raises LocalProtocolError."""
    from usbip_capture.net.address import TLS, parse_place, split_place

    if not text:
        raise LocalProtocolError("name the server, such as tls://pi")
    place, port = parse_place(text if "://" in text else f"{TLS}://{text}")
    scheme, _, host, _ = split_place(place)
    if scheme != TLS:
        raise LocalProtocolError(f"{text!r} is not a server with TLS: write tls://HOST")
    return host, port


def _ask_server(host: str, port: int) -> int:
    """Whoever runs the command asks the person about a new server. Raises UntrustedServer."""
    from usbip_capture.tls.client import connect_tls, tls_address

    connect_tls(host, port).close()
    print_lines([f"{tls_address(host, port)} is trusted"])
    return DONE


def asked(error: UntrustedServer) -> bool:
    """Whether a person at a terminal trusts this server, which is remembered then. A changed one is not asked about."""
    from usbip_capture.tls.client import tls_address
    from usbip_capture.tls.known_servers import trust

    if error.known or not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        return False
    report(f"{tls_address(error.host, error.port)} is not known yet. Its certificate is")
    report(error.fingerprint)
    sys.stderr.write("Is that what the server has printed? (yes/no) ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() != "yes":
        return False
    trust(error.host, error.port, error.fingerprint)
    return True
