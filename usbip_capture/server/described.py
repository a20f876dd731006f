"""An event as a sentence, and as data for files and scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usbip_capture.server import events
from usbip_capture.syslog.severity import SEVERITIES
from usbip_capture.syslog.timestamps import format_rfc3339
from usbip_capture.system.shown import one_line

if TYPE_CHECKING:
    from usbip_capture.server.events import Event

#: Of each kind; one that is not here is its own name. Of clients it follows "client ADDRESS".
_CLIENT = {
    events.CONNECTED: "has connected",
    events.LISTED: "has listed the devices",
    events.IMPORTED: "has imported",
    events.REFUSED: "is refused",
    events.RELEASED: "has released",
    events.ENDED: "is disconnected",
    events.DISCONNECTED: "has left",
    events.PAIRED: "is paired",
}
_OTHER = {
    events.PLUGGED: "plugged in:",
    events.UNPLUGGED: "unplugged:",
    events.EXPORTED: "exported:",
    events.WITHDRAWN: "not exported any more:",
    events.RESET: "reset:",
    events.POWER: "power of the port",
    events.EXPORTS_CHANGED: "what is to be exported was changed",
    events.ACCESS_CHANGED: "who may have which device was changed",
    events.LEASED: "reserved:",
    events.LEASE_ENDED: "not reserved any more:",
    events.HOOK_DONE: "hook called:",
    events.HOOK_FAILED: "hook failed:",
    events.STARTED: "the server has started",
    events.STOPPED: "the server has stopped",
    events.LOST: "events are missing here",
}


def sentence(event: Event) -> str:
    """For people, without anything that a terminal acts upon."""
    peer = event.peer
    if peer is not None:
        identity = f" ({peer.identity})" if peer.identity else ""
        parts = [f"client {peer}{identity} {_CLIENT.get(event.kind, event.kind)}"]
    else:
        parts = [_OTHER.get(event.kind, event.kind)]
    if event.busid or event.device:
        parts += ["from"] if event.kind == events.ENDED else []
        parts += filter(None, (event.busid, f"({event.device})" if event.device else ""))
    text = " ".join(parts) + (f": {event.text}" if event.text else "")
    notes = [f"by {event.by}"] if event.by else []
    if event.rule:
        notes.append(f"rule: {event.rule}")
    if event.times > 1:
        notes.append(f"{event.times} times")
    return one_line(text + (f" ({'; '.join(notes)})" if notes else ""))


def as_data(event: Event) -> dict[str, object]:
    """In JSON's types; what is empty is left out. time: RFC 3339, in UTC. client: `local` within this machine."""
    peer = event.peer
    found: dict[str, object] = {
        "time": format_rfc3339(event.time),
        "kind": event.kind,
        "severity": SEVERITIES[event.severity],
        "number": event.number,
    }
    if peer is not None:
        found |= {"client": peer.host or "local", "port": peer.port, "identity": peer.identity}
    found |= {"busid": event.busid, "device": event.device, "rule": event.rule, "text": event.text, "by": event.by}
    if event.times > 1:
        found["times"] = event.times
    return {name: value for name, value in found.items() if value not in ("", 0)}
