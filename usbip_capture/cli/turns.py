"""Who has reserved a device of a running server until when, as people read it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from usbip_capture.cli.commanding import rows
from usbip_capture.system.local_time import local_time

if TYPE_CHECKING:
    from usbip_capture.live.messages import Message


def reserved(device: Message) -> str:
    """Who has reserved a device of the server, and who comes next; empty if nobody has."""
    turns = rows(device, "leases")
    if not turns:
        return ""
    following = "".join(f", then {turn.get('client')}" for turn in turns[1:])
    return f"for {turns[0].get('client')} until {moment(turns[0], 'until', time.time())}{following}"


def moment(turn: Message, name: str, now: float) -> str:
    """When a turn begins or ends, as people read it."""
    seconds = turn.get(name)
    return local_time(seconds, now) if isinstance(seconds, (int, float)) else ""
