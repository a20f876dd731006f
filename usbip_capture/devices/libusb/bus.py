"""The devices of this machine: which there are, and when one comes or leaves."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from usbip_capture.devices.libusb.binding import Libusb
from usbip_capture.devices.libusb.hubs import SUPERSPEED, OpenedHub, switch_power
from usbip_capture.devices.libusb.local_device import LocalDevice
from usbip_capture.devices.sysfs import address, hub_ports
from usbip_capture.errors import DeviceNotFound, UsbipError
from usbip_capture.system.at_exit import close_at_exit
from usbip_capture.system.forks import disown_in_children, set_event

log = logging.getLogger(__name__)

#: Seconds between two looks at which devices there are: some libusbs have no hotplug, some containers no events.
POLL_INTERVAL = 1.0
#: Seconds for a device to be released by who has just closed it.
_RELEASE_PATIENCE = 5.0
#: Seconds that libusb may lag behind the kernel.
_LAG = 0.2

#: Bus and address: of a device from its plug-in to its unplugging.
Key: TypeAlias = "tuple[int, int]"


class LocalBus:
    """All buses of this machine; one for the process: `LocalBus.shared()`. Raises LibusbMissing.

    on_detached: called with a device and its interfaces before the kernel's drivers are unbound from those;
    on_attached: with the device when they are bound again. For who has to mend it should this process be killed.
    libusb, sysfs: those of another machine, which is simulated.
    """

    on_detached: Callable[[LocalDevice, list[int]], None] = staticmethod(lambda device, interfaces: None)
    on_attached: Callable[[LocalDevice], None] = staticmethod(lambda device: None)

    _shared: LocalBus | None = None
    _sharing = threading.Lock()

    def __init__(self, libusb: Libusb | None = None, sysfs: str = "/sys/bus/usb/devices") -> None:
        self._libusb = libusb or Libusb.shared()
        self._sysfs = sysfs
        self._listing = threading.Lock()  # held while the devices of a context are read: it stays open
        self._lock = threading.Lock()  # which the event thread takes: nobody may wait for that with it
        self._released = threading.Condition(self._lock)
        self._watchers: dict[object, Callable[[], None]] = {}
        self._opened: dict[Key, Callable[[], None]] = {}
        self._arrivals: dict[Key, float] = {}  # seen while we looked
        self._unwatch: Callable[[], None] | None = None
        self._poller: threading.Thread | None = None
        self._known: frozenset[Key] = frozenset()
        self._compared: frozenset[Key] = frozenset()  # with what libusb lists
        self._closed = threading.Event()
        disown_in_children(self)
        close_at_exit(self)

    @classmethod
    def shared(cls) -> LocalBus:
        """The one of this process, made when first needed."""
        with cls._sharing:
            if cls._shared is None or cls._shared._closed.is_set():
                cls._shared = cls()
            return cls._shared

    def forked(self) -> None:
        """In a child process: it is the parent's."""
        self._closed = set_event()
        LocalBus._sharing = threading.Lock()
        LocalBus._shared = None

    def devices(self) -> list[LocalDevice]:
        """Those that are there, hubs too but for the controllers' own, by busid."""
        with self._reading() as libusb:
            found = self._listed(libusb)
        return sorted(found, key=lambda device: (device.info.busnum, device.ports))

    def _listed(self, libusb: Libusb) -> list[LocalDevice]:
        found = []
        there = _in_sysfs(self._sysfs)
        for raw in libusb.devices():
            if there is not None and _key(raw) not in there:
                continue  # it has left, which this libusb has not noticed
            try:
                device = LocalDevice(self, libusb, raw, self._sysfs)
            except UsbipError as error:
                log.debug("a device cannot be read: %s", error)
                continue
            if device.ports:
                found.append(device)
        return found

    def find(self, busid: str) -> LocalDevice | None:
        """The one at this port path."""
        return next((device for device in self.devices() if device.info.busid == busid), None)

    def hub_ports(self) -> dict[str, int]:
        """How many ports each hub has, as `devices.sysfs` has it; empty where the system does not show that."""
        return hub_ports(Path(self._sysfs))

    def switch_power(self, busid: str, on: bool) -> None:
        """Switch the power of a port. Raises DeviceNotFound, UsbipError: its hub cannot do that."""
        switch_power(self._open_hub, self._sysfs, busid, on)

    def _open_hub(self, busnum: int, ports: tuple[int, ...]) -> OpenedHub | None:
        """The hub at this place, the controllers' own too. Raises Failure."""
        with self._reading() as libusb:
            for raw in libusb.devices():
                if (raw.getBusNumber(), tuple(raw.getPortNumberList())) == (busnum, ports):
                    return OpenedHub(libusb.open(raw), raw.getDeviceSpeed() >= SUPERSPEED)
        return None

    def answers(self, timeout: float) -> bool:
        """Whether the thread that all devices need comes round within `timeout` seconds."""
        return self._libusb.answers(timeout)

    def watch(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Have `on_change` called, from any thread, when devices have come or left; returns what ends that.

        It may be called on libusb's event thread, and must not wait for a device then. Raises UsbipError if there is
        no thread for it.
        """
        key = object()
        with self._lock:
            self._watchers[key] = on_change
        self.listen()

        def unwatch() -> None:
            with self._lock:
                self._watchers.pop(key, None)

        return unwatch

    def close(self) -> None:
        """Nobody is notified any more; opened devices stay open."""
        self._closed.set()
        with self._lock:
            self._watchers.clear()
            unwatch, self._unwatch = self._unwatch, None
        if unwatch is not None:
            unwatch()

    # -- for devices

    def opening(self, key: Key, on_left: Callable[[], None]) -> Callable[[], None]:
        """Have `on_left` called when this device leaves; returns what ends that.

        Raises DeviceNotFound if it is open already; waits for one that is just being closed.
        """
        with self._released:
            if not self._released.wait_for(lambda: key not in self._opened, _RELEASE_PATIENCE):
                raise DeviceNotFound("it is in use by this program itself")
            self._opened[key] = on_left
        self.listen()

        def forget() -> None:
            with self._released:
                if self._opened.get(key) is on_left:
                    del self._opened[key]
                    self._released.notify_all()

        return forget

    def seconds_since_arrival(self, key: Key) -> float | None:
        """None if it was there before anybody looked."""
        at = self._arrivals.get(key)
        return None if at is None else time.monotonic() - at

    def listen(self) -> None:
        """Notice what comes and leaves from now on."""
        with self._lock:
            if self._poller is not None or self._closed.is_set():
                return
            self._known = self._now()
            self._unwatch = self._libusb.watch(self._event)
            self._poller = threading.Thread(target=self._poll, name="usb-devices", daemon=True)
            try:
                self._poller.start()
            except RuntimeError as error:
                self._poller = None
                raise UsbipError(f"no thread to watch the USB: {error}: end other programs") from error

    # -- noticing

    def _event(self, raw: Any, arrived: bool) -> None:
        """On the event thread, at once; the poller does the same a little later, where there are no events."""
        key = _key(raw)
        with self._lock:
            if (key in self._known) == arrived:
                return
            self._known = self._known | {key} if arrived else self._known - {key}
        self._changed(arrived={key} if arrived else set(), left=set() if arrived else {key})

    def _poll(self) -> None:
        while not self._closed.wait(POLL_INTERVAL):
            try:
                now = self._now()
            except Exception:
                log.exception("the devices of this machine cannot be listed")
                continue
            with self._lock:
                known, self._known = self._known, now
            self._changed(set(now - known), set(known - now))

    def _changed(self, arrived: set[Key], left: set[Key]) -> None:
        if not arrived and not left:
            return
        with self._lock:
            for key in left:
                self._arrivals.pop(key, None)
            self._arrivals.update(dict.fromkeys(arrived, time.monotonic()))
            calls = [self._opened[key] for key in left if key in self._opened]
            calls += self._watchers.values()
        for call in calls:
            try:
                call()
            except Exception:
                log.exception("what was to be called when devices came or left failed")

    def _now(self) -> frozenset[Key]:
        """Which devices there are: from sysfs, which never lags behind, where that is."""
        known = _in_sysfs(self._sysfs)
        if known is not None:
            return known
        return frozenset(_key(raw) for raw in self._libusb.devices())

    @contextmanager
    def _reading(self) -> Iterator[Libusb]:
        """While its devices are read: it lists what there is, and is not closed."""
        outdated = None
        try:
            with self._listing:
                outdated = self._refresh()
                yield self._libusb
        finally:
            if outdated is not None:
                outdated.retire()

    def _refresh(self) -> Libusb | None:
        """Some libusb's list stays as it was when it began, where no udevd runs: begin anew; what is to be retired."""
        deadline = time.monotonic() + _LAG
        while self._lacks_devices():
            if time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            outdated = self._libusb
            renewed = outdated.renewed()
            with self._lock:
                self._libusb = renewed
                unwatch = self._unwatch
            if unwatch is not None:
                unwatch()
                unwatch = renewed.watch(self._event)
                with self._lock:
                    self._unwatch = unwatch
            self._compared = _in_sysfs(self._sysfs) or frozenset()  # once for each device that cannot be read
            return outdated
        return None

    def _lacks_devices(self) -> bool:
        there = _in_sysfs(self._sysfs)
        if there is None or there == self._compared:
            return False
        if there <= {_key(raw) for raw in self._libusb.devices()}:
            self._compared = there
            return False
        return True


def _key(raw: Any) -> Key:
    return int(raw.getBusNumber()), int(raw.getDeviceAddress())


def _in_sysfs(folder: str) -> frozenset[Key] | None:
    """The devices that Linux knows; None where there is no such folder."""
    try:
        names = [path for path in Path(folder).iterdir() if ":" not in path.name]
    except OSError:
        return None
    return frozenset(found for path in names if (found := address(path)) is not None)
