"""A device that is opened by libusb, and its idle transfers. The module `usb1` comes from `binding`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from usbip_capture.device import Waiter
from usbip_capture.devices.libusb import statuses
from usbip_capture.devices.libusb.events import EventHandling
from usbip_capture.devices.libusb.slots import Slot, called
from usbip_capture.devices.libusb.statuses import Failure

log = logging.getLogger(__name__)

#: Packets of isochronous transfers that are kept for the next one.
_ISO_SIZES = (8, 32, 128, 1024)
#: Idle transfers that a device keeps, of each size.
_MAX_IDLE = 64
#: How many of them may keep a buffer of more bytes than that: usb1 has the last one until it gets another.
_MAX_LARGE, _LARGE = 16, 64 << 10
#: What stays as it is to the end: what cannot be closed, and in a forked child all of its parent's, as usb1's
#: finalizers would reap the parent's transfers.
kept: list[object] = []


class Handle:
    """An opened device. All methods raise Failure, and block while the device does what it is asked for.

    handle: of `usb1`. forget: called with this when it is closed.
    """

    def __init__(self, usb1: Any, handle: Any, events: EventHandling, forget: Callable[[Handle], None]) -> None:
        self._usb1 = usb1
        self._handle = handle
        self._events = events
        self._forget = forget
        self._idle: dict[int, list[Slot]] = {}

    @property
    def on_event_thread(self) -> bool:
        """Whether this is the thread that transfers finish on, just now."""
        return self._events.is_mine

    def afterwards(self, call: Callable[[], None]) -> bool:
        """On the event thread: True, and `call` is called, once, when it has handled the events that came together."""
        return self._events.afterwards(call)

    def waiter(self, fileno: int) -> Waiter | None:
        """See `Device.waiter`."""
        return self._events.waiter(fileno)

    def leave_waiter(self) -> None:
        """Before this thread waits for a transfer: whoever else can handles events meanwhile."""
        self._events.leave_here()

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
        self._forget(self)

    def keep(self) -> None:
        """Leave it open, with transfers in flight that do not end: closing it would wait for them."""
        kept.extend(self.parts())

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
