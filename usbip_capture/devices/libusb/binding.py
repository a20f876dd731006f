"""libusb, by python-libusb1: with `slots`, all that knows the names of `usb1`, which is imported when first needed.

libusb-package's library is preferred to the system's: that of Debian 12 aborts the process when a device is unplugged
at the wrong moment, and does not notice new devices where no udevd runs.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from usbip_capture.devices.libusb import statuses
from usbip_capture.devices.libusb.slots import Failure, Slot, called
from usbip_capture.errors import UsbipError
from usbip_capture.system.at_exit import close_at_exit
from usbip_capture.system.forks import disown_in_children

log = logging.getLogger(__name__)
#: What it needs of other packages.
PACKAGES = ("usb1", "libusb_package")

#: Seconds that the event thread may need to come back from libusb.
_STOP_PATIENCE = 2.0
#: Packets of isochronous transfers that are kept for the next one.
_ISO_SIZES = (8, 32, 128, 1024)
#: Idle transfers that a device keeps, of each size.
_MAX_IDLE = 64
#: How many of them may keep a buffer of more bytes than that: usb1 has the last one until it gets another.
_MAX_LARGE, _LARGE = 16, 64 << 10
#: What stays as it is to the end: what cannot be closed, and in a forked child all of its parent's, as usb1's
#: finalizers would reap the parent's transfers.
_kept: list[object] = []


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
    """A context of libusb and the thread that handles its events, one for the process: `Libusb.shared()`.

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
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._handles: set[Handle] = set()
        self._afterwards: dict[Callable[[], None], None] = {}  # of the event thread
        self._asked = False  # whether the event thread comes round
        self._turned = threading.Condition()
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
            handle = Handle(self, self._usb1, called(self._usb1, device.open))
            self._handles.add(handle)
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
        """Have the event thread. Raises UsbipError if none can be had."""
        with self._lock:
            if self._thread is not None or self._closing:
                return
            thread = threading.Thread(target=self._handle_events, name="libusb-events", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise UsbipError(f"no thread for libusb: {error}: end other programs") from error
            self._thread = thread

    @property
    def on_event_thread(self) -> bool:
        """Whether this is the thread that all callbacks are called on."""
        return threading.current_thread() is self._thread

    def afterwards(self, call: Callable[[], None]) -> bool:
        """See `Handle.afterwards`."""
        if threading.current_thread() is not self._thread:
            return False
        self._afterwards[call] = None
        return True

    def answers(self, timeout: float) -> bool:
        """Whether the event thread comes round within `timeout` seconds; True if there is none yet."""
        with self._turned:
            if self._thread is None or self._closing:
                return True
            self._asked = True
            self._context.interruptEventHandler()
            return self._turned.wait_for(lambda: not self._asked or self._closing, timeout)

    def _handle_events(self) -> None:
        usb1 = self._usb1
        while not self._closing:
            if self._asked:
                with self._turned:
                    self._asked = False
                    self._turned.notify_all()
            try:
                self._context.handleEvents()
            except usb1.USBErrorInterrupted:
                pass
            except usb1.USBError as error:
                log.error("libusb cannot handle events: %s", error)
                threading.Event().wait(0.1)
            while self._afterwards:
                call, _ = self._afterwards.popitem()
                try:
                    call()
                except Exception:
                    log.exception("what was to be done after events of libusb failed")

    def close(self) -> None:
        """End the thread, then the context: the other way round libusb aborts the process."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._end()

    def _end(self) -> None:
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._context.interruptEventHandler()
            thread.join(_STOP_PATIENCE)
            if thread.is_alive():
                log.warning("libusb does not return from its events; it stays open")
                _kept.append(self._context)
                return
        self._context.close()

    def forgotten(self, handle: Handle) -> None:
        """A handle was closed."""
        with self._lock:
            self._handles.discard(handle)
        if self._retired:
            self.retire()

    def forked(self) -> None:
        """In a child process: all of it is the parent's."""
        self._closing = True
        Libusb._sharing = threading.Lock()
        Libusb._shared = None
        for thing in (self._context, *(part for handle in self._handles for part in handle.parts())):
            _kept.append(thing)
            for finalizer in list(getattr(thing, "_finalizer_dict", {}).values()):
                finalizer.detach()
        getattr(self._context, "_USBContext__close").detach()  # noqa: B009  of usb1, where nothing else leads to it


class Handle:
    """An opened device. All methods raise Failure, and block while the device does what it is asked for."""

    def __init__(self, libusb: Libusb, usb1: Any, handle: Any) -> None:
        self._libusb = libusb
        self._usb1 = usb1
        self._handle = handle
        self._idle: dict[int, list[Slot]] = {}

    @property
    def on_event_thread(self) -> bool:
        """Whether this is the thread that transfers finish on."""
        return self._libusb.on_event_thread

    def afterwards(self, call: Callable[[], None]) -> bool:
        """On the event thread: True, and `call` is called, once, when it has handled the events that came together."""
        return self._libusb.afterwards(call)

    def parts(self) -> Iterator[Any]:
        """The objects of `usb1` behind it."""
        yield self._handle
        yield self._handle.getDevice()

    def configuration(self) -> int:
        """bConfigurationValue of the active one, 0 for none."""
        return int(called(self._usb1, self._handle.getConfiguration))

    def set_configuration(self, value: int) -> None:
        """0 for none. No interface may be claimed."""
        called(self._usb1, self._handle.setConfiguration, value or -1)

    def claim(self, interface: int) -> None:
        """Have an interface for this process."""
        called(self._usb1, self._handle.claimInterface, interface)

    def release(self, interface: int) -> None:
        """Its alternate setting is 0 again."""
        called(self._usb1, self._handle.releaseInterface, interface)

    def has_driver(self, interface: int) -> bool:
        """Whether the kernel's driver is bound to an interface; False where that is unknown."""
        try:
            return bool(called(self._usb1, self._handle.kernelDriverActive, interface))
        except Failure:
            return False

    def detach(self, interface: int) -> bool:
        """Unbind the kernel's driver; False if it had none, or the system knows no such thing."""
        try:
            called(self._usb1, self._handle.detachKernelDriver, interface)
        except Failure as failure:
            if failure.code in (statuses.ERROR_NOT_FOUND, statuses.ERROR_NOT_SUPPORTED):
                return False
            raise
        return True

    def attach(self, interface: int) -> None:
        """Let the kernel bind a driver again."""
        called(self._usb1, self._handle.attachKernelDriver, interface)

    def set_interface(self, interface: int, alternate: int) -> None:
        """Select an alternate setting of a claimed interface."""
        called(self._usb1, self._handle.setInterfaceAltSetting, interface, alternate)

    def clear_halt(self, endpoint: int) -> None:
        """CLEAR_FEATURE(ENDPOINT_HALT), and the host's data toggle with it."""
        called(self._usb1, self._handle.clearHalt, endpoint)

    def reset(self) -> None:
        """A port reset. ERROR_NOT_FOUND: the device came back as another one, and this handle is dead."""
        called(self._usb1, self._handle.resetDevice)

    def close(self) -> None:
        """Never raises. No transfer may be in flight: libusb would handle events until they end."""
        idle, self._idle = self._idle, {}
        for slots in idle.values():
            for slot in slots:
                slot.close()
        try:
            self._handle.close()
        except self._usb1.USBError as error:
            log.debug("a device cannot be closed: %s", error)
        self._libusb.forgotten(self)

    def keep(self) -> None:
        """Leave it open, with transfers in flight that do not end: closing it would wait for them."""
        _kept.extend(self.parts())

    def slot(self, packets: int = 0) -> Slot:
        """A transfer for so many isochronous packets, perhaps used before."""
        size = next((size for size in _ISO_SIZES if size >= packets), packets) if packets else 0
        try:
            return self._idle[size].pop()
        except (KeyError, IndexError):
            return Slot(self._usb1, called(self._usb1, self._handle.getTransfer, size), size)

    def recycle(self, slot: Slot) -> None:
        """It has ended, and nobody looks at it any more."""
        idle = self._idle.setdefault(slot.size, [])
        if len(slot.buffer) > _LARGE and len(idle) >= _MAX_LARGE:
            slot.close()
        slot.owner = slot.landed = None
        slot.buffer = b""
        if len(idle) < _MAX_IDLE:
            idle.append(slot)


def is_linux() -> bool:
    """Where sysfs has more than libusb."""
    return sys.platform == "linux"
