"""`usbip-capture serial`: a terminal on a serial device, or the device for programs that know no URLs."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote

from usbip_capture.address import parse_address
from usbip_capture.cli.groups import HelpFormatter
from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.uart.settings import MAX_BAUDRATE

if TYPE_CHECKING:
    from serial import Serial

_EXAMPLES = """\
examples:
  usbip-capture serial pi                            a terminal on the only serial device of `pi`; Ctrl-] ends it
  usbip-capture serial pi 1-1.2 --baud 921600 --pcap session.pcapng
  usbip-capture serial pi 303a:1001 --reconnect 10   goes on when the board resets
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
    parser.add_argument("host", metavar="HOST", help="the USB/IP server: HOST, HOST:PORT or [IPv6]:PORT; or demo")
    parser.add_argument("device", metavar="DEVICE", nargs="?", default="", help="a busid or VID:PID; or the only one")
    which = parser.add_argument_group("which port")
    which.add_argument("--serial-number", metavar="TEXT", help="of the device that is meant")
    which.add_argument("--instance", metavar="N", help="which of several devices that fit, from 0")
    which.add_argument("--interface", metavar="N", help="which port of the device, by its interface number")
    line = parser.add_argument_group("line")
    line.add_argument("--baud", type=_speed, default=115200, metavar="N", help="bits per second (default: %(default)s)")
    line.add_argument("--parity", choices=("N", "E", "O", "S", "M"), default="N", help="default: %(default)s")
    line.add_argument("--rtscts", action="store_true", help="flow control by RTS and CTS")
    line.add_argument("--xonxoff", action="store_true", help="flow control by XON and XOFF")
    line.add_argument("--dtr", choices=("0", "1"), help="DTR at the beginning (default: 1)")
    line.add_argument("--rts", choices=("0", "1"), help="RTS at the beginning (default: 1)")
    parser.add_argument("--pcap", metavar="FILE", help="capture all transfers into FILE")
    parser.add_argument("--syslog", action="store_true", help="capture the device's log as well")
    parser.add_argument("--reconnect", metavar="SECONDS", help="wait so long for a device that is lost, and go on")
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
        raise UsbipError("pyserial is missing: pip install 'usbip-capture[serial]'") from error
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
    given = {
        "serial": args.serial_number,
        "instance": args.instance,
        "interface": args.interface,
        "pcap": args.pcap,
        "syslog": "1" if args.syslog else None,
        "reconnect": args.reconnect,
    }
    query = "&".join(f"{name}={quote(value)}" for name, value in given.items() if value is not None)
    host = f"[{args.host}]" if args.host.count(":") > 1 and not args.host.startswith("[") else args.host
    where = f"{quote(host, safe=':[]')}/{quote(args.device, safe=':')}"
    return f"usbip://{where}{'?' + query if query else ''}"


def _speed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= MAX_BAUDRATE):
        raise argparse.ArgumentTypeError(f"{text!r} is no speed: give a number of bits per second")
    return int(text)


def _terminal(args: argparse.Namespace, url: str) -> int:
    """pyserial's miniterm, which reads its arguments from sys.argv."""
    if not sys.stdin.isatty():
        raise LocalProtocolError("a terminal needs a terminal: use --pty, --tcp or --rfc2217 for programs")
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
        from usbip_capture.serial_bridge import pseudo_terminal

        pseudo_terminal.serve(port, args.pty, _announce)
        return
    from usbip_capture.serial_bridge import tcp

    text = args.tcp if args.tcp is not None else args.rfc2217
    address, number = parse_address(f"127.0.0.1:{text}" if text.isdigit() else text, 0)
    if not number and not text.endswith("0"):
        raise LocalProtocolError(f"{text!r} names no TCP port: write PORT or ADDR:PORT")
    connect = tcp.RawConnection if args.tcp is not None else tcp.Rfc2217Connection
    tcp.serve(port, address, number, connect, _announce)


def _announce(where: str) -> None:
    print(f"usbip-capture: the serial port is at {where}, until Ctrl-C", file=sys.stderr, flush=True)
