"""A USB/IP server of recorded devices; each import begins its device's recording anew."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from usbip_capture.errors import CaptureError, DeviceNotFound
from usbip_capture.net.transport import SocketTransport
from usbip_capture.replayed.device import LOOSE, STALL, ReplayedDevice
from usbip_capture.replayed.recording import Recording, chosen, read_recordings
from usbip_capture.server.exporter import Server

#: What the name of a host begins with that is a recording.
PREFIX = "replay:"
#: Where a device descriptor has the numbers of strings. Ref: USB 2.0, table 9-8
_PRODUCT, _SERIAL = 15, 16


class ReplayServer(Server):
    """Serves `recordings`; the other arguments are those of `ReplayedDevice`. on_open: called with each import's."""

    def __init__(
        self,
        recordings: Iterable[Recording],
        *,
        match: str = LOOSE,
        speed: float = 1.0,
        diverging: str = STALL,
        mask: Sequence[bytes] = (),
        on_open: Callable[[ReplayedDevice], None] | None = None,
    ) -> None:
        super().__init__()
        self.recordings = list(recordings)

        def opened(recording: Recording) -> ReplayedDevice:
            device = ReplayedDevice(recording, match=match, speed=speed, diverging=diverging, mask=mask)
            if on_open is not None:
                on_open(device)
            return device

        for recording in self.recordings:
            self.add(recording.info, partial(opened, recording))


_servers: dict[str, tuple[tuple[int, int], ReplayServer]] = {}
_opening = threading.Lock()


def connect_replay(path: str) -> socket.socket:
    """A connection to a server in this process that has the devices of a capture. Raises CaptureError."""
    path = os.path.abspath(path)
    server = _server_of(path)
    ours, theirs = socket.socketpair()
    try:
        server.serve_transport(SocketTransport(theirs, PREFIX + path))
    except BaseException:
        ours.close()
        raise
    return ours


def names_of(path: str) -> dict[str, tuple[str, str]]:
    """Product and serial number of each busid of a capture. Raises CaptureError."""
    server = _server_of(os.path.abspath(path))
    return {one.info.busid: (one.known.string(_PRODUCT), one.known.string(_SERIAL)) for one in server.recordings}


def _server_of(path: str) -> ReplayServer:
    """The one of this process; the file is read again when it has changed. Raises CaptureError."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CaptureError(f"{path} cannot be replayed: {reason or error}") from error
    state = status.st_mtime_ns, status.st_size
    with _opening:
        known = _servers.get(path)
        if known is None or known[0] != state:
            known = _servers[path] = state, ReplayServer(read_recordings(path))
    return known[1]


def choose(recordings: list[Recording], devices: Iterable[str]) -> list[Recording]:
    """Those that are named, all if none is. Raises DeviceNotFound."""
    wanted = list(devices)
    if not recordings:
        raise DeviceNotFound("the capture has no device")
    found = {one.info.busid: one for one in (chosen(recordings, device) for device in wanted)}
    return list(found.values()) if wanted else recordings
