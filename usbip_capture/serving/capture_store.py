"""Captures that are kept in a folder of the server: begun, stopped, read and deleted by their ids."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import CaptureError, LocalProtocolError, UsbipError
from usbip_capture.server.events import CAPTURE_ENDED, CAPTURE_STARTED, Events
from usbip_capture.serving.session_capture import DeviceChoice, SessionCapture
from usbip_capture.serving.sessions import Sessions
from usbip_capture.serving.stored_capture import (
    FAILED,
    STOPPED,
    CaptureFacts,
    capture_files,
    capture_path,
    new_id,
    remove,
    save,
    saved,
)
from usbip_capture.serving.stored_sinks import Room, StoredFile, StoredRing
from usbip_capture.syslog.severity import ERROR, NOTICE, WARNING
from usbip_capture.system.folder_lock import OwnFolder
from usbip_capture.system.private_files import check_owner
from usbip_capture.system.shown import one_line

log = logging.getLogger(__name__)

#: Captures at a time, bytes of what each has not written yet, captures that are kept, files of a ring.
MAX_RUNNING, QUEUE_BYTES, MAX_KEPT, MAX_RING = 16, 16 << 20, 1000, 100
#: The lowest limit of a file.
LEAST_BYTES = 4096
_MAX_NAME = 64
#: Seconds for a disk that is busy.
_FLUSH_TIMEOUT = 5.0


class TooMany(UsbipError):
    """So many captures are not possible at a time."""


class _Running:
    """One that runs: where it is written, and what it sees."""

    def __init__(self, facts: CaptureFacts, sink: StoredFile | StoredRing, choice: DeviceChoice) -> None:
        self.facts = facts
        self.sink = sink
        self.choice = choice
        self.opened = threading.Event()
        self.writer: PcapWriter
        self.watcher: SessionCapture

    def now(self) -> CaptureFacts:
        """What is known of it now."""
        sink = self.sink
        return replace(
            self.facts, packets=sink.packets, dropped=self.writer.dropped, files=len(sink.files), bytes=sink.size
        )


class CaptureStore:
    """Captures of `sessions` in `folder`, which is made if need be, for its owner only. Threads may share it.

    limit: bytes that all may take together, 0 for any number. server: for the descriptions of interfaces. What ends one
    capture, such as a full disk, ends nothing else. changes: how often one has begun, ended, or was deleted.
    Raises CaptureError.
    """

    def __init__(self, folder: str, sessions: Sessions, events: Events, *, limit: int = 0, server: str = "") -> None:
        self.folder = folder
        self.changes = 0
        self._sessions = sessions
        self._events = events
        self._server = server
        self._room = Room(limit)
        self._lock = threading.Lock()
        self._running: dict[str, _Running] = {}
        self._ended: dict[str, CaptureFacts] = {}
        self._closed = False
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            check_owner(folder)
            self._own = OwnFolder(folder)
        except OSError as error:
            raise CaptureError(f"captures cannot be kept in {folder}: {error.strerror or error}") from error
        except UsbipError as error:  # whose captures would be listed as if they had ended
            raise CaptureError(f"captures cannot be kept there: {error}") from error
        for facts in saved(folder):
            self._ended[facts.id] = facts
            self._room.set(facts.id, facts.bytes)

    @property
    def captures(self) -> list[CaptureFacts]:
        """All there are, the latest first."""
        with self._lock:
            found = [*self._ended.values(), *(running.now() for running in self._running.values())]
        return sorted(found, key=lambda facts: (facts.started, facts.id), reverse=True)

    @property
    def running(self) -> list[CaptureFacts]:
        """Those that run."""
        with self._lock:
            return [running.now() for running in self._running.values()]

    def find(self, capture_id: str) -> CaptureFacts | None:
        """One of them."""
        with self._lock:
            running = self._running.get(capture_id)
            return self._ended.get(capture_id) if running is None else running.now()

    def choice(self, capture_id: str) -> DeviceChoice | None:
        """The devices of a running one."""
        running = self._running.get(capture_id)
        return None if running is None else running.choice

    def start(
        self,
        devices: Sequence[str] = (),
        *,
        capture_filter: str = "",
        max_bytes: int = 0,
        files: int = 0,
        name: str = "",
        by: str = "user",
    ) -> CaptureFacts:
        """Begin one. devices: patterns, as `access.devices` has them, none for all. max_bytes: it ends then, 0 never.

        files: with 2 or more it does not end, and keeps the latest so many files of max_bytes. by: who is it.
        Raises LocalProtocolError, with FilterError, TooMany, CaptureError.
        """
        _check(max_bytes, files)
        choice = DeviceChoice(devices)
        name = one_line(name.strip())[:_MAX_NAME] or time.strftime("Capture of %Y-%m-%d %H:%M:%S")
        facts = CaptureFacts(
            new_id(), name, tuple(choice.texts), capture_filter.strip(), max_bytes, files if files > 1 else 0, by,
            started=time.time(),
        )  # fmt: skip
        self._check_number()
        # A ring has its room from the beginning on: what others take does not end it.
        self._room.reserve(facts.id, facts.max_bytes * facts.ring or LEAST_BYTES)
        try:
            running = self._opened(facts, choice)
            self._enter(running)
        except BaseException:
            self._discard(facts.id)
            raise
        what = ", ".join(facts.devices) or "all devices"
        text = f"{facts.name} ({facts.id}): {what}" + (f", {facts.filter}" if facts.filter else "")
        self._events.emit(CAPTURE_STARTED, NOTICE, text=text, by=by)
        running.opened.set()
        self._sessions.join(running.watcher)
        if facts.id not in self._running:  # it has ended meanwhile
            self._sessions.leave(running.watcher)
        return self.find(facts.id) or facts

    def stop(self, capture_id: str, by: str = "user") -> CaptureFacts | None:
        """End a running one, and complete its file; None if there is none. One that has ended stays as it is."""
        running = self._running.get(capture_id)
        if running is not None:
            self._sessions.leave(running.watcher)
            with suppress(CaptureError):  # which is noted with it
                running.writer.close()
            self._finish(running, by)
        return self.find(capture_id)

    def delete(self, capture_id: str, by: str = "user") -> bool:
        """Remove it and its files, after it is stopped; False if there is none. Raises CaptureError."""
        self.stop(capture_id, by)
        with self._lock:
            facts = self._ended.pop(capture_id, None)
            if facts is None:
                return False
            self.changes += 1
        try:
            remove(self.folder, capture_id)
        except OSError as error:
            with self._lock:
                self._ended[capture_id] = facts
                self.changes += 1
            raise CaptureError(f"the capture cannot be deleted: {error.strerror or error}") from error
        self._room.set(capture_id, 0)
        return True

    def files(self, capture_id: str) -> list[str]:
        """Where its packets are, the oldest first, with all that has happened so far; none if there is no such one."""
        running = self._running.get(capture_id)
        if running is not None:
            running.writer.flush(_FLUSH_TIMEOUT)
        return capture_files(self.folder, capture_id) if self.find(capture_id) is not None else []

    def close(self) -> None:
        """Complete all that run. May be called again."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for capture_id in running:
            self.stop(capture_id, "server")
        self._own.close()

    def _check_number(self) -> None:
        """Raises TooMany, CaptureError."""
        with self._lock:
            if self._closed:
                raise CaptureError("the server is stopping")
            if len(self._ended) + len(self._running) >= MAX_KEPT:
                raise TooMany(f"at most {MAX_KEPT} captures are kept: delete some of them")

    def _opened(self, facts: CaptureFacts, choice: DeviceChoice) -> _Running:
        """Its files. Raises CaptureError, FilterError."""
        path = capture_path(self.folder, facts.id)
        sink: StoredFile | StoredRing
        if facts.ring:
            sink = StoredRing(path, facts.max_bytes, facts.ring)
        else:
            sink = StoredFile(path, self._room, facts.id, facts.max_bytes)
        running = _Running(facts, sink, choice)
        try:
            running.writer = PcapWriter(
                sink, queue_bytes=QUEUE_BYTES, capture_filter=facts.filter, on_end=partial(self._on_end, running)
            )
            running.watcher = SessionCapture(running.writer, choice, self._server)
            save(self.folder, facts)
        except BaseException as error:
            if hasattr(running, "writer"):
                running.opened.set()
                with suppress(CaptureError):
                    running.writer.close()
            else:
                sink.close()
            if isinstance(error, OSError):
                raise CaptureError(f"the capture cannot begin: {error.strerror or error}") from error
            raise
        return running

    def _enter(self, running: _Running) -> None:
        """It runs, if one more may; else it is closed. Raises TooMany."""
        with self._lock:
            if not self._closed and len(self._running) < MAX_RUNNING:
                self._running[running.facts.id] = running
                self.changes += 1
                return
        running.opened.set()
        with suppress(CaptureError):
            running.writer.close()
        raise TooMany(f"at most {MAX_RUNNING} captures run at a time: stop another one")

    def _discard(self, capture_id: str) -> None:
        """It has not begun."""
        with suppress(OSError):
            remove(self.folder, capture_id)
        self._room.set(capture_id, 0)

    def _on_end(self, running: _Running, reason: str) -> None:
        """It has ended by itself. On its writer's thread."""
        running.opened.wait()
        self._sessions.leave(running.watcher)
        self._finish(running, "server", is_limit=reason == "reader")

    def _finish(self, running: _Running, by: str, *, is_limit: bool = False) -> None:
        """Note how it has ended: once."""
        facts, error = running.facts, running.writer.error
        reason = f"it has the {facts.max_bytes} bytes that it was to have at most" if is_limit else ""
        if error is not None:
            reason = str(error)
        ended = replace(running.now(), state=STOPPED if error is None else FAILED, ended=time.time(), error=reason)
        ended = replace(ended, bytes=sum(_size(path) for path in capture_files(self.folder, facts.id)))
        with self._lock:
            if self._running.pop(facts.id, None) is None:
                return
            self._ended[facts.id] = ended
            self.changes += 1
        self._room.set(facts.id, ended.bytes)
        try:
            save(self.folder, ended)
        except OSError as failure:
            log.warning("how the capture %s has ended cannot be written down: %s", facts.name, failure)
        if self.find(facts.id) is None:  # deleted meanwhile
            self._discard(facts.id)
        severity = ERROR if error is not None else WARNING if is_limit else NOTICE
        text = f"{facts.name} ({facts.id}): {reason or f'{ended.packets} packets, {ended.bytes} bytes'}"
        self._events.emit(CAPTURE_ENDED, severity, text=text, by=by)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _check(max_bytes: int, files: int) -> None:
    """Raises LocalProtocolError."""
    if files > MAX_RING:
        raise LocalProtocolError(f"a ring has at most {MAX_RING} files, not {files}")
    if files > 1 and not max_bytes:
        raise LocalProtocolError("a ring needs a size limit, for each of its files: set max_bytes")
    if 0 < max_bytes < LEAST_BYTES:
        raise LocalProtocolError(f"the size limit must be at least {LEAST_BYTES} bytes, not {max_bytes}")
