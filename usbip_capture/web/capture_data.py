"""A capture as the dashboard's interfaces have it."""

from __future__ import annotations

from urllib.parse import urlencode

from usbip_capture.serving.stored_capture import RUNNING, CaptureFacts
from usbip_capture.system.shown import shell_word
from usbip_capture.web.routing import PREFIX


def capture_data(facts: CaptureFacts, base: str = "") -> dict[str, object]:
    """In JSON's types. base: where the dashboard is, for the command that opens it in Wireshark."""
    return {
        "id": facts.id, "name": facts.name, "devices": list(facts.devices), "filter": facts.filter,
        "max_bytes": facts.max_bytes, "ring": facts.ring, "state": facts.state, "started": facts.started,
        "ended": facts.ended, "packets": facts.packets, "bytes": facts.bytes, "dropped": facts.dropped,
        "files": facts.files, "error": facts.error, "by": facts.by, "command": _command(facts, base),
    }  # fmt: skip


def _command(facts: CaptureFacts, base: str) -> str:
    """What shows it in Wireshark, as a line for a shell: while it happens, if it runs."""
    if facts.state == RUNNING:
        query = urlencode(
            [("device", device) for device in facts.devices] + [("filter", facts.filter)] * bool(facts.filter)
        )
        path = f"{PREFIX}/captures/stream" + (f"?{query}" if query else "")
    else:
        path = f"{PREFIX}/captures/{facts.id}/download"
    url = shell_word(base.rstrip("/") + path)
    return f"curl -sN -H 'Authorization: Bearer TOKEN' {url} | wireshark -k -i -"
