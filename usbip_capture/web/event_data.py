"""An event as the dashboard's interfaces have it."""

from __future__ import annotations

from usbip_capture.server.described import as_data, sentence
from usbip_capture.server.events import Event


def event_data(event: Event) -> dict[str, object]:
    """As `server.described.as_data`, but `time` in seconds since 1970, to the microsecond; and its sentence."""
    return {**as_data(event), "time": round(event.time, 6), "sentence": sentence(event)}
