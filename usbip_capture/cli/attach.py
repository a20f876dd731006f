"""`usbip-capture attach`: a server's device becomes one of this machine, by Linux's vhci-hcd."""

from __future__ import annotations

import argparse

from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command, add_device, add_server
from usbip_capture.cli.session import chosen_device, chosen_server
from usbip_capture.cli.terminal import fresh_line, print_lines, report

_ABOUT = """\
Attach a device of a server to this machine, as `usbip attach` does: the kernel and its drivers then use it as if it
were plugged in here. Linux only; needs root and the kernel module vhci-hcd. It stays attached until it is detached or
unplugged, or its server ends; with --auto it is attached again then.
"""
_EXAMPLES = """\
  sudo usbip-capture attach pi 1-1.2
  sudo usbip-capture attach pi 303a:4001          the only device of this kind
  sudo usbip-capture attach pi 303a:4001:123456   that one of them with this serial number
  sudo usbip-capture attach pi 1-1.2 --auto       again whenever it is plugged in, until Ctrl-C
  usbip-capture attached                          what is attached, and from where
  sudo usbip-capture detach 1-1.2
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "attach", "attach a device of a server to this machine (Linux)", _ABOUT, _EXAMPLES)
    add_server(parser)
    add_device(parser)
    parser.add_argument(
        "--auto",
        action="store_true",
        help="wait until it is there, and attach it again whenever it or its server is back, until Ctrl-C",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Attach; the exit code. Raises UsbipError."""
    from usbip_capture.vhci.attaching import Attacher
    from usbip_capture.vhci.automatic import AutoAttach, announcements, sentence
    from usbip_capture.vhci.controller import Vhci

    server, selector = chosen_server(args), chosen_device(args)
    attacher = Attacher(Vhci())
    if not args.auto:
        attachment = attacher.attach(server, selector)
        print_lines([sentence(attachment)])
        if not attachment.recorded:
            report("where it is from cannot be recorded in /var/run/vhci_hcd: `attached` will not name it")
        return DONE
    auto = AutoAttach(attacher, server, selector, lambda text: print_lines([text]))
    try:
        with announcements(server, auto.wake):
            auto.run()
    except KeyboardInterrupt:  # its ordinary end
        fresh_line()
        if auto.attachment is not None:
            number = auto.attachment.port.number
            report(f"{auto.attachment.where} stays attached: sudo usbip-capture detach {number} ends that")
    return DONE
