"""The capture process: opens the pipe, runs the session on a thread of its own, and ends when anybody says so.

The main thread only waits for messages: a signal handler may do no more than leave one, and a session that hangs in a
connection attempt must not keep the process from ending.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import warnings
from queue import Empty, SimpleQueue

from usbip_capture.capture.sinks import ReaderGone, open_sink
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.extcap import arguments, queries
from usbip_capture.options import Choices
from usbip_capture.probe import ProbeSession, ProbeSettings

log = logging.getLogger("usbip_capture.extcap")

#: Seconds that the session has to give the device back when the capture is stopped.
_RELEASE_TIMEOUT = 0.3
#: Seconds in which what is queued must find its way into the pipe then.
_FLUSH_TIMEOUT = 0.15
#: Windows cannot interrupt a wait for a signal.
_LOOK_EVERY = 0.2 if os.name == "nt" else None

# Messages to the main thread
_STARTED, _STOP, _ENDED = "started", "stop", "ended"


class CaptureProcess:
    """One capture. `stopped` tells whether somebody else ended it."""

    def __init__(self, argv: list[str]) -> None:
        self.stopped = False
        self._argv = argv
        self._messages: SimpleQueue[str] = SimpleQueue()
        self._stopping = threading.Event()
        self._writer: PcapWriter | None = None
        self._session: ProbeSession | None = None
        self._duration = 0.0
        self._sentence = ""

    def run(self) -> str:
        """Capture until stopped; the sentence that says what went wrong, empty if nothing did."""
        warnings.simplefilter("ignore")
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None:
                signal.signal(number, lambda *_: self._messages.put(_STOP))
        worker = threading.Thread(target=self._work, name="usbip-session", daemon=True)
        worker.start()
        self._wait()
        self._stopping.set()
        if self._session is not None:
            self._session.stop()
        worker.join(_RELEASE_TIMEOUT)
        if self._writer is not None:
            self._writer.close(_FLUSH_TIMEOUT if self.stopped else None)
            if self._writer.error is not None:
                return self._sentence or str(self._writer.error)
            log.info("%d packets, %d dropped", self._writer.received, self._writer.dropped)
        return "" if self.stopped else self._sentence

    def _wait(self) -> None:
        """Until the capture is to end."""
        deadline = None
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            try:
                message = self._messages.get(timeout=_shorter(left, _LOOK_EVERY))
            except Empty:
                if deadline is None or time.monotonic() < deadline:
                    continue
                message = _STOP
            if message == _STARTED and self._duration:
                deadline = time.monotonic() + self._duration
            elif message == _STOP:
                self.stopped = True
                return
            elif message == _ENDED:
                return

    # -- the session's thread

    def _work(self) -> None:
        try:
            self._capture()
        except ReaderGone:
            pass
        except UsbipError as error:
            self._sentence = str(error)
        except Exception as error:
            log.exception("the session failed")
            self._sentence = f"the capture ended because of our own fault: {type(error).__name__}: {error}"
        self._messages.put(_ENDED)

    def _capture(self) -> None:
        wrong = ""
        try:
            given = arguments.parse(self._argv)
            choices = Choices(arguments.given(given))
        except LocalProtocolError as error:
            wrong, choices = str(error), Choices({})
        fifo = queries.value_of(self._argv, "--fifo")
        if not fifo:
            raise LocalProtocolError("nowhere to write the capture: use --fifo with a file, a named pipe or -")
        # First of all, and in spite of all that is wrong: Wireshark 4.0 waits for this for ever.
        sink = open_sink(fifo, self._stopping)
        self._writer = PcapWriter(sink, snaplen=choices.snaplen, max_packets=choices.count, on_end=self._on_end)
        wrong = wrong or self._refusal(choices)
        if wrong:
            raise LocalProtocolError(wrong)
        _start_log(choices)
        self._duration = choices.duration
        settings = ProbeSettings(
            choices.host.strip(),
            choices.port,
            choices.device,
            choices.descriptors,
            choices.listen_in,
            choices.reconnect,
        )
        log.info("capturing %s", settings)
        self._session = ProbeSession(settings, self._writer)
        self._messages.put(_STARTED)
        if not self._stopping.is_set():
            self._session.run()

    def _refusal(self, choices: Choices) -> str:
        wrong = queries.unknown_interface(queries.value_of(self._argv, "--extcap-interface"))
        if wrong:
            return wrong
        if not choices.host.strip():
            return "no server given: set --host to its name or address (demo is a simulated device)"
        return queries.refusal(queries.value_of(self._argv, "--extcap-capture-filter") or "")

    def _on_end(self, reason: str) -> None:
        log.info("the capture's output ended: %s", reason)
        self._messages.put(_STOP)


def _start_log(choices: Choices) -> None:
    """Log into the file, if there is to be one. Raises LocalProtocolError when it cannot be written."""
    if not choices.log_file:
        return
    try:
        handler = logging.FileHandler(choices.log_file, encoding="utf-8")
    except OSError as error:
        raise LocalProtocolError(
            f"the log file {choices.log_file} cannot be written: {error.strerror}: choose another place"
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    root = logging.getLogger("usbip_capture")
    root.addHandler(handler)
    root.setLevel(choices.log_level.upper())
    log.info("usbip-extcap on Python %s, %s", sys.version.split()[0], sys.platform)


def _shorter(first: float | None, second: float | None) -> float | None:
    if first is None or second is None:
        return first if second is None else second
    return min(first, second)
