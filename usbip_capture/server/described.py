"""An event as a sentence, and as data for files and scripts."""

from __future__ import annotations

from usbip_capture.errors import LocalProtocolError
from usbip_capture.net.listening import Peer
from usbip_capture.server import events
from usbip_capture.server.events import Event
from usbip_capture.syslog.severity import SEVERITIES
from usbip_capture.syslog.timestamps import format_rfc3339, parse_rfc3339
from usbip_capture.system.shown import one_line

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
    events.SIGNED_IN: "has signed in to the dashboard",
    events.SIGN_IN_REFUSED: "may not sign in to the dashboard",
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
    events.SETTINGS_CHANGED: "settings were changed",
    events.TOKEN_ADDED: "somebody more may sign in to the dashboard",
    events.TOKEN_REMOVED: "somebody may not sign in to the dashboard any more",
    events.LEASED: "reserved:",
    events.LEASE_ENDED: "not reserved any more:",
    events.CAPTURE_STARTED: "a capture has begun",
    events.CAPTURE_ENDED: "a capture has ended",
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


def from_data(data: object) -> Event:
    """The event that `as_data` has made this of. Raises LocalProtocolError for what it has not made."""
    if not isinstance(data, dict):
        raise LocalProtocolError("an event must be an object")
    stamp = parse_rfc3339(_text(data, "time"))
    severity = _text(data, "severity")
    if stamp is None or severity not in SEVERITIES or not _text(data, "kind"):
        raise LocalProtocolError("an event must have a time, a kind and a severity")
    host = _text(data, "client")
    peer = Peer("" if host == "local" else host, _number(data, "port"), identity=_text(data, "identity"))
    texts = {name: _text(data, name) for name in ("busid", "device", "rule", "text", "by")}
    return Event(
        _text(data, "kind"), stamp // 1000 / 1e6, SEVERITIES.index(severity), peer if host else None, **texts,
        times=_number(data, "times") or 1, number=_number(data, "number"),
    )  # fmt: skip


def _text(data: dict[str, object], name: str) -> str:
    value = data.get(name, "")
    if not isinstance(value, str):
        raise LocalProtocolError(f"{name} of an event must be text")
    return value


def _number(data: dict[str, object], name: str) -> int:
    value = data.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise LocalProtocolError(f"{name} of an event must be a whole number")
    return value
