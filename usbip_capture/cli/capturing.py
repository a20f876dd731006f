"""The run of `usbip-capture capture`: sessions on a thread of their own, while the main thread shows and waits."""

from __future__ import annotations

import argparse
import json
import os
import signal
import stat
import sys
import threading
import time
from contextlib import ExitStack
from queue import Empty, SimpleQueue

from usbip_capture.capture.files import RotatingSink, file_sink
from usbip_capture.capture.rotation import Rotation
from usbip_capture.capture.sinks import Sink, open_sink
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.cli.exits import DONE
from usbip_capture.cli.live import LiveView
from usbip_capture.cli.packets import PacketLines
from usbip_capture.cli.session import chosen_devices, log_of
from usbip_capture.cli.terminal import Waiting, fresh_line, is_terminal, tell
from usbip_capture.device import Device
from usbip_capture.hosts import DEMO, Server
from usbip_capture.probe import ProbeEvents, ProbeGroup, ProbeSettings
from usbip_capture.report.units import count
from usbip_capture.usb.info import DeviceInfo

#: Seconds between two looks of the live view.
_PERIOD = 1.0
#: Seconds that the sessions have to give their devices back.
_RELEASE_TIMEOUT = 1.0
#: Windows cannot interrupt a wait for longer than this, in seconds.
_LOOK_EVERY = 0.2
# Messages to the main thread
_IMPORTED, _ENDED = "imported", "ended"


class Capturing:
    """One capture, as `args` of the command ask for it."""

    def __init__(self, args: argparse.Namespace, server: Server, rotation: Rotation | None) -> None:
        self._args = args
        self._server = server
        self._rotation = rotation
        self._messages: SimpleQueue[str] = SimpleQueue()
        self._error: BaseException | None = None
        self._prints = args.output is None and not args.wireshark
        live = is_terminal(sys.stderr) if args.live is None else args.live
        self._view = LiveView() if live and not self._prints and not args.quiet else None
        settings = ProbeSettings(args.descriptors, args.listen_in, args.reconnect)
        self._group = ProbeGroup(server, chosen_devices(args), settings, _Events(server, self._messages, self._view))

    def run(self) -> int:
        """Capture until Ctrl-C, or its end; the exit code. Raises UsbipError."""
        signal.signal(signal.SIGTERM, _interrupt)
        # A file may be a capture that is worth something, and is not touched before there is a device.
        late = self._prints or (not self._args.wireshark and _is_file(self._args.output))
        sink = None if late else self._open()
        try:
            with Waiting(f"connecting to {self._server}"):
                self._group.connect()
            self._record(sink or self._open())
        finally:
            self._group.stop()
        return DONE

    def _record(self, sink: Sink) -> None:
        """Capture into `sink`, and say what it has become. Raises UsbipError."""
        started = time.monotonic()
        writer = self._writer(sink)
        try:
            with ExitStack() as stack:
                if self._view is not None:
                    stack.enter_context(self._view)
                if self._args.syslog:
                    stack.enter_context(log_of(self._server, self._args.syslog_port, writer))
                self._capture(writer)
        except KeyboardInterrupt:
            fresh_line()
        finally:
            writer.close()
            self._report(writer, sink, time.monotonic() - started)

    def _open(self) -> Sink:
        if self._args.wireshark:
            from usbip_capture.cli.wireshark import start_wireshark

            return start_wireshark()
        output = self._args.output
        if self._prints:
            return PacketLines((lambda text: None) if self._args.quiet else tell)
        if self._rotation is not None:
            return RotatingSink(output, self._rotation)
        if _is_file(output):
            return file_sink(output)
        with Waiting(f"waiting for a reader on {'standard output' if output == '-' else output}"):
            return open_sink(output)

    def _writer(self, sink: Sink) -> PcapWriter:
        args = self._args
        return PcapWriter(
            sink,
            snaplen=args.snaplen,
            capture_filter=args.filter,
            max_packets=args.count,
            on_end=lambda reason: self._messages.put(_ENDED),
        )

    def _capture(self, writer: PcapWriter) -> None:
        """Until it ends. Raises UsbipError, KeyboardInterrupt."""
        worker = threading.Thread(target=self._work, args=(writer,), name="usbip-sessions", daemon=True)
        worker.start()
        try:
            self._watch(writer)
        finally:
            self._group.stop()
            worker.join(_RELEASE_TIMEOUT)
        if self._error is not None:
            raise self._error

    def _work(self, writer: PcapWriter) -> None:
        try:
            self._group.run(writer)
        except Exception as error:
            self._error = error
        self._messages.put(_ENDED)

    def _watch(self, writer: PcapWriter) -> None:
        """Show what happens, until the capture ends or its time is over."""
        started = shown = time.monotonic()
        deadline = float("inf")
        while True:
            now = time.monotonic()
            if now >= deadline:
                return
            if self._view is not None and now - shown >= _PERIOD:
                self._view.show(now - shown, now - started, writer)
                shown = now
            try:
                message = self._messages.get(timeout=max(min(_LOOK_EVERY, deadline - now), 0.001))
            except Empty:
                continue
            if message == _ENDED:
                return
            if self._args.duration and deadline == float("inf"):
                deadline = time.monotonic() + self._args.duration

    def _report(self, writer: PcapWriter, sink: Sink, seconds: float) -> None:
        files = sink.files if isinstance(sink, RotatingSink) else [self._args.output]
        if self._args.json:
            print(
                json.dumps(
                    {
                        "server": str(self._server),
                        "packets": writer.written,
                        "dropped": writer.dropped,
                        "filtered": writer.filtered,
                        "urbs": writer.urbs,
                        "bytes": writer.bytes,
                        "seconds": round(seconds, 3),
                        "files": [] if self._args.wireshark else files,
                    }
                )
            )
            return
        if self._args.quiet:
            return
        filtered = f", {writer.filtered} filtered" if writer.filtered else ""
        tell(f"{count(writer.written, 'packet')}, {writer.dropped} dropped{filtered}{self._into(files)}")

    def _into(self, files: list[str]) -> str:
        if self._prints:
            return ""
        if self._args.wireshark:
            return ", in Wireshark"
        return f", in {', '.join(files) if files != ['-'] else 'standard output'}"


class _Events(ProbeEvents):
    """Starts the clock with the first device, and lets the view see the URBs."""

    def __init__(self, server: Server, messages: SimpleQueue[str], view: LiveView | None) -> None:
        self._server = server
        self._messages = messages
        self._view = view

    def imported(self, info: DeviceInfo) -> None:
        self._messages.put(_IMPORTED)

    def product(self, info: DeviceInfo, name: str) -> None:
        self._remember(info, name=name)

    def serial(self, info: DeviceInfo, number: str) -> None:
        self._remember(info, serial=number)

    def _remember(self, info: DeviceInfo, name: str = "", serial: str = "") -> None:
        if self._server.host == DEMO:
            return
        from usbip_capture.discovery import memory

        server, vid_pid = self._server, "{:04x}:{:04x}".format(*info.vid_pid)

        def remember() -> None:
            memory.remember_server(server.host, server.port)
            memory.remember_product(server.host, server.port, info.busid, vid_pid, name, serial)

        # On a thread: a disk that is busy must not hold up the device.
        threading.Thread(target=remember, name="usbip-memory", daemon=True).start()

    def observe(self, device: Device) -> Device:
        return device if self._view is None else self._view.observe(device)


def _is_file(path: str) -> bool:
    """Whether it is, or would be, a regular file."""
    if path == "-" or path.startswith("\\\\.\\pipe\\"):
        return False
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return True


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
