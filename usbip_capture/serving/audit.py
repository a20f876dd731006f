"""Where a server's events go: the log, a file, a syslog.

Each has a thread and a queue: who is slow or dead costs nobody else, and what is lost is counted and reported.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from usbip_capture.errors import UsbipError
from usbip_capture.server.described import as_data, sentence
from usbip_capture.server.events import LOST, RING, STOPPED, Event, Events, Subscription
from usbip_capture.server.repeats import PERIOD
from usbip_capture.servers.syslog_target import SyslogTarget
from usbip_capture.serving.audit_file import AuditFile
from usbip_capture.serving.syslog_sender import SyslogSender
from usbip_capture.syslog.severity import NOTICE, WARNING

log = logging.getLogger(__name__)

#: The logger of all events, at INFO. Each record has the event as `usbip_event`, in JSON's types.
AUDIT_LOGGER = "usbip_capture.audit"
#: Events that wait for an output, which the server remembers anyway, and that it takes at once.
WAITING, _BATCH = RING, 100
#: Seconds until a target that failed is tried again, at first and at last; and for what is left at the end.
_RETRY, _MAX_RETRY, _LAST_EVENTS = 0.5, 30.0, 2.0


class Target(Protocol):
    """Where events are written. Its text is its name for people."""

    def write(self, events: Sequence[Event]) -> int:
        """How many of the first were written, one at least. Raises OSError."""

    def close(self) -> None:
        """Write no more."""


class Output:
    """Writes to `target`, on a thread of its own, what is emitted from now until `close`.

    written, lost: events. trouble: why it cannot be written to now, else empty.
    """

    def __init__(self, events: Events, target: Target, waiting: int = WAITING) -> None:
        self.target = target
        self.written = self.lost = 0
        self.trouble = ""
        self._events = events
        self._subscription: Subscription = events.subscribe(waiting)
        self._pending: list[Event] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usbip-audit", daemon=True)
        self._thread.start()

    def close(self, timeout: float = _LAST_EVENTS) -> None:
        """Write what waits, if that can be done soon; the rest is lost, and logged."""
        self._subscription.close()
        self._ending.set()
        self._thread.join(timeout)
        self.lost += (
            self._subscription.take_lost()
            + len(self._subscription)
            + sum(event.kind != LOST for event in self._pending)
        )
        if self.lost:
            log.warning("the audit is incomplete: %d events are not in %s%s", self.lost, self.target,
                        f": {self.trouble}" if self.trouble else "")  # fmt: skip
        if not self._thread.is_alive():
            self.target.close()

    def _run(self) -> None:
        try:
            while True:
                pending = self._subscription.take(_BATCH, PERIOD)
                if not pending and self._subscription.closed:
                    return
                if not pending:
                    self._events.flush()
                    continue
                if lost := self._subscription.take_lost():
                    self.lost += lost
                    text = f"events could not be written to {self.target} in time"
                    pending.append(Event(LOST, time.time(), WARNING, text=text, times=lost))
                self._pending = pending
                if not self._write():
                    return
        except Exception:
            log.exception("the audit ends: %s cannot be written", self.target)
            self.trouble = "an internal error"

    def _write(self) -> bool:
        """Whether all that is pending is written: else this ends."""
        wait = _RETRY
        while self._pending:
            try:
                done = self.target.write(self._pending)
            except OSError as error:
                self._failed(error)
                if self._ending.is_set():
                    return False
                self._ending.wait(wait)  # then the last attempt
                wait = min(wait * 2, _MAX_RETRY)
                continue
            self.written += sum(event.kind != LOST for event in self._pending[:done])
            self._pending = self._pending[done:]
            if self.trouble:
                log.warning("the audit goes on: %s can be written again", self.target)
                self.trouble = ""
        return True

    def _failed(self, error: OSError) -> None:
        """Log it once, not at each attempt."""
        trouble = error.strerror or str(error) or type(error).__name__
        if not self.trouble:
            log.warning("the audit waits: %s cannot be written: %s", self.target, trouble)
        self.trouble = trouble


class LogTarget:
    """The log of this program."""

    def __init__(self) -> None:
        self._log = logging.getLogger(AUDIT_LOGGER)

    def __str__(self) -> str:
        return "the log"

    def write(self, events: Sequence[Event]) -> int:
        """Any event is written: where to is for the handlers of this logger."""
        if self._log.isEnabledFor(logging.INFO):
            for event in events:
                self._log.info("%s", sentence(event), extra={"usbip_event": as_data(event)})
        return len(events)

    def close(self) -> None:
        """Nothing is open."""


class Audit:
    """All outputs of a server, from before its start to after its end. file: `-` is standard output.

    syslog: as SyslogTarget has it. Raises UsbipError for a file that cannot be written, LocalProtocolError.
    """

    def __init__(self, events: Events, file: str = "", syslog: str = "") -> None:
        self._events = events
        self.outputs: list[Output] = []
        with ExitStack() as opened:
            targets: list[Target] = [LogTarget()]
            if file:
                targets.append(_opened(file))
                opened.callback(targets[-1].close)
            if syslog:
                targets.append(SyslogSender(SyslogTarget.parse(syslog)))
            self.outputs.extend(Output(events, target) for target in targets)
            opened.pop_all()

    def close(self) -> None:
        """Nothing more happens; what has happened is written."""
        self._events.emit(STOPPED, NOTICE)
        self._events.close()
        deadline = time.monotonic() + _LAST_EVENTS
        for output in self.outputs:
            output.close(max(deadline - time.monotonic(), 0.0))


def _opened(path: str) -> AuditFile:
    try:
        return AuditFile(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsbipError(f"the audit cannot be written to {path}: {reason}: choose another file") from error
