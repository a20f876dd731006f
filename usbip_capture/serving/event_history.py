"""Events that outlive the server: kept in a bounded file of its name, and remembered again at the next start."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from urllib.parse import quote

from usbip_capture.errors import LocalProtocolError
from usbip_capture.server.described import from_data
from usbip_capture.server.events import RING, Event, Events
from usbip_capture.serving.audit import Output
from usbip_capture.serving.audit_file import AuditFile
from usbip_capture.system.folders import state_folder

log = logging.getLogger(__name__)

#: Bytes of the file, and of the older one beside it: each holds as many events as the server remembers.
MAX_BYTES, _KEPT = 4 << 20, 1
#: Characters of a name that are in that of its file.
_MAX_NAME = 60


def history_path(name: str) -> str:
    """Where those of the server of this name are."""
    return os.path.join(state_folder(), f"events-{quote(name, safe='')[:_MAX_NAME]}.ndjson")


class EventHistory:
    """Gives `events` what was kept, and keeps what is emitted from now until `close`.

    What is damaged is left out, and what cannot be written is logged: that ends nothing else.
    """

    def __init__(self, events: Events, name: str, path: str = "") -> None:
        self._output: Output | None = None
        path = path or history_path(name)
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            events.restore(_read(path))
            self._output = Output(events, AuditFile(path, MAX_BYTES, _KEPT))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            log.warning("events are not kept over the end of the server: %s cannot be used: %s", path, reason)

    def close(self) -> None:
        """Write what waits. May be called again."""
        if self._output is not None:
            output, self._output = self._output, None
            output.close()


def _read(path: str) -> list[Event]:
    """The latest, the oldest of them first. Raises OSError."""
    found: deque[Event] = deque(maxlen=RING)
    for part in (f"{path}.1", path):
        try:
            with open(part, "rb") as file:
                data = file.read(MAX_BYTES * 2)
        except FileNotFoundError:
            continue
        for line in data.splitlines():
            try:
                found.append(from_data(json.loads(line)))
            except (LocalProtocolError, ValueError, RecursionError):  # cut by a crash, or not ours
                continue
    return list(found)
