"""A USB/IP server of recorded devices; each import begins its device's recording anew."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from usbip_capture.errors import DeviceNotFound, UsbipError
from usbip_capture.net.transport import SocketTransport
from usbip_capture.replayed.device import LOOSE, STALL, ReplayedDevice
from usbip_capture.replayed.recording import Recording, chosen, read_recordings
from usbip_capture.server.exporter import Server

#: What the name of a host begins with that is a recording.
PREFIX = "replay:"


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

        def opened(recording: Recording) -> ReplayedDevice:
            device = ReplayedDevice(recording, match=match, speed=speed, diverging=diverging, mask=mask)
            if on_open is not None:
                on_open(device)
            return device

        for recording in recordings:
            self.add(recording.info, partial(opened, recording))


_servers: dict[tuple[str, int, int], ReplayServer] = {}
_opening = threading.Lock()


def connect_replay(path: str) -> socket.socket:
    """A connection to a server in this process that has the devices of a capture. Raises CaptureError."""
    path = os.path.abspath(path)
    try:
        status = os.stat(path)
        key = path, status.st_mtime_ns, status.st_size
    except OSError as error:
        raise UsbipError(f"{path} cannot be replayed: {error.strerror or error}") from error
    with _opening:
        server = _servers.get(key)
        if server is None:
            server = _servers[key] = ReplayServer(read_recordings(path))
    ours, theirs = socket.socketpair()
    try:
        server.serve_transport(SocketTransport(theirs, PREFIX + path))
    except BaseException:
        ours.close()
        raise
    return ours


def choose(recordings: list[Recording], devices: Iterable[str]) -> list[Recording]:
    """Those that are named, all if none is. Raises DeviceNotFound."""
    wanted = list(devices)
    if not recordings:
        raise DeviceNotFound("the capture has no device")
    return [chosen(recordings, device) for device in wanted] if wanted else recordings
