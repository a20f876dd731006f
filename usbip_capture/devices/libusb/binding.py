"""libusb, by python-libusb1: all that knows the names of `usb1`, with `handle` and `slots`; imported when first needed.

libusb-package's library is preferred to the system's: that of Debian 12 aborts the process when a device is unplugged
at the wrong moment, and does not notice new devices where no udevd runs.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from usbip_capture.devices.libusb import statuses
from usbip_capture.devices.libusb.events import EventHandling
from usbip_capture.devices.libusb.handle import Handle, kept
from usbip_capture.devices.libusb.slots import called
from usbip_capture.devices.libusb.statuses import Failure
from usbip_capture.errors import UsbipError
from usbip_capture.system.at_exit import close_at_exit
from usbip_capture.system.forks import disown_in_children

log = logging.getLogger(__name__)
#: What it needs of other packages.
PACKAGES = ("usb1", "libusb_package")


class LibusbMissing(UsbipError):
    """There is no libusb on this machine, or nothing that drives it."""


def load() -> Any:
    """The module `usb1`, with its library loaded. Raises LibusbMissing."""
    try:
        usb1 = importlib.import_module("usb1")
    except ImportError as error:
        raise LibusbMissing(
            "devices of this machine need the package libusb1: pip install libusb1 libusb-package; or, where pipx has "
            f"installed this, pipx inject usbip-capture libusb1 libusb-package ({error})"
        ) from error
    try:
        usb1.loadLibrary(_packaged())
    except (OSError, AttributeError) as error:
        raise LibusbMissing(
            "libusb is not installed: pip install libusb-package, or install libusb-1.0 of your system"
            f" (Debian: apt install libusb-1.0-0) ({error})"
        ) from error
    return usb1


def _packaged() -> ctypes.CDLL | None:
    """The library of libusb-package, if that is installed and has one for this system."""
    try:
        path = importlib.import_module("libusb_package").get_library_path()
        if path is None:
            return None
        loader = getattr(ctypes, "WinDLL", ctypes.CDLL)
        library: ctypes.CDLL = loader(str(path), use_errno=True, use_last_error=True)
        return library
    except (ImportError, OSError) as error:
        log.debug("libusb-package cannot be used: %s", error)
        return None


def loaded_version() -> str:
    """Of the library, as in `1.0.30`; empty while nothing of this machine was looked for, or where it is not known."""
    try:
        version = sys.modules[PACKAGES[0]].getVersion()
        return f"{version.major}.{version.minor}.{version.micro}"
    except (KeyError, AttributeError):
        return ""


class Libusb:
    """A context of libusb, with its events, one for the process: `Libusb.shared()`.

    usb1: the module, if it is loaded already. Raises LibusbMissing, and UsbipError when libusb does not start.
    """

    _shared: Libusb | None = None
    _sharing = threading.Lock()

    def __init__(self, usb1: Any = None) -> None:
        self._usb1 = usb1 or load()
        self._context = self._usb1.USBContext()
        try:
            self._context.open()
        except self._usb1.USBError as error:
            raise UsbipError(f"libusb does not start: {error}: is there a USB controller?") from error
        self._closing = self._retired = False
        self._lock = threading.Lock()
        self._handles: set[Handle] = set()
        self._events = EventHandling(self._usb1, self._context)
        disown_in_children(self)
        close_at_exit(self)

    @classmethod
    def shared(cls) -> Libusb:
        """The one of this process, made when first needed."""
        with cls._sharing:
            if cls._shared is None or cls._shared._closing:
                cls._shared = cls()
            return cls._shared

    def renewed(self) -> Libusb:
        """Another one, for a context whose list of devices is out of date; `retire` this one when nobody reads it."""
        renewed = Libusb(self._usb1)
        with Libusb._sharing:
            if Libusb._shared is self:
                Libusb._shared = renewed
        return renewed

    def retire(self) -> None:
        """Close it as soon as nothing is open that was opened by it."""
        with self._lock:
            self._retired = True
            if self._closing or self._handles:
                return
            self._closing = True
        self._end()

    def devices(self) -> list[Any]:
        """The devices of `usb1` that are there, hubs too; those that cannot be read are left out."""
        return list(self._context.getDeviceIterator(skip_on_error=True))

    def open(self, device: Any) -> Handle:
        """Raises Failure, with ERROR_NO_DEVICE when this context is closed: its devices are not to be touched then."""
        self.start()
        with self._lock:
            if self._closing:
                raise Failure(statuses.ERROR_NO_DEVICE)
            handle = Handle(self._usb1, called(self._usb1, device.open), self._events, self._forget)
            self._handles.add(handle)
        self._events.renew()
        return handle

    @property
    def closed(self) -> bool:
        """Whether its devices have to be looked up anew."""
        return self._closing

    def watch(self, on_event: Callable[[Any, bool], None]) -> Callable[[], None] | None:
        """Have `on_event` called with each device that arrives (True) or leaves, on the event thread.

        Returns what ends it; None where this libusb has no hotplug.
        """
        usb1 = self._usb1
        if not usb1.hasCapability(usb1.CAP_HAS_HOTPLUG):
            return None

        def event(_: object, device: Any, kind: int) -> bool:
            try:
                on_event(device, kind == usb1.HOTPLUG_EVENT_DEVICE_ARRIVED)
            except Exception:
                log.exception("what was to be called when a device came or left failed")
            return False

        try:
            registered = self._context.hotplugRegisterCallback(event, flags=0)  # by default it calls at once
        except usb1.USBError:
            return None
        self.start()
        return partial(self._unwatch, registered)

    def _unwatch(self, registered: Any) -> None:
        if not self._closing:
            self._context.hotplugDeregisterCallback(registered)

    def start(self) -> None:
        """Have events handled. Raises UsbipError if there is no thread for it."""
        self._events.start()

    def answers(self, timeout: float) -> bool:
        """Whether who handles events comes round within `timeout` seconds; True if nobody does yet."""
        return self._events.answers(timeout)

    def close(self) -> None:
        """End the thread, then the context: the other way round libusb aborts the process."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._end()

    def _end(self) -> None:
        if self._events.end():
            self._context.close()
        else:
            log.warning("libusb does not return from its events; it stays open")
            kept.append(self._context)

    def _forget(self, handle: Handle) -> None:
        """It was closed."""
        with self._lock:
            self._handles.discard(handle)
        self._events.renew()
        if self._retired:
            self.retire()

    def forked(self) -> None:
        """In a child process: all of it is the parent's."""
        self._closing = True
        self._events.forked()
        Libusb._sharing = threading.Lock()
        Libusb._shared = None
        for thing in (self._context, *(part for handle in self._handles for part in handle.parts())):
            kept.append(thing)
            for finalizer in list(getattr(thing, "_finalizer_dict", {}).values()):
                finalizer.detach()
        getattr(self._context, "_USBContext__close").detach()  # noqa: B009  of usb1, where nothing else leads to it


def is_linux() -> bool:
    """Where sysfs has more than libusb."""
    return sys.platform == "linux"
