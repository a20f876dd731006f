"""`usbip-extcap`: what Wireshark runs for its queries and captures, and people to install it or to capture alone.

Imports nothing that a query does not need; parses leniently, for newer versions of Wireshark add arguments.
"""

from __future__ import annotations

import sys

from usbip_capture import __version__
from usbip_capture.extcap import queries
from usbip_capture.options.table import INTERFACE

_ABOUT = f"""\
usbip-extcap {__version__}: Wireshark's USB/IP interface

  usbip-extcap --install      put it where this machine's Wireshark looks for it
  usbip-extcap --uninstall    remove it again
  usbip-extcap --doctor       look for everything that may be wrong, and show how to fix it
  usbip-extcap --profile      install the Wireshark profile USB-IP; --profile remove removes it
  usbip-extcap --wireshark HOST [DEVICE]    start Wireshark, capturing at once
  usbip-extcap --help         every option, and how to capture without Wireshark

In Wireshark: the interface "{queries.INTERFACE_DISPLAY}". With tshark:

  tshark -i {INTERFACE} -o extcap.usbip_remote.host:demo
"""


def main(argv: list[str] | None = None) -> int:
    """Run with these arguments (default: the program's) and return the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        # With a fifo it is a capture whatever else is given: Wireshark waits for it to be opened.
        if "--capture" in argv and ("--fifo" in argv or not _asks_for_text(argv)):
            from usbip_capture.extcap import guard

            return guard.capture(argv)
        answer = queries.answer(argv)
        if answer is None:
            return _for_people(argv)
        return _print(*answer)
    except KeyboardInterrupt:
        return 130


def _print(text: str, error: str) -> int:
    try:
        if text and sys.stdout is not None:
            # As bytes: Wireshark drops a line that is not UTF-8, whatever the locale is.
            sys.stdout.buffer.write(text.encode())
            sys.stdout.flush()
        if error:
            from usbip_capture.system.shown import lines

            print(lines(error), file=sys.stderr)
    except OSError:  # who asked has gone, and Python would try once more at its end
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return 1 if error else 0


def _asks_for_text(argv: list[str]) -> bool:
    return bool({"--version", "--help", "-h"} & set(argv))


def _for_people(argv: list[str]) -> int:
    from usbip_capture.extcap import guard

    guard.enable_site_packages()
    from usbip_capture.system import console

    return console.run("usbip-extcap", lambda: _job(argv))


def _job(argv: list[str]) -> int:
    """Do the job that is asked for. Raises LocalProtocolError if none is."""
    from usbip_capture.errors import LocalProtocolError
    from usbip_capture.extcap.arguments import parse, parser

    if "--version" in argv:
        from usbip_capture.system.compiling import build

        print(f"usbip-extcap {__version__} ({build()})")
        return 0
    if _asks_for_text(argv):
        print(parser().format_help(), end="")
        return 0
    if not argv:
        print(_ABOUT, end="")
        return 0
    given = parse(argv)
    if given.doctor:
        from usbip_capture.extcap.arguments import given as chosen
        from usbip_capture.installation import doctor
        from usbip_capture.options.table import Choices

        choices = Choices(chosen(given))
        return doctor.run(choices.host.strip(), choices.port)
    if given.wireshark:
        from usbip_capture.installation import start

        return start.run(given.wireshark)
    if given.install or given.uninstall or given.profile:
        from usbip_capture.installation import placement, profile

        if given.install:
            return placement.install()
        if given.profile:
            return profile.run(given.profile)
        from usbip_capture.servers import memory

        memory.forget_everything()
        return placement.uninstall() | profile.uninstall()
    raise LocalProtocolError(f"nothing to do for {' '.join(argv)}: to capture, give --capture; see usbip-extcap --help")
