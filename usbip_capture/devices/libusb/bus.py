"""The devices of this machine: which there are, and when one comes or leaves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from usbip_capture.devices.libusb.binding import Libusb
from usbip_capture.devices.libusb.local_device import LocalDevice
from usbip_capture.errors import UsbipError

log = logging.getLogger(__name__)

#: Seconds between two looks where libusb cannot tell of devices that come and leave.
POLL_INTERVAL = 1.0


class LocalBus:
    """All buses of this machine; one for the process: `LocalBus.shared()`. Raises LibusbMissing.

    on_detached: called with a device and its interfaces before the kernel's drivers are unbound from those;
    on_attached: with the device when they are bound again. For who has to mend it should this process be killed.
    """

    on_detached: Callable[[LocalDevice, list[int]], None] = staticmethod(lambda device, interfaces: None)
    on_attached: Callable[[LocalDevice], None] = staticmethod(lambda device: None)
    _shared: LocalBus | None = None
    _sharing = threading.Lock()

    def __init__(self, libusb: Libusb | None = None, sysfs: str = "/sys/bus/usb/devices") -> None:
        self._libusb = libusb or Libusb.shared()
        self._sysfs = sysfs
        self._lock = threading.Lock()
        self._watchers: dict[object, Callable[[], None]] = {}
        self._unwatch: Callable[[], None] | None = None
        self._opened: list[tuple[Any, Callable[[], None]]] = []
        self._closed = threading.Event()

    @classmethod
    def shared(cls) -> LocalBus:
        """The one of this process, made when first needed."""
        with cls._sharing:
            if cls._shared is None or cls._shared._closed.is_set():
                cls._shared = cls()
            return cls._shared

    def devices(self) -> list[LocalDevice]:
        """Those that are there, hubs too but for the controllers' own, by busid."""
        found = []
        for raw in self._libusb.devices():
            try:
                device = LocalDevice(self, self._libusb, raw, self._sysfs)
            except UsbipError as error:
                log.debug("a device cannot be read: %s", error)
                continue
            if device.ports:
                found.append(device)
        return sorted(found, key=lambda device: (device.info.busnum, device.ports))

    def find(self, busid: str) -> LocalDevice | None:
        """The one at this port path."""
        return next((device for device in self.devices() if device.info.busid == busid), None)

    def watch(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Have `on_change` called, from any thread, when devices have come or left; returns what ends that."""
        key = object()
        with self._lock:
            self._watchers[key] = on_change
        self.listen()

        def unwatch() -> None:
            with self._lock:
                self._watchers.pop(key, None)

        return unwatch

    def listen(self) -> None:
        """Notice what comes and leaves from now on."""
        with self._lock:
            if self._unwatch is not None or self._closed.is_set():
                return
            self._unwatch = lambda: None
        unwatch = self._libusb.watch(self._changed)
        if unwatch is None:
            threading.Thread(target=self._poll, name="libusb-poll", daemon=True).start()
        else:
            self._unwatch = unwatch

    def opened(self, raw: Any, on_left: Callable[[], None]) -> Callable[[], None]:
        """Have `on_left` called when this device leaves; returns what ends that."""
        entry = (raw, on_left)
        with self._lock:
            self._opened.append(entry)
        self.listen()

        def forget() -> None:
            with self._lock:
                if entry in self._opened:
                    self._opened.remove(entry)

        return forget

    def _changed(self, raw: Any, arrived: bool) -> None:
        """On the event thread."""
        if not arrived:
            with self._lock:
                left = [on_left for device, on_left in self._opened if device == raw]
            for on_left in left:
                on_left()
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            watchers = list(self._watchers.values())
        for on_change in watchers:
            try:
                on_change()
            except Exception:
                log.exception("what was to be called when devices came or left failed")

    def _poll(self) -> None:
        known = self._libusb.devices()
        while not self._closed.wait(POLL_INTERVAL):
            now = self._libusb.devices()
            for raw in known:
                if raw not in now:
                    self._changed(raw, False)
            if any(raw not in known for raw in now):
                self._tell()
            known = now

    def close(self) -> None:
        """Nobody is told any more; opened devices stay open."""
        self._closed.set()
        if self._unwatch is not None:
            self._unwatch()
