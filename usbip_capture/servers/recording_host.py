"""`replay:FILE` as a host: a capture whose devices are replayed in this process, without a server."""

from __future__ import annotations

import os
import socket

from usbip_capture.errors import LocalProtocolError

#: What the name of such a host begins with.
REPLAY = "replay:"


def recording_host(text: str) -> str:
    """The host as it is kept, with the whole path; empty if `text` is another host. Raises LocalProtocolError."""
    head, path = text[: len(REPLAY)], text[len(REPLAY) :]
    if head.lower() != REPLAY:
        return ""
    if path in ("", "-"):
        raise LocalProtocolError(f"{text} does not name a capture: write replay:FILE")
    return REPLAY + os.path.abspath(os.path.expanduser(path))


def connect_to_recording(host: str) -> socket.socket:
    """A connection to its devices. Raises UsbipError."""
    from usbip_capture.replayed.server import connect_replay

    return connect_replay(host[len(REPLAY) :])


def names_in_recording(host: str) -> dict[str, tuple[str, str]]:
    """Product and serial number of each busid. Raises UsbipError."""
    from usbip_capture.replayed.server import names_of

    return names_of(host[len(REPLAY) :])
