"""Stands in for the module `usb1`: libusb, usbfs and the kernel's drivers, over any `Device` of ours.

`SimulatedUsb1()` is the module, `plug(device, ports)` puts a device at it. Callbacks come on the thread that is in
`handleEvents` only, as with libusb. What was seen on a real kernel is done here: what kills URBs, how they look then,
what raises which error.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from usbip_capture.device import Device, Transfer
from usbip_capture.usb import status as st
from usbip_capture.usb.descriptors import ConfigurationDescriptor, DeviceDescriptor, read_configuration
from usbip_capture.usb.endpoints import EndpointMap
from usbip_capture.usb.info import Speed
from usbip_capture.usb.setup import DT_DEVICE, Setup, clear_halt, get_descriptor, set_configuration, set_interface
from usbip_capture.usb.urb import DIR_IN, Completion, IsoPacket, TransferType, Urb

COMPLETED, ERROR, TIMED_OUT, CANCELLED, STALL, NO_DEVICE, OVERFLOW = range(7)
_STATUS = {
    0: COMPLETED,
    -st.EPIPE: STALL,
    -st.EOVERFLOW: OVERFLOW,
    -st.ECONNRESET: CANCELLED,
    -st.ENOENT: CANCELLED,
    -st.ESHUTDOWN: NO_DEVICE,
    -st.ENODEV: NO_DEVICE,
}
USBFS_MEMORY = 16 << 20
_MAX_CONTROL = 4096
_USBIP_TO_LIBUSB = {Speed.LOW: 1, Speed.FULL: 2, Speed.HIGH: 3, Speed.SUPER: 4, Speed.SUPER_PLUS: 5}


class USBError(Exception):
    value = -99

    def __init__(self, value: int | None = None) -> None:
        super().__init__()
        if value is not None:
            self.value = value

    def __str__(self) -> str:
        return f"{type(self).__name__} [{self.value}]"


_ERRORS: dict[str, type[USBError]] = {
    name: type(f"USBError{name}", (USBError,), {"value": value})
    for name, value in {
        "IO": -1,
        "InvalidParam": -2,
        "Access": -3,
        "NoDevice": -4,
        "NotFound": -5,
        "Busy": -6,
        "Timeout": -7,
        "Overflow": -8,
        "Pipe": -9,
        "Interrupted": -10,
        "NoMem": -11,
        "NotSupported": -12,
        "Other": -99,
    }.items()
}


def error(name: str) -> USBError:
    """A USBError of this kind."""
    return _ERRORS[name]()


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
        self.contexts: list[USBContext] = []
        self.calls: list[tuple[Any, ...]] = []
        self.lock = threading.RLock()
        self._libusb1 = SimpleNamespace(get_iso_packet_list=lambda transfer: transfer.iso_packets)
        for name, kind in _ERRORS.items():
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
            self.changed.notify_all()

    def hold(self, on: bool) -> None:
        """Callbacks come late: none until this is ended."""
        with self.changed:
            self.held = on
            self.changed.notify_all()

    def handleEvents(self) -> None:
        assert self.is_open, "the context is closed"
        with self.changed:
            self.handling += 1
            try:
                self.changed.wait_for(lambda: (self.events and not self.held) or self.interrupted)
                self.interrupted = False
                events = [] if self.held else list(self.events)
                if events:
                    self.events.clear()
            finally:
                self.handling -= 1
        for event in events:
            event()

    def interruptEventHandler(self) -> None:
        with self.changed:
            self.interrupted = True
            self.changed.notify_all()


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
            yield _Configuration(configuration)

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


class _Configuration:
    """As `usb1.USBConfiguration`, of what our parser says."""

    def __init__(self, parsed: ConfigurationDescriptor) -> None:
        self._parsed = parsed
        self.getNumInterfaces = lambda: parsed.bNumInterfaces
        self.getConfigurationValue = lambda: parsed.bConfigurationValue
        self.getDescriptor = lambda: parsed.iConfiguration
        self.getAttributes = lambda: parsed.bmAttributes
        self.getMaxPower = lambda: parsed.bMaxPower * 2
        self.getExtra = lambda: [parsed.extra_descriptors] if parsed.extra_descriptors else []

    def __iter__(self) -> Iterator[list[Any]]:
        numbers = dict.fromkeys(interface.bInterfaceNumber for interface in self._parsed.interfaces)
        for number in numbers:
            yield [_Setting(i) for i in self._parsed.interfaces if i.bInterfaceNumber == number]


class _Setting:
    def __init__(self, parsed: Any) -> None:
        self._parsed = parsed
        self.getNumber = lambda: parsed.bInterfaceNumber
        self.getAlternateSetting = lambda: parsed.bAlternateSetting
        self.getNumEndpoints = lambda: parsed.bNumEndpoints
        self.getClass = lambda: parsed.bInterfaceClass
        self.getSubClass = lambda: parsed.bInterfaceSubClass
        self.getProtocol = lambda: parsed.bInterfaceProtocol
        self.getDescriptor = lambda: parsed.iInterface
        self.getExtra = lambda: [parsed.extra_descriptors] if parsed.extra_descriptors else []

    def __iter__(self) -> Iterator[Any]:
        for endpoint in self._parsed.endpoints:
            yield SimpleNamespace(
                getAddress=lambda e=endpoint: e.bEndpointAddress,
                getAttributes=lambda e=endpoint: e.bmAttributes,
                getMaxPacketSize=lambda e=endpoint: e.wMaxPacketSize,
                getInterval=lambda e=endpoint: e.bInterval,
                getExtra=lambda e=endpoint: [e.extra_descriptors] if e.extra_descriptors else [],
            )


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


class USBTransfer:
    def __init__(self, handle: USBDeviceHandle, size: int) -> None:
        self.handle = handle
        self.size = size
        self.iso_packets: list[SimpleNamespace] = []
        self._USBTransfer__transfer = self  # where the binding finds the packets
        self.endpoint = 0
        self.submitted = False
        self.add_zero_packet = False
        self._status = self._actual = 0
        self._callback: Callable[[USBTransfer], object] = lambda transfer: None
        self._type = TransferType.CONTROL
        self._buffer: Any = bytearray()
        self._setup = b""
        self._transfer: Transfer | None = None
        self._ended = True
        self._lock = threading.Lock()

    def setControl(
        self, kind: int, request: int, value: int, index: int, content: int | bytes, callback: Callable[..., object]
    ) -> None:
        self._set(TransferType.CONTROL, kind & DIR_IN, content, callback)
        self._setup = Setup(kind, request, value, index, len(self._buffer)).pack()

    def setBulk(self, endpoint: int, content: int | bytearray, callback: Callable[..., object]) -> None:
        self._set(TransferType.BULK, endpoint, content, callback)

    def setInterrupt(self, endpoint: int, content: int | bytearray, callback: Callable[..., object]) -> None:
        self._set(TransferType.INTERRUPT, endpoint, content, callback)

    def setIsochronous(
        self,
        endpoint: int,
        content: int | bytearray,
        callback: Callable[..., object],
        iso_transfer_length_list: Sequence[int] = (),
    ) -> None:
        self._set(TransferType.ISOCHRONOUS, endpoint, content, callback)
        if any(length <= 0 for length in iso_transfer_length_list):
            raise ValueError("Negative/null length transfers are not possible.")
        if len(iso_transfer_length_list) > self.size or sum(iso_transfer_length_list) > len(self._buffer):
            raise ValueError("too many packets, or too long")
        self.iso_packets = [SimpleNamespace(length=n, actual_length=0, status=0) for n in iso_transfer_length_list]

    def _set(self, kind: TransferType, endpoint: int, content: Any, callback: Callable[..., object]) -> None:
        if self.submitted:
            raise ValueError("Cannot alter a submitted transfer")
        self._type, self.endpoint, self._callback = kind, endpoint, callback
        self._buffer = content if isinstance(content, bytearray) else bytearray(content)

    def setAddZeroPacket(self, on: bool) -> None:
        self.add_zero_packet = on

    def getBuffer(self) -> Any:
        return self._buffer

    def getStatus(self) -> int:
        return self._status

    def getActualLength(self) -> int:
        return self._actual

    def isSubmitted(self) -> bool:
        return self.submitted

    def submit(self) -> None:
        attached, module = self.handle.attached, self.handle.module
        assert not self.submitted, "Cannot submit a submitted transfer"
        attached.before_submit()
        if attached.gone:
            raise error("NoDevice")
        assert not self.handle.closed
        if self._type == TransferType.CONTROL and len(self._buffer) > _MAX_CONTROL:
            raise error("InvalidParam")
        if self._type != TransferType.CONTROL:
            endpoint = attached.endpoints.find(self.endpoint)
            if endpoint is None:
                raise error("IO")
            if endpoint.bInterfaceNumber in attached.holders or endpoint.bInterfaceNumber in attached.drivers:
                raise error("IO")
            if any(packet.length > endpoint.packet_size for packet in self.iso_packets):
                raise error("InvalidParam")
        with module.lock:
            if module.used + len(self._buffer) > module.memory:
                raise error("NoMem")
            module.used += len(self._buffer)
            attached.flying[self] = None
        self.submitted, self._ended = True, False
        self._transfer = Transfer(self._urb(), self._done)
        try:
            attached.device.submit(self._transfer)
        except Exception:  # noqa: BLE001  a device fails, libusb does not
            self.end(ERROR, Completion(0))

    def _urb(self) -> Urb:
        inward = self.endpoint & DIR_IN
        data = b"" if inward else bytes(self._buffer)
        if self._type == TransferType.CONTROL:
            return Urb.control(self._setup, data)
        packets, at = [], 0
        for packet in self.iso_packets:
            packets.append(IsoPacket(at, packet.length))
            at += packet.length
        length = at if packets else len(self._buffer)
        return Urb(self._type, self.endpoint, length, data[:length], packets=packets, interval=8)

    def _done(self, completion: Completion) -> None:
        self.end(_STATUS.get(completion.status, ERROR), completion)

    def end(self, status: int, completion: Completion | None = None) -> None:
        """The kernel is through with it; its callback comes from whoever handles events."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        attached, module = self.handle.attached, self.handle.module
        if completion is None:
            completion = Completion(0, packets=[IsoPacket(0, 0, 0, -st.EXDEV) for _ in self.iso_packets])
            transfer = self._transfer
            if transfer is not None:
                attached.device.abandon(transfer)
        if attached.mutate is not None:
            status, completion = attached.mutate(self, status, completion)
        self._status, self._actual = status, completion.actual_length
        if self.endpoint & DIR_IN and not self.iso_packets:
            self._buffer[: len(completion.data)] = completion.data
        at = taken = 0
        for packet, result in zip(self.iso_packets, completion.packets, strict=False):
            packet.actual_length, packet.status = result.actual_length, _STATUS.get(result.status, ERROR)
            if self.endpoint & DIR_IN:
                self._buffer[at : at + packet.actual_length] = completion.data[taken : taken + packet.actual_length]
                taken += packet.actual_length
            at += packet.length
        if self.iso_packets:
            self._actual = 0
        with module.lock:
            attached.flying.pop(self, None)
            module.used -= len(self._buffer)
        module.contexts[-1].post(self._call_back)

    def _call_back(self) -> None:
        self.submitted = False
        transfer = self._transfer
        self._callback(self)
        if self._transfer is transfer:  # it was not submitted again
            self._transfer = None

    def cancel(self) -> None:
        self.handle.attached.on_cancel(self)
        transfer = self._transfer
        if not self.submitted or self._ended or transfer is None:
            raise error("NotFound")
        self.handle.attached.device.cancel(transfer)
        if not self._ended and self._type == TransferType.CONTROL:
            self.end(CANCELLED)
