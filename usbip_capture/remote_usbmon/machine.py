"""The other machine, reached by ssh: what it has, and captures of its devices."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from usbip_capture.errors import LocalProtocolError, RemoteProtocolError, ServerLost, ServerUnreachable
from usbip_capture.net.address import SSH
from usbip_capture.net.child import ChildTransport
from usbip_capture.net.ssh import open_shell, target_of
from usbip_capture.net.transport import CarrierFailed
from usbip_capture.remote_usbmon.scripts import GONE, MARKER, STOPPED, TOOL_ENDED, survey_script
from usbip_capture.remote_usbmon.survey import Survey, parse_survey
from usbip_capture.servers.address import ServerAddress
from usbip_capture.system.shown import one_line

#: Seconds for a shell to start and to look around, beside what connecting takes.
_ANSWER_TIME = 10.0
#: Bytes before MARKER, which login scripts print, and of what is printed behind it.
_MAX_BEFORE, _MAX_SURVEY = 64 << 10, 4 << 20
_CHUNK = 256 << 10
#: Seconds between two looks whether it is to be ended.
_LOOK_AGAIN = 0.2
#: Seconds in which a script that is to end can still print something.
_ENDING = 1.0
#: As tcpdump and dumpcap report it at their end.
_DROPPED = re.compile(r"^(\d+) packets? dropped by kernel|dropped on interface .*: \d+/(\d+)")


class RemoteMachine:
    """server: with the scheme ssh; its port is not used. Raises LocalProtocolError for another scheme."""

    def __init__(self, server: ServerAddress) -> None:
        if server.scheme != SSH:
            raise LocalProtocolError(
                f"mode usbmon reaches the other machine by ssh: give ssh://{server.host}"
                if not server.is_built_in and not server.scheme
                else f"mode usbmon reaches the other machine by ssh: give ssh://HOST, not {server}"
            )
        self._server = server
        #: As it is called in sentences and in captures, and as it is typed after `ssh`.
        self.name = server.place[0]
        self.target = target_of(server.host, server.user, server.ssh_port)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: set[RemoteShell] = set()

    def survey(self, awaited: str = "") -> Survey:
        """What is there. awaited: a busid; waits, without a limit, until it is there. Raises UsbipError."""
        shell = self.run(survey_script(awaited))
        try:
            deadline = None if awaited else time.monotonic() + _ANSWER_TIME
            text = shell.read_all(_MAX_SURVEY, deadline)
        finally:
            self.close(shell)
        return parse_survey(self.name, text.decode("utf-8", "replace"))

    def run(self, script: str) -> RemoteShell:
        """`script`, once it has printed MARKER, which is waited for within bounded time. Raises UsbipError."""
        server = self._server
        shell = RemoteShell(self.name, self._stopping.is_set)
        shell.transport = open_shell(
            server.host, server.timeout, shell.explain, user=server.user, ssh_port=server.ssh_port
        )
        with self._lock:
            self._open.add(shell)
        try:
            shell.begin(script)
        except BaseException:
            self.close(shell)
            raise
        return shell

    def close(self, shell: RemoteShell) -> None:
        """End it; not while another thread reads from it."""
        with self._lock:
            self._open.discard(shell)
        shell.transport.close()

    def stop(self) -> None:
        """Every script ends soon, and what reads from it sees the end; from any thread."""
        self._stopping.set()
        with self._lock:
            for shell in self._open:
                shell.end()


class RemoteShell:
    """A script that runs there. status: how it has ended, None before. reason: the sentence about its end.

    dropped: packets that usbmon had no room for.
    """

    transport: ChildTransport

    def __init__(self, name: str, is_stopping: Callable[[], bool]) -> None:
        self.status: int | None = None
        self.dropped = 0
        self.reason = ""
        self._name = name
        self._is_stopping = is_stopping
        self._rest = b""
        self._end_by = math.inf

    def explain(self, lines: list[str], status: int | None) -> str:
        """As `open_shell` asks for it."""
        self.status = status
        self.dropped = sum(int(found[1] or found[2]) for line in lines if (found := _DROPPED.search(line)))
        last = one_line(lines[-1]).rstrip(".") if lines else ""
        reason = last or f"it ended with status {status}"
        if status == GONE:
            self.reason = f"the device of {self._name} was unplugged"
        elif status == TOOL_ENDED:
            self.reason = f"the capture on {self._name} has ended: {reason}"
        else:
            self.reason = f"the shell of {self._name} has failed: {reason}: see whether `sh` works there"
        return self.reason

    def begin(self, script: str) -> None:
        """Send it, and wait for MARKER. Raises UsbipError."""
        marker, before = f"{MARKER}\n".encode(), b""
        deadline = time.monotonic() + self.transport.opening + _ANSWER_TIME
        try:
            self.transport.send([script.encode()])
            while marker not in before:
                data = self._receive(deadline)
                if not data:
                    raise ServerUnreachable(f"the shell of {self._name} has ended without an answer")
                before += data
                if len(before) > _MAX_BEFORE + _CHUNK:
                    raise RemoteProtocolError(f"the login shell of {self._name} prints too much: make it be silent")
        except TimeoutError:
            raise ServerUnreachable(f"the shell of {self._name} does not answer: try ssh in a terminal") from None
        except OSError as error:
            raise ServerUnreachable(
                f"{error}" if isinstance(error, CarrierFailed) else f"{self._name}: {error}"
            ) from error
        self._rest = before.partition(marker)[2]

    def read(self) -> bytes:
        """What is printed next; empty at the end, and where the connection is lost, as `reason` reports then."""
        rest, self._rest = self._rest, b""
        try:
            return rest or self._receive(None)
        except OSError as error:
            self.reason = str(error)
            return b""

    def read_all(self, most: int, deadline: float | None) -> bytes:
        """Up to its end. Raises UsbipError."""
        parts, size = [self._rest], len(self._rest)
        try:
            while data := self._receive(deadline):
                parts.append(data)
                size += len(data)
                if size > most:
                    raise RemoteProtocolError(
                        f"{self._name} answers with more than {most >> 20} MiB: what is its shell?"
                    )
        except TimeoutError:
            raise ServerUnreachable(f"the shell of {self._name} does not answer in time: try again") from None
        except OSError as error:
            raise ServerLost(str(error)) from error
        return b"".join(parts)

    @property
    def has_failed(self) -> bool:
        """Whether it has ended by a fault that does not pass by itself."""
        return self.status not in (None, GONE, STOPPED)

    def end(self) -> None:
        """Have it see the end of its input: it ends then, and what it still prints can be read."""
        with suppress(OSError):
            self.transport.end_sending()

    def _receive(self, deadline: float | None) -> bytes:
        """The next bytes; none at the end, which is no failure once we are stopping. Raises OSError, TimeoutError."""
        while True:
            try:
                return self.transport.receive(_CHUNK, _LOOK_AGAIN)
            except TimeoutError:
                now = time.monotonic()
                if self._is_stopping():
                    self._end_by = min(self._end_by, now + _ENDING)
                if now > self._end_by:
                    return b""
                if deadline is not None and now > deadline:
                    raise
            except OSError:
                if self._is_stopping():
                    return b""
                raise
