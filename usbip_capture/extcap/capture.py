"""The capture process: what Wireshark gives becomes a capture session, which the toolbar shows and a signal stops."""

from __future__ import annotations

import signal
import warnings
from threading import Event
from typing import TYPE_CHECKING

from usbip_capture.capture.sinks import Sink, open_sink
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.capture_session.events import SessionEvents
from usbip_capture.capture_session.output import Output, is_file
from usbip_capture.capture_session.session import BY_SOURCE, CaptureSession
from usbip_capture.capture_session.settings import (
    LOG_ALONE,
    LOG_LISTEN,
    RELAY,
    SERVER,
    CaptureSettings,
    needs_server,
)
from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.extcap import arguments, logs, queries
from usbip_capture.extcap.grammar import value_of
from usbip_capture.extcap.log_window import LogWindow
from usbip_capture.extcap.toolbar import Toolbar
from usbip_capture.live import registry
from usbip_capture.live.joining import JoinedCapture
from usbip_capture.options.table import INTERFACE, Choices
from usbip_capture.report.units import count
from usbip_capture.servers.address import ServerAddress
from usbip_capture.servers.known import KnownServer, find_interface
from usbip_capture.servers.known_places import PLACE_PREFIX, KnownPlace, find_place, typed_place
from usbip_capture.system.signals import ensure_noticed

if TYPE_CHECKING:
    from usbip_capture.server_stream.capture import StreamedCapture
    from usbip_capture.servers.dashboards import Dashboard
    from usbip_capture.syslog.message import Message

log = logs.log

#: Seconds that the session has to release the device when the capture is stopped.
_RELEASE_TIMEOUT = 0.3
#: Seconds in which what is queued must find its way into the pipe then: without progress, and at most.
_FLUSH = (0.15, 0.1)


class CaptureProcess:
    """One capture. stopped: somebody else ended it. misused: its sentence is about the arguments."""

    def __init__(self, argv: list[str], control_in: int | None = None) -> None:
        self.stopped = False
        self.misused = False
        self._argv = argv
        self._toolbar = Toolbar(control_in, value_of(argv, "--extcap-control-out"), self)
        self._log_window = LogWindow(self._toolbar.show_line)
        self._choices = Choices({})
        self._joined = ""  # what runs and is joined
        self._place: tuple[str, int] | None = None  # of the server whose interface this is
        self._known: KnownServer | None = None  # the same, if it is joined by its dashboard
        self._lab: KnownPlace | None = None  # the place of labgrid that is meant
        self._session = CaptureSession(
            self._settings,
            _Shown(self, self._toolbar, self._log_window),
            release_timeout=_RELEASE_TIMEOUT,
            flush=_FLUSH,
        )

    def run(self) -> str:
        """Capture until stopped; the sentence on what went wrong, empty if nothing did."""
        warnings.simplefilter("ignore")
        ensure_noticed()
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None:
                signal.signal(number, lambda *_: self.quit())
        self._toolbar.start()
        try:
            output = self._output()
            self._session.start(output)
        except UsbipError as error:
            self.misused = isinstance(error, LocalProtocolError)
            return str(error)
        self._session.wait()
        self._toolbar.ended()
        self.stopped = self._session.ended_by != BY_SOURCE
        self._report()
        return self._sentence()

    def quit(self) -> None:
        """End the capture; from any thread, and from a signal handler."""
        self._session.stop()

    @property
    def writer(self) -> PcapWriter | JoinedCapture | StreamedCapture | None:
        """The capture, once it has begun."""
        return self._session.writer

    def comment(self, text: str) -> None:
        """Write a comment at this moment of the capture, or at its beginning if it has not begun yet."""
        self._session.comment(text)

    def listen_to(self, chosen: frozenset[int] | None) -> None:
        """Read these IN endpoints from now on, None for all."""
        self._session.listen_to(chosen)

    def drop_client(self, number: int) -> None:
        """Disconnect a client of the relay or the server."""
        self._session.drop_client(number)

    def reset_device(self, number: int) -> None:
        """Reset the device of a client of the server."""
        self._session.reset_device(number)

    def report_capturing(self) -> None:
        """For a person who captures without Wireshark."""
        choices = self._choices
        what = {RELAY: "what the relay forwards", LOG_ALONE: "the log"}.get(choices.mode, choices.host)
        logs.report(f"Capturing {self._joined or what}; Ctrl-C stops.")

    def _sentence(self) -> str:
        """What went wrong. After a stop only what the output lacks, or why some devices could not be imported."""
        session = self._session
        error = session.error
        self.misused = isinstance(error, LocalProtocolError)
        if session.output_error is not None:
            return str(error or session.output_error)
        if self.stopped:
            return str(session.missing[0]) if session.missing else ""
        if error is None or isinstance(error, UsbipError):
            return str(error or "")
        return f"internal error: the capture stopped: {type(error).__name__}: {error}"

    def _report(self) -> None:
        writer = self._session.writer
        if writer is not None and self._session.output_error is None:
            log.info("%d packets, %d dropped, %d filtered", writer.received, writer.dropped, writer.filtered)
            packets = count(writer.written, "packet")
            logs.report(f"{packets}, {writer.dropped} dropped, in {value_of(self._argv, '--fifo')}")

    def _output(self) -> Output:
        """The output that --fifo names. Raises LocalProtocolError.

        A pipe is opened first of all, and in spite of all that is wrong: Wireshark 4.0 waits for that for ever.
        """
        fifo = value_of(self._argv, "--fifo")
        if not fifo:
            arguments.parse(self._argv)  # a misspelt --fifo is not a missing one
            raise LocalProtocolError("nowhere to write the capture: use --fifo with a file, a named pipe or -")

        def opened(stopping: Event) -> Sink:
            return open_sink(fifo, stopping)

        return Output(opened, not is_file(fifo))

    def _settings(self) -> CaptureSettings:
        """What the arguments choose. Raises UsbipError."""
        namespace = arguments.parse(self._argv)
        if namespace.help:
            raise LocalProtocolError("--help explains and captures nothing: leave --capture and --fifo out")
        choices = self._choices = Choices(arguments.given(namespace))
        capture_filter = value_of(self._argv, "--extcap-capture-filter") or ""
        relay = self._select_interface(choices)
        if relay is None and needs_server(choices) and not choices.host.strip():
            raise LocalProtocolError(
                "no server given: set --host (in tshark -o extcap.usbip_remote.host:NAME) to its name or address "
                "(demo is a simulated device)"
            )
        wrong = queries.refusal(capture_filter)
        if wrong:
            raise LocalProtocolError(f"the capture filter cannot be understood: {wrong}")
        server, dashboard = self._target(choices, relay)
        settings = CaptureSettings(
            choices, server, choices.devices or choices.device, capture_filter, relay, dashboard,
            shows_clients=True, connecting_counts=True, remembers=self._lab is None,
        )  # fmt: skip
        logs.start(choices, self._toolbar.log_handler())
        self._toolbar.clients.relaying = choices.mode in (RELAY, SERVER)
        self._toolbar.clients.resetting = choices.mode == SERVER
        self._log_window.with_source = choices.syslog == LOG_LISTEN
        return settings

    def _target(self, choices: Choices, relay: registry.Entry | None) -> tuple[ServerAddress | None, Dashboard | None]:
        """The server, and its dashboard if that is joined; neither for a relay. Raises UsbipError."""
        if self._lab is not None:
            from usbip_capture.extcap.places import place_target

            target = place_target(self._lab, choices.token, joins=choices.mode == SERVER)
            choices.host, choices.port = target.server.place
            choices.device, choices.devices = target.busid, ""
            if target.dashboard is not None:
                choices.mode = SERVER
            return (None, target.dashboard) if target.dashboard is not None else (target.server, None)
        if choices.mode == SERVER:
            return None, self._dashboard(choices)
        if self._place is not None:
            return ServerAddress.at(*self._place), None
        named = relay is None and choices.host.strip()
        return (ServerAddress.parse(choices.host.strip(), choices.port) if named else None), None

    def _dashboard(self, choices: Choices) -> Dashboard:
        """That of the server to join. Raises UsbipError."""
        from usbip_capture.servers.dashboards import Dashboard

        if self._known is not None:
            return Dashboard.known(self._known, choices.token)
        return Dashboard.parse(choices.host, choices.port, choices.token)

    def _select_interface(self, choices: Choices) -> registry.Entry | None:
        """Let the interface decide mode or server; the relay that it is. Raises LocalProtocolError."""
        interface = value_of(self._argv, "--extcap-interface")
        if interface is None:  # a person, who need not know what it is called
            interface = INTERFACE
        wrong = queries.unknown_interface(interface)
        if wrong:
            raise LocalProtocolError(wrong)
        relay = registry.find(interface) if interface else None
        if relay is not None:
            choices.mode = RELAY
            self._joined = relay.display
            return relay
        self._lab = find_place(interface) if interface else None
        if interface == INTERFACE:
            self._lab = typed_place(choices.host)
        if self._lab is not None:
            choices.host = f"{PLACE_PREFIX}{self._lab.label}"
            return None
        server = find_interface(interface) if interface else None
        if server is not None and server.is_dashboard:
            choices.mode, choices.host, self._known = SERVER, server.address, server
            return None
        if server is not None:
            if choices.host.strip() not in ("", server.host, server.address):
                raise LocalProtocolError(
                    f"this interface is for the server {server.host}: use {INTERFACE} for {choices.host.strip()}"
                )
            choices.host, choices.port = server.host, server.port
            self._place = server.host, server.port
        return None


class _Shown(SessionEvents):
    """Shows the session in the toolbar."""

    def __init__(self, process: CaptureProcess, toolbar: Toolbar, log_window: LogWindow) -> None:
        self._process = process
        self._toolbar = toolbar
        self._log_window = log_window

    def activity(self, source: object, text: str) -> None:
        self._toolbar.state(source, text)

    def capturing(self) -> None:
        self._process.report_capturing()

    def log_message(self, message: Message) -> None:
        self._log_window.add(message)

    def clients(self, clients: dict[int, str], hint: str) -> None:
        self._toolbar.clients.update(clients, hint)

    def ended(self) -> None:
        self._log_window.report_left_out()
