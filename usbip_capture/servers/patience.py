"""How long servers are waited for where that is not given: longer on a slow link or a busy machine."""

from __future__ import annotations

import os

from usbip_capture.errors import LocalProtocolError

TIMEOUT_VARIABLE = "USBIP_CAPTURE_CONNECT_TIMEOUT"


def connect_timeout(default: float) -> float:
    """Seconds for connecting, and for a server's answers: those of the environment, else `default`.

    Raises LocalProtocolError for what is not a time to wait.
    """
    text = os.environ.get(TIMEOUT_VARIABLE, "").strip()
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise LocalProtocolError(f"{TIMEOUT_VARIABLE} is {text!r}: give seconds, such as 10, or nothing")
    return seconds
