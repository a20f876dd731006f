"""What drivers capture: a file for each test in the folder that they name, with a mark for each step of labgrid.

The drivers of a folder share the capture of a test. A driver that outlives a test is in the next capture from its
beginning: the descriptors that were read before come first. Outside of tests the capture is called as the target.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from dataclasses import dataclass

from labgrid.step import StepEvent, steps

from usbip_capture.capture.sinks import FileSink
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import CaptureError, UsbipError
from usbip_capture.offering.program import program_offer
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.sessions.session import DeviceSession
from usbip_capture.sessions.session_capture import DeviceChoice, SessionCapture
from usbip_capture.system.shown import one_line

log = logging.getLogger(__name__)

_ENDING = ".pcapng"
#: Set by pytest while a test runs: its name, and its phase in parentheses. Ref: pytest, PYTEST_CURRENT_TEST
_CURRENT_TEST = "PYTEST_CURRENT_TEST"
#: Characters of a file's name, and of a mark.
_MAX_NAME, _MAX_MARK = 150, 200
_CONSOLE = "console"


@dataclass(slots=True, frozen=True, eq=False)
class Member:
    """A driver whose device is captured. target: the name of its target."""

    server: ServerAddress
    selector: Selector
    target: str


class _Chosen(DeviceChoice):
    """The devices of the members."""

    def __init__(self) -> None:
        super().__init__()
        self.members: list[Member] = []

    def includes(self, session: DeviceSession) -> bool:
        info = session.exported.info
        return any(session.server == str(one.server) and one.selector.matches(info) for one in self.members)


class _Captures:
    """Those in one folder, or the one in a file. They are closed and opened as tests and drivers come and leave."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._chosen = _Chosen()
        self._path = self._test = ""
        self._writer: PcapWriter | None = None
        self._capture: SessionCapture | None = None
        self._written: set[str] = set()

    @property
    def in_use(self) -> bool:
        return bool(self._chosen.members)

    def join(self, member: Member, test: str) -> None:
        """Capture its device. Raises CaptureError, CannotListen; then it is not a member."""
        self._chosen.members.append(member)
        try:
            self.switch(test)
        except UsbipError:
            self._chosen.members.remove(member)
            raise

    def leave(self, member: Member) -> None:
        """Capture its device no more; the last one completes the file. Raises CaptureError."""
        self._chosen.members.remove(member)
        if not self.in_use:
            self.close()

    def switch(self, test: str) -> None:
        """Into the file of this test, or of none. Raises CaptureError, CannotListen."""
        path = self._path_of(test)
        if path != self._path and self.in_use:
            try:
                self.close()
            finally:  # what has become of the last one does not matter to this one
                self._open(path)
        if self._writer is not None and test not in ("", self._test):
            self._test = test
            self.mark(f"test {test} begins")

    def _open(self, path: str) -> None:
        """Capture into this file. Raises CaptureError, CannotListen."""
        sessions = program_offer().sessions
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except OSError as error:
            raise CaptureError(f"{path} cannot be written: {error.strerror or error}: name another folder") from error
        # A test that runs again, or a driver that comes back: a further section of the file.
        writer = PcapWriter(FileSink(path, append=path in self._written))
        self._written.add(path)
        capture = SessionCapture(writer, self._chosen, in_program=True, hindsight=False)
        self._path, self._writer, self._capture = path, writer, capture
        sessions.join(capture)

    def mark(self, text: str) -> None:
        """A comment on this moment."""
        if self._writer is not None:
            self._writer.comment(f"labgrid: {one_line(text)[:_MAX_MARK]}")

    def close(self) -> None:
        """Complete the file. Raises CaptureError."""
        writer, capture = self._writer, self._capture
        self._path = self._test = ""
        self._writer = self._capture = None
        if capture is not None:
            program_offer().sessions.leave(capture)
        if writer is not None:
            writer.close()

    def _path_of(self, test: str) -> str:
        if self._place.endswith(_ENDING):
            return self._place
        name = test or (self._chosen.members[0].target if self.in_use else "")
        return os.path.join(self._place, file_name(name) + _ENDING)


_lock = threading.RLock()
_folders: dict[str, _Captures] = {}


def join(place: str, member: Member) -> None:
    """Capture the device of a driver into a folder, or into a file that ends with .pcapng. Raises UsbipError."""
    with _lock:
        if not any(captures.in_use for captures in _folders.values()):
            steps.subscribe(_step)
        path = os.path.abspath(place)
        try:
            _folders.setdefault(path, _Captures(path)).join(member, _current_test())
        finally:
            _unsubscribe()


def leave(place: str, member: Member) -> None:
    """Capture it no more. Raises CaptureError if the capture could not be written."""
    with _lock:
        try:
            _folders[os.path.abspath(place)].leave(member)
        finally:
            _unsubscribe()


def test_begins(test: str) -> None:
    """From now on captures are of this test. What cannot be written is logged: tests go on."""
    with _lock:
        for captures in _folders.values():
            try:
                captures.switch(test)
            except UsbipError as error:
                log.error("%s", error)


def mark(text: str) -> None:
    """A comment in all captures."""
    with _lock:
        for captures in _folders.values():
            captures.mark(text)


def file_name(test: str) -> str:
    """Of a test's name, without what file systems and shells do not take: `test_boot.py-test_console-main`."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", test).strip("-.")[:_MAX_NAME] or "capture"


def _current_test() -> str:
    return os.environ.get(_CURRENT_TEST, "").rpartition(" (")[0]


def _unsubscribe() -> None:
    """Where nobody captures any more. The lock is held."""
    if not any(captures.in_use for captures in _folders.values()):
        steps.unsubscribe(_step)


def _step(event: StepEvent) -> None:
    """A step of labgrid begins or ends; those of a console are the transfers themselves."""
    step = event.step
    if step.tag == _CONSOLE:
        return
    what = f"{type(step.source).__name__}.{step.title}"
    if event.data.get("state") == "start":
        given = ", ".join(f"{name}={value!r}" for name, value in (step.args or {}).items())
        mark(f"step {what}({given})")
    elif step.exception is not None:
        mark(f"step {what} failed: {step.exception}")
