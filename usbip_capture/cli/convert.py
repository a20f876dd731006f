"""`usbip-capture convert`: a recording of TCP with USB/IP in it becomes a capture of USB."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from usbip_capture.cli.groups import HelpFormatter
from usbip_capture.cli.terminal import CLEAR_LINE, report, takes_escapes
from usbip_capture.cli.values import port
from usbip_capture.errors import CaptureError
from usbip_capture.report.units import count
from usbip_capture.system import console
from usbip_capture.system.console import INTERRUPTED

if TYPE_CHECKING:
    from usbip_capture.capture.sinks import Sink
    from usbip_capture.convert.converter import Converter
    from usbip_capture.convert.output import Output
    from usbip_capture.convert.target import Target
    from usbip_capture.recordings.source import Source

#: Link types of captures that are of USB already.
_USB = {189: " (USB as usbmon has it)", 220: " (USB as usbmon has it)", 249: " (USB as USBPcap has it)"}
#: Seconds between two lines of progress.
_PROGRESS = 1.0

_DESCRIPTION = """\
Reads USB/IP sessions from a recording of TCP (pcap or pcapng, gzip'ed or not) and writes their URBs as Linux's usbmon
would have recorded them on the client.
"""
_EXAMPLES = """\
examples:
  usbip-capture convert tcp.pcap usb.pcapng              one interface per device, for Wireshark
  usbip-capture convert tcp.pcap usb.pcap --format pcap  for tools that read nothing newer
  usbip-capture convert tcp.pcap - --format text         as /sys/kernel/debug/usb/usbmon/0u shows it
  tcpdump -U -w - port 3240 | usbip-capture convert - - | wireshark -k -i -       live

exit status: 0 all is well, 1 there is no session, or the recording ends or breaks off where it should not, 2 wrong
arguments, 130 Ctrl-C came before the file was done
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "convert",
        help="from a recording of TCP to a capture of USB",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("input", metavar="IN", help="the recording of TCP; - is standard input")
    parser.add_argument(
        "output",
        metavar="OUT",
        help="the capture of USB, replaced when it is complete if it exists; - is standard output",
    )
    parser.add_argument(
        "--port",
        type=port,
        action="append",
        metavar="PORT",
        help="look at this TCP port of servers only, and take all of it for USB/IP; may be repeated"
        " (default: sessions are found by their content, on any port)",
    )
    parser.add_argument(
        "--format",
        choices=("pcapng", "pcap", "text"),
        help="pcapng: one interface per device, with comments; pcap: for tools that read nothing newer;"
        " text: usbmon's text form (default: as OUT is called, else pcapng)",
    )
    parser.add_argument(
        "--record-unlinks",
        action="store_true",
        help="also record CMD_UNLINK and RET_UNLINK, on a second interface per device (pcapng only)",
    )
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Convert; the exit code: 1 if there was no session, or the recording is damaged."""
    from usbip_capture.capture.sinks import ReaderGone
    from usbip_capture.convert.converter import CHUNK, Converter
    from usbip_capture.convert.target import Target
    from usbip_capture.recordings.reading import check_beginning, first_link_type
    from usbip_capture.recordings.source import Source

    if args.format is None:
        args.format = "pcap" if args.output.lower().endswith((".pcap", ".cap")) else "pcapng"
    if args.record_unlinks and args.format != "pcapng":
        args.parser.error(f"--record-unlinks needs --format pcapng: {args.format} has only one interface")
    source = Source(args.input, chunk=CHUNK)
    target: Target | None = None
    begun = False
    try:
        check_beginning(source)
        kind = first_link_type(source)
        if kind in _USB:
            raise _no_tcp(source, [kind])  # IN and OUT swapped, perhaps: nothing is written over
        target = Target(args.output, source, text=args.format == "text")
        progress = _Progress(source)
        converter = Converter(source, _output(args, target.sink), ports=args.port, on_portion=progress.portion)
        progress.converter = converter
        begun = True
        with _interrupted(source.stop):
            converter.run()
        progress.clear()
        if converter.sessions:
            kept, target = target, None
            kept.keep()
    except ReaderGone:
        return 0
    except MemoryError:
        raise CaptureError(f"{source.name} needs more memory to convert than there is: split it (editcap -c)") from None
    finally:
        source.close()
        if target is not None:
            target.discard(failed=begun and bool(converter.urbs))
    return _report(converter, source)


@contextmanager
def _interrupted(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C, or request to terminate, calls `stop`: what was read is converted, and the output completed."""

    def first(number: int, _: object) -> None:
        stop()
        signal.signal(number, before[signal.Signals(number)])
        console.requested(number)

    # One that is ignored stays so: in the background of a script Ctrl-C is not meant for us.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *console.REQUESTS)}
    before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _output(args: argparse.Namespace, sink: Sink) -> Output:
    from usbip_capture.convert.output import ClassicOutput, PcapngOutput, TextOutput

    if args.format == "pcap":
        return ClassicOutput(sink)
    if args.format == "text":
        return TextOutput(sink)
    return PcapngOutput(sink, record_unlinks=args.record_unlinks)


def _report(converter: Converter, source: Source) -> int:
    unread = converter.unread
    if unread and unread.total() == converter.packets:
        raise _no_tcp(source, sorted(unread))
    for remark in converter.remarks:
        report(remark)
    if converter.error is not None:
        report(f"{converter.error}; what came before was converted")
    if not converter.sessions:
        report(
            f"no USB/IP session in {source.name}: was the right port recorded, and its beginning?"
            " --port takes all of a port for USB/IP"
        )
    else:
        found = [(converter.sessions, "session"), (converter.devices, "device"), (converter.urbs, "URB")]
        counts = ", ".join(count(number, what) for number, what in found)
        report(f"{counts} in {count(converter.packets, 'packet')} of {source.name}")
    if source.stopped and source.size:
        return INTERRUPTED  # what comes from a pipe has no other end
    return 1 if converter.error is not None or not converter.sessions else 0


def _no_tcp(source: Source, link_types: list[int]) -> CaptureError:
    from usbip_capture.recordings.link_types import link_type_label

    kinds = " and ".join(
        f"link type {kind}{_USB[kind]}" if kind in _USB else link_type_label(kind) for kind in link_types
    )
    return CaptureError(f"{source.name} holds only packets of {kinds}: a recording of TCP is needed")


class _Progress:
    """One line on the terminal, rewritten as the file is read."""

    def __init__(self, source: Source) -> None:
        self.converter: Converter | None = None
        self._source = source
        self._shown = bool(source.size) and takes_escapes(sys.stderr)
        self._next = time.monotonic() + _PROGRESS
        self._written = False

    def portion(self) -> None:
        """A portion was read."""
        if not self._shown or time.monotonic() < self._next or self.converter is None:
            return
        self._next = time.monotonic() + _PROGRESS
        self._written = True
        percent = 100 * self._source.taken // max(self._source.size, 1)
        print(f"\r{percent:3d} %, {self.converter.urbs} URBs ", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Erase the line."""
        if self._written:
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)
