"""The run of `usbip-capture capture`: a capture session, which the main thread shows and waits for."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from threading import Event
from typing import TYPE_CHECKING

from usbip_capture.capture.files import RotatingSink, file_sink
from usbip_capture.capture.rotation import Rotation
from usbip_capture.capture.sinks import Sink, open_sink
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.capture_session.events import SessionEvents
from usbip_capture.capture_session.output import Output, is_file
from usbip_capture.capture_session.session import BY_STOP, CaptureSession
from usbip_capture.capture_session.settings import LOG_CONNECT, LOG_OFF, CaptureSettings
from usbip_capture.cli.exits import DONE
from usbip_capture.cli.live import LiveView
from usbip_capture.cli.log_handler import LogHandler, reported
from usbip_capture.cli.packets import PacketLines
from usbip_capture.cli.session import chosen_devices, problems_reported
from usbip_capture.cli.terminal import Waiting, fresh_line, is_terminal, print_log, report
from usbip_capture.device import Device
from usbip_capture.live.joining import JoinedCapture
from usbip_capture.options.table import Choices
from usbip_capture.report.units import count
from usbip_capture.servers.address import ServerAddress
from usbip_capture.system.console import Terminated

if TYPE_CHECKING:
    from usbip_capture.server_stream.capture import StreamedCapture
    from usbip_capture.servers.dashboards import Dashboard
    from usbip_capture.syslog.message import Message

#: Seconds between two looks of the live view.
_PERIOD = 1.0
#: Seconds that a session has to end which was interrupted before it captured anything.
_GIVE_UP_TIMEOUT = 1.5
#: Seconds in which the device's log can still report on the last transfer.
_LOG_LINGER = 0.2


class Capturing:
    """One capture, as `args` of the command ask for it. choices: what they have of the option table."""

    def __init__(
        self,
        args: argparse.Namespace,
        choices: Choices,
        server: ServerAddress | None,
        rotation: Rotation | None,
        dashboard: Dashboard | None = None,
    ) -> None:
        self._args = args
        self._server = server
        self._rotation = rotation
        self._prints = args.output is None and not args.wireshark
        self._sink: Sink | None = None
        live = is_terminal(sys.stderr) if args.live is None else args.live
        self._view = LiveView() if live and not self._prints and not args.quiet else None
        self._settings = CaptureSettings(
            choices, server, chosen_devices(args), args.filter, dashboard=dashboard, log_linger=_LOG_LINGER
        )
        self._target = server or dashboard

    def run(self) -> int:
        """Capture until Ctrl-C, or its end; the exit code. Raises UsbipError."""
        # A file may be a capture that is worth something, and is not touched before there is a device.
        late = self._prints or (not self._args.wireshark and is_file(self._args.output))
        if not late:
            self._open()
        with ExitStack() as stack:
            log_handler = None
            if self._settings.log_source != LOG_OFF:
                log_handler = stack.enter_context(reported("usbip_capture.collector"))
            stack.enter_context(problems_reported(self._settings.server))
            session = CaptureSession(self._settings, _Shown(self._settings, stack, log_handler, self._view))
            session.start(Output(self._opened, not late))
            seconds = self._wait(session, stack)
        errors: tuple[Exception | None, ...] = (session.output_error, session.error)
        if session.captured and session.writer is not None and session.output_error is None:
            self._report(session.writer, seconds)
        for error in errors if session.captured else errors[::-1]:
            if error is not None and (error is session.output_error or session.ended_by != BY_STOP):
                raise error
        return DONE

    def _wait(self, session: CaptureSession, stack: ExitStack) -> float:
        """Wait for the end of the session, or end it; how many seconds it captured. Raises KeyboardInterrupt."""
        started = time.monotonic()
        try:
            with Waiting(f"connecting to {self._target}" if self._target else "opening the log"):
                captured = session.wait_until_capturing()
            started = shown = time.monotonic()
            if captured and self._view is not None:
                stack.enter_context(self._view)
            while not session.wait(None if self._view is None else max(shown + _PERIOD - time.monotonic(), 0.001)):
                now = time.monotonic()
                if self._view is not None and session.writer is not None and now - shown >= _PERIOD:
                    self._view.show(now - shown, now - started, session.writer)
                    shown = now
        except KeyboardInterrupt:
            try:
                self._stop(session)
            except Terminated:  # SIGTERM and SIGHUP may come together
                self._stop(session)
            if not session.captured:
                raise
        return time.monotonic() - started

    def _stop(self, session: CaptureSession) -> None:
        """End the session, and wait for what it has captured, if anything."""
        session.stop()
        if session.captured:
            fresh_line()
        session.wait(None if session.captured else _GIVE_UP_TIMEOUT)

    def _opened(self, stopping: Event) -> Sink:
        return self._sink or self._open()

    def _open(self) -> Sink:
        sink = self._sink = self._new_sink()
        return sink

    def _new_sink(self) -> Sink:
        if self._args.wireshark:
            from usbip_capture.cli.wireshark import start_wireshark

            return start_wireshark()
        output = self._args.output
        if self._prints:
            return PacketLines((lambda text: None) if self._args.quiet else report)
        if self._rotation is not None:
            return RotatingSink(output, self._rotation)
        if is_file(output):
            return file_sink(output)
        with Waiting(f"waiting for a reader on {'standard output' if output == '-' else output}"):
            return open_sink(output)

    def _report(self, writer: PcapWriter | JoinedCapture | StreamedCapture, seconds: float) -> None:
        files = self._sink.files if isinstance(self._sink, RotatingSink) else [self._args.output]
        if self._args.json:
            print(
                json.dumps(
                    {
                        "server": str(self._target or ""),
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
        report(f"{count(writer.written, 'packet')}, {writer.dropped} dropped{filtered}{self._into(files)}")

    def _into(self, files: list[str]) -> str:
        if self._prints:
            return ""
        if self._args.wireshark:
            return ", in Wireshark"
        return f", in {', '.join(files) if files != ['-'] else 'standard output'}"


class _Shown(SessionEvents):
    """What becomes of the device and of its log goes to standard error; the view sees the URBs.

    stack: left when the capture has ended. log_handler: reports the log's connection.
    """

    def __init__(
        self, settings: CaptureSettings, stack: ExitStack, log_handler: LogHandler | None, view: LiveView | None
    ) -> None:
        self._settings = settings
        self._stack = stack
        self._log_handler = log_handler
        self._view = view

    def capturing(self) -> None:
        if self._settings.choices.reconnect:  # else the capture ends, and reports why
            self._stack.enter_context(reported("usbip_capture.probe.session"))
            self._stack.enter_context(reported("usbip_capture.server_stream"))

    def log_started(self) -> None:
        if self._log_handler is not None and self._settings.log_source == LOG_CONNECT:
            # So that the log of the first transfers is not missed.
            self._log_handler.printed.wait(self._settings.log_timeout())

    def log_message(self, message: Message) -> None:
        from usbip_capture.collector.display import line

        print_log(line(message, with_source=self._settings.log_source != LOG_CONNECT))

    def observe(self, device: Device) -> Device:
        return device if self._view is None else self._view.observe(device)
