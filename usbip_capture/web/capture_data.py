"""What is known of a capture, as the page has it."""

from __future__ import annotations

from urllib.parse import urlencode

from usbip_capture.serving.stored_capture import RUNNING, CaptureFacts
from usbip_capture.system.shown import shell_word

_API = "/api/v1"


def capture_data(facts: CaptureFacts, base: str = "") -> dict[str, object]:
    """In JSON's types. base: where the dashboard is, for the command that opens it in Wireshark, if that is known."""
    return {
        "id": facts.id, "name": facts.name, "devices": list(facts.devices), "filter": facts.filter,
        "max_bytes": facts.max_bytes, "ring": facts.ring, "state": facts.state, "started": facts.started,
        "ended": facts.ended or None, "packets": facts.packets, "bytes": facts.bytes, "dropped": facts.dropped,
        "files": facts.files, "error": facts.error, "by": facts.by, "command": _command(facts, base) if base else "",
    }  # fmt: skip


def _command(facts: CaptureFacts, base: str) -> str:
    """What shows it in Wireshark, as a line for a shell: while it happens, if it runs."""
    if facts.state == RUNNING:
        query = urlencode(
            [("device", device) for device in facts.devices] + [("filter", facts.filter)] * bool(facts.filter)
        )
        path = f"{_API}/captures/stream" + (f"?{query}" if query else "")
    else:
        path = f"{_API}/captures/{facts.id}/download"
    url = shell_word(base.rstrip("/") + path)
    return f"curl -sN -H 'Authorization: Bearer TOKEN' {url} | wireshark -k -i -"
