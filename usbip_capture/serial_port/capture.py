"""The captures that ports of this process write: one writer for each file, however many ports name it."""

from __future__ import annotations

import os
import threading

from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import CaptureError
from usbip_capture.hosts import Server
from usbip_capture.usb.info import DeviceInfo

_lock = threading.Lock()
_open: dict[str, SharedCapture] = {}
#: Files that this process has written and closed. Programs open their port several times: what is added is a further
#: section then, not a new file.
_written: set[str] = set()


class SharedCapture:
    """A PcapWriter and how many ports use it. `channel` gives each device its interface, the same one each time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._users = 0
        self._channels: dict[tuple[Server, str], UsbChannel] = {}
        self._file = None
        if path in _written:
            try:
                self._file = open(path, "ab")  # noqa: SIM115  closed with the writer
            except OSError as error:
                raise CaptureError(f"{path} cannot be written: {error.strerror or error}") from error
        self.writer = PcapWriter(self._file or path)

    @classmethod
    def open(cls, path: str) -> SharedCapture:
        """The capture into this file. Raises CaptureError."""
        whole = os.path.abspath(path)
        with _lock:
            shared = _open.get(whole)
            if shared is None:
                shared = _open[whole] = cls(whole)
            shared._users += 1
            return shared

    def channel(self, server: Server, info: DeviceInfo) -> UsbChannel:
        """The tap for a device, which may be back from a reset as another one."""
        key = (server, info.busid)
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = self.writer.add_usb_interface(info, server=str(server))
        else:
            channel.device(info)
        return channel

    def close(self) -> None:
        """One user less; the last one completes the file. Raises CaptureError if it could not be written."""
        with _lock:
            self._users -= 1
            if self._users:
                return
            del _open[self._path]
            if os.path.isfile(self._path):
                _written.add(self._path)
        try:
            self.writer.close()
        finally:
            if self._file is not None:
                self._file.close()
