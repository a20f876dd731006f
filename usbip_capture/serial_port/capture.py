"""The captures that ports of this process write: one writer for each file, however many ports name it."""

from __future__ import annotations

import os
import threading

from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.sinks import FileSink
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.device import Device
from usbip_capture.errors import CaptureError
from usbip_capture.serial_port.url import PortUrl
from usbip_capture.servers.address import ServerAddress
from usbip_capture.system.forks import disown_in_children
from usbip_capture.tap import Tapped
from usbip_capture.usb.info import DeviceInfo


class _File:
    """A file that ports write to. `lock` is held while its writer is opened or closed: there is one at a time.

    shared: its writer now. written: this process has written and closed it; programs open their port several times,
    and what is added is a further section then, not a new file. of_parent: the process that this one was forked from
    is writing it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.shared: SharedCapture | None = None
        self.written = self.of_parent = False


class _Files:
    """All of them, by path."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[str, _File] = {}
        disown_in_children(self)

    def at(self, path: str) -> _File:
        with self._lock:
            return self._files.setdefault(path, _File())

    def forked(self) -> None:
        disown_in_children(self)  # in those of this process, in turn
        self._lock = threading.Lock()
        for file in self._files.values():
            # A lock that is held: somebody in the parent opens or closes it just now.
            file.of_parent = file.of_parent or file.shared is not None or file.lock.locked()
            file.lock, file.shared = threading.Lock(), None


_files = _Files()


class SharedCapture:
    """A PcapWriter and how many ports use it. `channel` gives each device its interface, the same one each time."""

    def __init__(self, path: str, file: _File) -> None:
        self._path = path
        self._file = file
        self._users = 0
        self._channels: dict[tuple[ServerAddress, str], UsbChannel] = {}
        self.writer = PcapWriter(FileSink(path, append=True) if file.written else path)

    @classmethod
    def open(cls, path: str) -> SharedCapture:
        """The capture into this file; waits while its last user is completing it. Raises CaptureError."""
        if path == "-":
            raise CaptureError("standard output is not for the capture of a port: give a file")
        file = _files.at(os.path.realpath(path))
        with file.lock:
            if file.of_parent:
                raise CaptureError(f"{path} is written by the process that started this one: give another file")
            if file.shared is None:
                file.shared = cls(os.path.abspath(path), file)
            file.shared._users += 1
            return file.shared

    def channel(self, server: ServerAddress, info: DeviceInfo) -> UsbChannel:
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
        with self._file.lock:  # until the file is complete: who opens it again writes behind that
            self._users -= 1
            if self._users or self._file.shared is not self:  # in a child, it is the parent's to complete
                return
            self._file.shared = None
            self._file.written = os.path.isfile(self._path)
            self.writer.close()


def captured(device: Device, url: PortUrl, capture: SharedCapture | None) -> Device:
    """The device that `url` means, with all that it does in `capture`, and offered to others if the URL has that."""
    channel = None if capture is None else capture.channel(url.server, device.info)
    if url.offer:
        from usbip_capture.offering.program import observed

        return observed(device, str(url.server), channel)
    return device if channel is None else Tapped(device, channel)
