"""Stands in for the module `usb1`: libusb, usbfs and the kernel's drivers, over any `Device` of ours.

`SimulatedUsb1()` is the module, `plug(device, ports)` puts a device at it. Callbacks come on the thread that is in
`handleEvents` only, as with libusb. What was seen on a real kernel is done here: what kills URBs, how they look then,
what raises which error.
"""

from __future__ import annotations

import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from tests.fakes.simulated_configuration import Configuration
from tests.fakes.simulated_transfers import (
    COMPLETED,
    ERRORS,
    NO_DEVICE,
    USBError,
    USBTransfer,
    error,
)
from usbip_capture.device import Device
from usbip_capture.usb.descriptors import DeviceDescriptor, read_configuration
from usbip_capture.usb.endpoints import EndpointMap
from usbip_capture.usb.info import Speed
from usbip_capture.usb.setup import DT_DEVICE, clear_halt, get_descriptor, set_configuration, set_interface
from usbip_capture.usb.urb import Completion, Urb

USBFS_MEMORY = 16 << 20
_USBIP_TO_LIBUSB = {Speed.LOW: 1, Speed.FULL: 2, Speed.HIGH: 3, Speed.SUPER: 4, Speed.SUPER_PLUS: 5}


class SimulatedUsb1:
    """The module. memory: bytes that usbfs lets transfers have. calls: those of handles, in order.

    lags: a context lists for ever what there was when it was made, as Debian's libusb does where no udevd runs.
    """

    USBError = USBError
    CAP_HAS_HOTPLUG = 1
    HOTPLUG_EVENT_DEVICE_ARRIVED, HOTPLUG_EVENT_DEVICE_LEFT = 1, 2

    def __init__(self, *, has_hotplug: bool = True) -> None:
        self.has_hotplug = has_hotplug
        self.lags = False
        self.start_error = ""
        self.memory = USBFS_MEMORY
        self.used = 0
        self.attached: list[USBDevice] = []
        self._devices: list[Device] = []
        self.contexts: list[USBContext] = []
        self.calls: list[tuple[Any, ...]] = []
        self.lock = threading.RLock()
        self._libusb1 = SimpleNamespace(get_iso_packet_list=lambda transfer: transfer.iso_packets)
        for name, kind in ERRORS.items():
            setattr(self, f"USBError{name}", kind)

    def loadLibrary(self, library: object = None) -> bool:
        return True

    def hasCapability(self, capability: int) -> bool:
        return self.has_hotplug

    def USBContext(self) -> USBContext:
        context = USBContext(self)
        self.contexts.append(context)
        return context

    def plug(self, device: Device, ports: Sequence[int] = (1,)) -> USBDevice:
        """A device of ours is put at a port; it is configured, as the kernel does that."""
        attached = USBDevice(self, device, ports)
        with self.lock:
            self.attached.append(attached)
            self._devices.append(device)
        device.watch(lambda reason: self.unplug(attached))
        self._announce(attached, True)
        return attached

    def unplug(self, attached: USBDevice) -> None:
        """First the transfers that are pending end with NO_DEVICE, then LEFT is announced."""
        with self.lock:
            if attached.gone:
                return
            attached.gone = True
            self.attached.remove(attached)
            flying = list(attached.flying)
        for transfer in flying:
            transfer.end(NO_DEVICE)
        self._announce(attached, False)

    def close(self) -> None:
        """What was ever plugged in does nothing any more: without it a device works on for as long as the tests run."""
        for device in self._devices:
            device.close()

    def _announce(self, attached: USBDevice, arrived: bool) -> None:
        if self.has_hotplug and not self.lags:
            for context in self.contexts:
                context.post(lambda context=context: context.announce(attached, arrived))  # type: ignore[misc]


class USBContext:
    def __init__(self, module: SimulatedUsb1) -> None:
        self.module = module
        self.listed = list(module.attached)
        self.events: deque[Callable[[], object]] = deque()
        self.changed = threading.Condition()
        self.interrupted = False
        self.held = False
        self.is_open = False
        self.handling = 0
        # One is readable while there is something to handle; made when somebody waits for it.
        self.signals: tuple[socket.socket, socket.socket] | None = None
        self.is_signalled = False
        self.callbacks: dict[object, Callable[[Any, Any, int], object]] = {}
        self._finalizer_dict: dict[int, Any] = {}
        self._USBContext__close = SimpleNamespace(detach=lambda: None)

    def open(self) -> USBContext:
        if self.module.start_error:
            raise error(self.module.start_error)
        self.is_open = True
        return self

    def close(self) -> None:
        assert not self.handling, "libusb aborts the process: another thread handles events"
        self.is_open = False
        for signal in self.signals or ():
            signal.close()

    def getDeviceIterator(self, skip_on_error: bool = False) -> Iterator[USBDevice]:
        return iter(self.listed if self.module.lags else list(self.module.attached))

    def hotplugRegisterCallback(self, callback: Callable[[Any, Any, int], object], flags: int = 1) -> object:
        key = object()
        self.callbacks[key] = callback
        for device in self.module.attached if flags else ():
            callback(self, device, 1)
        return key

    def hotplugDeregisterCallback(self, key: object) -> None:
        self.callbacks.pop(key, None)

    def announce(self, device: USBDevice, arrived: bool) -> None:
        for callback in list(self.callbacks.values()):
            callback(self, device, 1 if arrived else 2)

    def post(self, event: Callable[[], object]) -> None:
        with self.changed:
            self.events.append(event)
            self._notify()

    def hold(self, on: bool) -> None:
        """Callbacks come late: none until this is ended."""
        with self.changed:
            self.held = on
            self._notify()

    def getPollFDList(self) -> list[tuple[int, int]]:
        assert self.is_open, "the context is closed"
        with self.changed:
            if self.signals is None:
                self.signals = socket.socketpair()
                self._notify()
        return [(self.signals[0].fileno(), select.POLLIN)]

    def handleEvents(self) -> None:
        self._handle(None)

    def handleEventsTimeout(self, tv: float = 0) -> None:
        self._handle(tv)

    def _handle(self, timeout: float | None) -> None:
        assert self.is_open, "the context is closed"
        with self.changed:
            assert not self.handling, "two threads handle events"
            self.handling += 1
            try:
                self.changed.wait_for(self._is_due, timeout)
                self.interrupted = False
                events = [] if self.held else list(self.events)
                if events:
                    self.events.clear()
                self._notify()
            finally:
                self.handling -= 1
        for event in events:
            event()

    def _is_due(self) -> bool:
        return bool(self.events and not self.held) or self.interrupted

    def _notify(self) -> None:
        """Wake who handles events, or waits for the descriptor. `changed` is held."""
        self.changed.notify_all()
        if self.signals is not None and self.is_open and self._is_due() != self.is_signalled:
            self.is_signalled = not self.is_signalled
            if self.is_signalled:
                self.signals[1].send(b"!")
            else:
                self.signals[0].recv(1)

    def interruptEventHandler(self) -> None:
        with self.changed:
            self.interrupted = True
            self._notify()


class USBDevice:
    """drivers: interface -> the kernel's driver. holders: interfaces that another process has claimed."""

    def __init__(self, module: SimulatedUsb1, device: Device, ports: Sequence[int]) -> None:
        self.module = module
        self.device = device
        self.ports = tuple(ports)
        self.gone = False
        self.device_descriptor = DeviceDescriptor.parse(_descriptor(device, DT_DEVICE, 0, 18))
        self.parsed = [
            read_configuration(index, lambda kind, at, length: _descriptor(device, kind, at, length))
            for index in range(self.device_descriptor.bNumConfigurations)
        ]
        self.configuration = self.parsed[0].bConfigurationValue if self.parsed else 0
        self.endpoints = EndpointMap(self.parsed[0] if self.parsed else None, device.info.speed)
        self.alternates: dict[int, int] = {}
        self.drivers: dict[int, str] = {}
        self.probes: dict[int, str] = {}  # drivers that the kernel binds when it may
        self.holders: dict[int, str] = {}
        self.claimed: dict[int, USBDeviceHandle] = {}
        self.flying: dict[USBTransfer, None] = {}
        self.open_error = ""
        self.opened = 0
        self.on_open: Callable[[], None] = lambda: None
        self.late: list[Callable[[], None]] = []  # what happens just before an interface is claimed
        self.claim_errors: dict[int, str] = {}
        self.on_reset: Callable[[], None] = lambda: None
        self.before_submit: Callable[[], None] = lambda: None
        self.on_cancel: Callable[[USBTransfer], None] = lambda transfer: None
        self.mutate: Callable[[USBTransfer, int, Completion], tuple[int, Completion]] | None = None
        self._finalizer_dict: dict[int, Any] = {}
        if self.configuration:
            device.run(Urb.control(set_configuration(self.configuration).pack()))

    def bind(self, interface: int, driver: str) -> None:
        """The kernel has a driver for an interface, bound now and whenever it may be."""
        self.probes[interface] = self.drivers[interface] = driver

    def interfaces(self) -> set[int]:
        active = self.endpoints.configuration
        return {interface.bInterfaceNumber for interface in active.interfaces} if active is not None else set()

    def iterConfigurations(self) -> Iterator[Any]:
        for configuration in self.parsed:
            yield Configuration(configuration)

    def getPortNumberList(self) -> list[int]:
        return list(self.ports)

    def getBusNumber(self) -> int:
        return self.device.info.busnum

    def getDeviceAddress(self) -> int:
        return self.device.info.devnum

    def getDeviceSpeed(self) -> int:
        return _USBIP_TO_LIBUSB.get(self.device.info.speed, 0)

    def open(self) -> USBDeviceHandle:
        self.opened += 1
        self.on_open()
        if self.gone:
            raise error("NoDevice")
        if self.open_error:
            raise error(self.open_error)
        return USBDeviceHandle(self.module, self)


def _descriptor(device: Device, kind: int, index: int, length: int) -> bytes:
    return bytes(device.run(Urb.control(get_descriptor(kind, index, 0, length).pack())).data)


class USBDeviceHandle:
    def __init__(self, module: SimulatedUsb1, attached: USBDevice) -> None:
        self.module = module
        self.attached = attached
        self.closed = False
        self._finalizer_dict: dict[int, Any] = {}

    def getDevice(self) -> USBDevice:
        return self.attached

    def _called(self, *call: Any) -> None:
        assert not self.closed, f"{call}: the handle is closed"
        self.module.calls.append(call)
        if self.attached.gone:
            raise error("NoDevice")

    def getConfiguration(self) -> int:
        if self.attached.gone:
            raise error("NoDevice")
        return self.attached.configuration

    def setConfiguration(self, value: int) -> None:
        self._called("set_configuration", value)
        attached = self.attached
        if attached.claimed or attached.drivers or attached.holders:
            raise error("Busy")
        value = max(value, 0)
        if value not in (0, *(parsed.bConfigurationValue for parsed in attached.parsed)):
            raise error("NotFound")
        attached.device.run(Urb.control(set_configuration(value).pack()))
        attached.configuration = value
        attached.endpoints.activate(value)
        attached.alternates.clear()
        attached.drivers.update({n: d for n, d in attached.probes.items() if n in attached.interfaces()})

    def claimInterface(self, interface: int) -> None:
        while self.attached.late:
            self.attached.late.pop()()
        self._called("claim", interface)
        if interface not in self.attached.interfaces():
            raise error("NotFound")
        if interface in self.attached.drivers or interface in self.attached.holders:
            raise error("Busy")
        if interface in self.attached.claim_errors:
            raise error(self.attached.claim_errors[interface])
        self.attached.claimed[interface] = self

    def releaseInterface(self, interface: int) -> None:
        self._called("release", interface)
        if self.attached.claimed.get(interface) is not self:
            raise error("NotFound")
        self._kill(interface, NO_DEVICE)
        del self.attached.claimed[interface]
        self._select(interface, 0)

    def kernelDriverActive(self, interface: int) -> bool:
        return interface in self.attached.drivers

    def detachKernelDriver(self, interface: int) -> None:
        self._called("detach", interface)
        if interface in self.attached.holders and interface not in self.attached.drivers:
            raise error("NotFound")
        if self.attached.drivers.pop(interface, None) is None:
            raise error("NotFound")

    def attachKernelDriver(self, interface: int) -> None:
        self._called("attach", interface)
        if interface in self.attached.claimed or interface in self.attached.drivers:
            raise error("Busy")
        if interface not in self.attached.probes:
            raise error("NotFound")
        self.attached.drivers[interface] = self.attached.probes[interface]

    def setInterfaceAltSetting(self, interface: int, alternate: int) -> None:
        self._called("set_interface", interface, alternate)
        if self.attached.claimed.get(interface) is not self:
            raise error("NotFound")
        self._kill(interface, COMPLETED)
        self._select(interface, alternate)

    def _select(self, interface: int, alternate: int) -> None:
        setup = set_interface(interface, alternate).pack()
        if self.attached.device.run(Urb.control(setup)).status:
            raise error("NotFound")
        self.attached.alternates[interface] = alternate
        self.attached.endpoints.follow(setup)

    def clearHalt(self, endpoint: int) -> None:
        self._called("clear_halt", endpoint)
        if self.attached.endpoints.find(endpoint) is None:
            raise error("NotFound")
        self.attached.device.run(Urb.control(clear_halt(endpoint).pack()))

    def resetDevice(self) -> None:
        self._called("reset")
        self.attached.on_reset()
        for interface in list(self.attached.claimed):
            self._kill(interface, NO_DEVICE)
        value = self.attached.configuration
        self.attached.device.run(Urb.control(set_configuration(value).pack()))
        self.attached.endpoints.activate(value)
        self.attached.alternates.clear()

    def _kill(self, interface: int, status: int) -> None:
        for transfer in list(self.attached.flying):
            endpoint = self.attached.endpoints.find(transfer.endpoint)
            if endpoint is not None and endpoint.bInterfaceNumber == interface:
                transfer.end(status)

    def getTransfer(self, iso_packets: int = 0) -> USBTransfer:
        return USBTransfer(self, iso_packets)

    def close(self) -> None:
        assert not self.attached.flying or self.attached.gone, "libusb would handle events until they end"
        self.module.calls.append(("close",))
        self.closed = True
        for interface in [n for n, handle in self.attached.claimed.items() if handle is self]:
            del self.attached.claimed[interface]
