"""Programs and addresses that are called when something happens at the server: plugged in, attached, refused.

Each has a thread and a queue of its own: its calls are made one after the other, in the order of what has happened,
each in bounded time, and who is slow or dead costs nobody else. What becomes of a call is an event itself.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Sequence

from usbip_capture.errors import UsbipError
from usbip_capture.server.described import as_data
from usbip_capture.server.events import HOOK_DONE, HOOK_FAILED, Event, Events
from usbip_capture.servers.hook_target import HookTarget, word_of
from usbip_capture.serving.hook_program import ProgramCall
from usbip_capture.serving.hook_request import RequestCall
from usbip_capture.syslog.severity import INFO, WARNING

log = logging.getLogger(__name__)

#: Seconds for one call; for all that are left when the server ends, then for those that are cancelled.
TIMEOUT, _LAST_CALLS, _CANCELLING = 10.0, 3.0, 1.0
#: Events that wait for one hook.
WAITING = 100
#: What a program finds in its environment at any event, if only as an empty text.
_VARIABLES = ("client", "port", "identity", "busid", "device", "rule", "text", "by", "times")


class Hooks:
    """Calls `targets`, as HookTarget has them, for what is emitted from now until `close`.

    server: its name. Raises UsbipError for a program that is not there.
    """

    def __init__(self, events: Events, server: str, targets: Sequence[str], timeout: float = TIMEOUT) -> None:
        parsed = [_found(HookTarget.parse(text)) for text in targets]
        self._hooks: list[_Hook] = []
        try:
            for target in parsed:
                self._hooks.append(_Hook(events, server, target, timeout))
        except RuntimeError as error:
            self.close()
            raise UsbipError(f"hooks cannot be called: {error}: end other programs") from error

    def close(self) -> None:
        """Call for what has happened, if that can be done soon; the rest is cancelled, and logged."""
        for hook in self._hooks:
            hook.end()
        for wait in (_LAST_CALLS, _CANCELLING):
            deadline = time.monotonic() + wait
            for hook in self._hooks:
                hook.join(max(deadline - time.monotonic(), 0.0))
            for hook in self._hooks:
                hook.cancel()


class _Hook:
    """One target, and its thread."""

    def __init__(self, events: Events, server: str, target: HookTarget, timeout: float) -> None:
        self._events = events
        self._server = server
        self._target = target
        self._timeout = timeout
        self._call: ProgramCall | RequestCall | None = None
        self._lock = threading.Lock()
        self._cancelled = False
        self._trouble = ""  # why the last call failed
        self._subscription = events.subscribe(WAITING, target.kinds)
        self._thread = threading.Thread(target=self._run, name="usbip-hook", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Take no more events; those that wait are still to be called for."""
        self._subscription.close()

    def join(self, timeout: float) -> None:
        """Wait for the last call."""
        self._thread.join(timeout)

    def cancel(self) -> None:
        """End the call that is being made, and make no more. May be called again."""
        with self._lock:
            if self._cancelled or not self._thread.is_alive():
                return
            self._cancelled = True
            call = self._call
        left = len(self._subscription)
        log.warning("hook %s was not called to the end: %d events were waiting for it", self._target, left)
        if call is not None:
            call.cancel()

    def _run(self) -> None:
        while (taken := self._subscription.take(1)) and not self._cancelled:
            if lost := self._subscription.take_lost():
                self._failed(None, f"{lost} events were not reported to it: it takes longer than they do to come")
            try:
                self._called(taken[0])
            except Exception:  # the next event is another call
                log.exception("hook %s failed", self._target)
                self._failed(taken[0], "an internal error")

    def _called(self, event: Event) -> None:
        call = self._made(event)
        with self._lock:
            if self._cancelled:
                return
            self._call = call
        started = time.monotonic()
        try:
            outcome = call.run(self._timeout)
        except UsbipError as error:
            self._failed(event, str(error))
        except OSError as error:
            self._failed(event, error.strerror or str(error))
        else:
            self._trouble = ""
            text = f"{self._target}: {outcome}, after {time.monotonic() - started:.3f} s"
            self._events.emit(HOOK_DONE, INFO, busid=event.busid, device=event.device, text=text, by="server")
        finally:
            with self._lock:
                self._call = None

    def _made(self, event: Event) -> ProgramCall | RequestCall:
        data = {"event": word_of(event.kind), "server": self._server, **as_data(event)}
        given = json.dumps(data).encode("ascii")  # what strangers sent is escaped in it
        if self._target.url:
            return RequestCall(self._target.url, given)
        texts = {**dict.fromkeys(_VARIABLES, ""), **data}
        variables = {f"USBIP_{name.upper()}": str(value) for name, value in texts.items()}
        return ProgramCall(self._target.argv, variables, given + b"\n")

    def _failed(self, event: Event | None, reason: str) -> None:
        busid, device = (event.busid, event.device) if event is not None else ("", "")
        text = f"{self._target}: {reason}"
        if reason != self._trouble:  # once, not for each event
            log.warning("hook %s", text)
        self._trouble = reason
        self._events.emit(HOOK_FAILED, WARNING, busid=busid, device=device, text=text, by="server")


def _found(target: HookTarget) -> HookTarget:
    """With the path of its program. Raises UsbipError."""
    if not target.argv:
        return target
    path = shutil.which(target.argv[0])
    if path is None:
        raise UsbipError(
            f"hook {target}: there is no such program, or it may not be run: correct its path, and make it executable"
        )
    return HookTarget(target.words, (path, *target.argv[1:]))
