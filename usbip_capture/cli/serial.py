"""`usbip-capture serial`: a terminal on a serial device, or the device for programs that know no URLs."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from usbip_capture.cli.groups import HelpFormatter, add_device, add_offer, add_recording, add_server
from usbip_capture.cli.session import chosen_device, chosen_server
from usbip_capture.cli.terminal import report
from usbip_capture.cli.values import number8, seconds, whole
from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.net.address import parse_address
from usbip_capture.uart.settings import MAX_BAUDRATE

if TYPE_CHECKING:
    from serial import Serial

_EXAMPLES = """\
examples:
  usbip-capture serial pi                            a terminal on the only serial device of `pi`; Ctrl-] ends it
  usbip-capture serial pi 1-1.2 --baud 921600 --pcap session.pcapng
  usbip-capture serial pi --serial-number 123456 --reconnect 10
                                                     goes on when the board resets
  usbip-capture serial pi 1-1.2 --pty /tmp/ttyUSB9   for avrdude, stcgal, screen, ...
  usbip-capture serial pi 1-1.2 --tcp 4000           for telnet, nc, socket://127.0.0.1:4000
  usbip-capture serial pi 1-1.2 --rfc2217 4000       for rfc2217://127.0.0.1:4000, settings and modem lines included

Programs of pyserial need none of this: give them the port usbip://pi/1-1.2
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The subcommand's options."""
    parser = commands.add_parser(
        "serial",
        help="a terminal on a serial device, or its pseudo-terminal or TCP port",
        epilog=_EXAMPLES,
        formatter_class=HelpFormatter,
    )
    add_server(parser)
    add_device(parser)
    which = parser.add_argument_group("which port")
    which.add_argument("--instance", type=number8, metavar="N", help="which of several devices that fit, from 0")
    which.add_argument("--interface", type=number8, metavar="N", help="which port of the device, by interface number")
    line = parser.add_argument_group("line")
    line.add_argument(
        "--baud",
        type=whole(1, MAX_BAUDRATE),
        default=115200,
        metavar="N",
        help="bits per second (default: %(default)s)",
    )
    line.add_argument("--parity", choices=("N", "E", "O", "S", "M"), default="N", help="default: %(default)s")
    line.add_argument("--rtscts", action="store_true", help="flow control by RTS and CTS")
    line.add_argument("--xonxoff", action="store_true", help="flow control by XON and XOFF")
    line.add_argument("--dtr", choices=("0", "1"), help="DTR at the beginning (default: 1)")
    line.add_argument("--rts", choices=("0", "1"), help="RTS at the beginning (default: 1)")
    parser.add_argument(
        "--reconnect", type=seconds, metavar="SECONDS", help="how long to wait for a device that is lost, to go on"
    )
    add_recording(parser, log_goes="into the capture")
    add_offer(parser)
    terminal = parser.add_argument_group("terminal")
    terminal.add_argument("--eol", choices=("CR", "LF", "CRLF"), default="CRLF", help="default: %(default)s")
    terminal.add_argument("--echo", action="store_true", help="show what is typed")
    terminal.add_argument("--raw", action="store_true", help="show what comes as it is")
    instead = parser.add_argument_group("instead of a terminal").add_mutually_exclusive_group()
    instead.add_argument("--pty", nargs="?", const="", metavar="LINK", help="a pseudo-terminal, and a link to it")
    instead.add_argument("--tcp", metavar="[ADDR:]PORT", help="a TCP port; ADDR is 127.0.0.1 if not given")
    instead.add_argument("--rfc2217", metavar="[ADDR:]PORT", help="a TCP port with settings and modem lines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until stopped; the exit code. Raises UsbipError."""
    try:
        import serial
    except ImportError as error:
        raise UsbipError(
            "pyserial is missing: pip install pyserial; or, where pipx has installed this, "
            "pipx inject usbip-capture pyserial"
        ) from error
    from usbip_capture.serial_port.url import PortUrl
    from usbip_capture.urlhandler.registration import register

    register(serial)
    url = _url(args)
    PortUrl.parse(url)
    try:
        if args.pty is None and args.tcp is None and args.rfc2217 is None:
            return _terminal(args, url)
        port = serial.serial_for_url(
            url, args.baud, parity=args.parity, rtscts=args.rtscts, xonxoff=args.xonxoff, do_not_open=True
        )
        for name in ("dtr", "rts"):
            if getattr(args, name) is not None:
                setattr(port, name, getattr(args, name) == "1")
        with port:
            _bridge(args, port)
    except serial.SerialException as error:
        if isinstance(error.__cause__, UsbipError):  # ours, with an exit code of its own
            raise error.__cause__ from error
        raise UsbipError(str(error)) from error
    return 0


def _url(args: argparse.Namespace) -> str:
    from usbip_capture.serial_port.url import url_of

    server, selector = chosen_server(args), chosen_device(args)
    given = {
        "serial": selector.serial or None,
        "instance": args.instance,
        "interface": args.interface,
        "pcap": args.pcap,
        "syslog": args.syslog_port if args.syslog else None,
        "reconnect": args.reconnect,
        "offer": 1 if args.offer else None,
        "hindsight": args.hindsight or None,
        "connect_timeout": server.timeout,
    }
    query = "&".join(f"{name}={quote(str(value))}" for name, value in given.items() if value is not None)
    where, way = url_of(server)
    return f"usbip://{where}/{quote(str(replace(selector, serial='')), safe=':')}?{'&'.join([*way, query])}"


def _terminal(args: argparse.Namespace, url: str) -> int:
    """pyserial's miniterm, which reads its arguments from sys.argv."""
    if not sys.stdin.isatty():
        raise LocalProtocolError("standard input must be a terminal: for programs, use --pty, --tcp or --rfc2217")
    if args.pcap == "-":
        raise LocalProtocolError("the terminal and --pcap - both want standard output: name a file with --pcap")
    from serial.tools import miniterm

    flags = [f"--{name}" for name in ("rtscts", "xonxoff", "echo", "raw") if getattr(args, name)]
    lines = [f"--{name}={getattr(args, name)}" for name in ("dtr", "rts") if getattr(args, name) is not None]
    before = sys.argv
    sys.argv = ["usbip-capture serial", url, str(args.baud), f"--parity={args.parity}", f"--eol={args.eol}"]
    sys.argv += flags + lines
    try:
        miniterm.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv = before
    return 0


def _bridge(args: argparse.Namespace, port: Serial) -> None:
    if args.pty is not None:
        from usbip_capture.serial_port.bridge import pseudo_terminal

        pseudo_terminal.serve(port, args.pty, _announce)
        return
    from usbip_capture.serial_port.bridge import tcp

    text = args.tcp if args.tcp is not None else args.rfc2217
    address, number = parse_address(f"127.0.0.1:{text}" if text.isdigit() else text, 0)
    if not number and not text.endswith("0"):
        raise LocalProtocolError(f"{text!r} does not name a TCP port: write PORT or ADDR:PORT")
    connect = tcp.RawConnection if args.tcp is not None else tcp.Rfc2217Connection
    tcp.serve(port, address, number, connect, _announce)


def _announce(where: str) -> None:
    report(f"the serial port is at {where}, until Ctrl-C")
