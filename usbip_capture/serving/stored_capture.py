"""A stored capture: what is known of it, and its files."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any

from usbip_capture.errors import LocalProtocolError
from usbip_capture.system.replacement import Replacement

log = logging.getLogger(__name__)

RUNNING, STOPPED, FAILED = "running", "stopped", "failed"
_STATES = (RUNNING, STOPPED, FAILED)
_ENDING, _ABOUT = ".pcapng", ".json"
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
_LONGEST = 1 << 20
#: Of one that was running when its server ended.
_CUT_SHORT = "the server has ended before this capture was stopped"


@dataclass(slots=True, frozen=True)
class CaptureFacts:
    """devices: patterns, none for all. max_bytes: of each file, 0 without limit. ring: files that are kept, 0: one.

    files: those that there are. by: who began it.
    started, ended: seconds since 1970, 0 if it runs. packets: in the files; None if nobody has counted them. dropped:
    packets that found no room. bytes: of the files. error: why it has ended, if nobody has stopped it.
    """

    id: str
    name: str
    devices: tuple[str, ...] = ()
    filter: str = ""
    max_bytes: int = 0
    ring: int = 0
    by: str = ""
    state: str = RUNNING
    started: float = 0.0
    ended: float = 0.0
    packets: int | None = 0
    bytes: int = 0
    dropped: int = 0
    files: int = 1
    error: str = ""


def new_id() -> str:
    """Of a capture that begins now."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def capture_path(folder: str, capture_id: str) -> str:
    """Where its packets are, or what the names of its files are made of."""
    return os.path.join(folder, capture_id + _ENDING)


def capture_files(folder: str, capture_id: str) -> list[str]:
    """Its files with packets, the oldest first."""
    beginnings = (capture_id + _ENDING, capture_id + "_")
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [os.path.join(folder, name) for name in names if name.startswith(beginnings) and name.endswith(_ENDING)]


def save(folder: str, facts: CaptureFacts) -> None:
    """Raises OSError."""
    with Replacement(os.path.join(folder, facts.id + _ABOUT)) as file:
        file.write(json.dumps(asdict(facts), indent=1).encode())


def remove(folder: str, capture_id: str) -> None:
    """Its files, and what is known of it. Raises OSError."""
    for path in (*capture_files(folder, capture_id), os.path.join(folder, capture_id + _ABOUT)):
        with suppress(FileNotFoundError):
            os.unlink(path)


def saved(folder: str) -> Iterator[CaptureFacts]:
    """Those of earlier runs, the oldest first; what cannot be understood is logged, and left alone."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        if name.endswith(_ABOUT) and _ID.fullmatch(name.removesuffix(_ABOUT)):
            try:
                yield _loaded(folder, name.removesuffix(_ABOUT))
            except (OSError, ValueError, RecursionError) as error:
                log.warning("%s is not listed: %s", os.path.join(folder, name), error)


def _loaded(folder: str, capture_id: str) -> CaptureFacts:
    """Raises OSError, ValueError."""
    with open(os.path.join(folder, capture_id + _ABOUT), "rb") as file:
        found = json.loads(file.read(_LONGEST))
    if not isinstance(found, dict):
        raise LocalProtocolError("it does not describe a capture")
    known = CaptureFacts(capture_id, "")
    values: dict[str, Any] = {}
    for field in fields(CaptureFacts):
        default = getattr(known, field.name)
        value = found.get(field.name, default)
        values[field.name] = tuple(map(str, value)) if isinstance(default, tuple) and isinstance(value, list) else value
        number = isinstance(default, (int, float)) and isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (number or isinstance(values[field.name], type(default)) or (field.name == "packets" and value is None)):
            raise LocalProtocolError(f"{field.name} is {value!r}")
    paths = capture_files(folder, capture_id)
    values |= {"id": capture_id, "bytes": sum(map(os.path.getsize, paths)), "files": len(paths)}
    if values["state"] not in _STATES or values["state"] == RUNNING:
        at = max(map(os.path.getmtime, paths), default=values["started"])
        values |= {"state": STOPPED, "packets": None, "error": _CUT_SHORT, "ended": at}
    return CaptureFacts(**values)
