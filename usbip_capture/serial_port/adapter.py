"""One imported device with serial ports, for as long as any of its ports is open; imported again if it is lost."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

from usbip_capture.device import Device
from usbip_capture.devices.serial_number import read_string
from usbip_capture.errors import DeviceError, DeviceNotFound, UsbipError
from usbip_capture.host.handle import DeviceHandle
from usbip_capture.host.reimport import retry
from usbip_capture.uart.ports import Port, find_ports, no_ports

log = logging.getLogger(__name__)


class PortUser(ABC):
    """An open port, as its adapter knows it. Called from the adapter's threads."""

    @abstractmethod
    def attached(self, device: Device, port: Port) -> None:
        """The device is back, and this is the port in it. Raises UsbipError if it does not do as it should."""

    @abstractmethod
    def detached(self, reason: str) -> None:
        """The device is disconnected; waiting for it to come back."""

    @abstractmethod
    def lost(self, reason: str) -> None:
        """The device is gone for good."""


class Adapter:
    """`device`, configured, with its `ports`. Raises DeviceNotFound for a device that has none.

    users: the open port of each bInterfaceNumber. reconnect: seconds to wait for the device when it is lost.
    captured, offered: whether it is. strangers: busids where another device of the same kind was found instead.
    reimport: imports the device, or what it has become. on_end: called when the last port was closed.
    """

    def __init__(
        self,
        device: Device,
        where: str,
        reimport: Callable[[Adapter], Device],
        on_end: Callable[[Adapter], None],
    ) -> None:
        self.where = where
        self.users: dict[int, PortUser] = {}
        self.reconnect = 0.0
        self.captured = self.offered = False
        self.serial = ""
        self.strangers: set[str] = set()
        self._reimport = reimport
        self._on_end = on_end
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._reviving: threading.Thread | None = None
        self._adopt(device)

    def _adopt(self, device: Device) -> None:
        self.device = device
        try:
            handle = DeviceHandle(device)
            handle.ensure_configured()
            configuration = handle.endpoints.configuration
            descriptor = handle.device_descriptor()
            self.serial = read_string(device, descriptor.iSerialNumber)
        except DeviceError as error:
            raise DeviceNotFound(f"device {device.info} of {self.where} cannot be read: {error}") from error
        if not device.alive:  # then the serial number is not known, rather than empty
            raise DeviceNotFound(f"device {device.info} of {self.where} cannot be read: it was lost meanwhile")
        if configuration is None:
            raise DeviceNotFound(f"device {device.info} of {self.where} has no configuration, and no serial port in it")
        self.descriptor, self.configuration = descriptor, configuration
        self.ports = find_ports(descriptor, configuration, device.info.speed)
        if not self.ports:
            raise DeviceNotFound(f"device {device.info} of {self.where} has {no_ports(configuration)}")

    def watch(self) -> None:
        """Notice that the device is disconnected, even while no port is read."""
        device = self.device
        device.watch(lambda reason: self.device_lost(device, reason))

    def free_port(self, interface: int | None) -> Port | None:
        """The port at this interface, or the first that nobody uses; None if it is in use. Raises DeviceNotFound."""
        if interface is None:
            return next((port for port in self.ports if port.interface not in self.users), None)
        for port in self.ports:
            if port.interface == interface:
                return None if interface in self.users else port
        raise DeviceNotFound(
            f"device {self.device.info} of {self.where} has no serial port at interface {interface}: it has "
            + ", ".join(map(str, self.ports))
        )

    def release(self, user: PortUser | None = None) -> None:
        """This port was closed, if any; the device is released with the last one."""
        with self._lock:
            self.users = {interface: other for interface, other in self.users.items() if other is not user}
            if self.users:
                return
            self._closing.set()
            reviving = self._reviving
        self._on_end(self)
        self.device.close()
        if reviving is not None and reviving.is_alive() and reviving is not threading.current_thread():
            reviving.join()

    # -- a device that is disconnected

    def device_lost(self, device: Device, reason: str) -> None:
        """Called by whoever notices it, on any thread and perhaps several times."""
        with self._lock:
            if device is not self.device or self._reviving is not None or self._closing.is_set():
                return
            users = list(self.users.values())
            if self.reconnect:
                self._reviving = threading.Thread(
                    target=self._revive, args=(reason,), name="usbip-serial-reconnect", daemon=True
                )
        for user in users:
            (user.detached if self.reconnect else user.lost)(reason)
        if self._reviving is not None:
            try:
                self._reviving.start()
            except RuntimeError as error:
                self._give_up(f"{reason}; it is not waited for: {error}")

    def _revive(self, reason: str) -> None:
        before = self.device.info
        self.device.close()

        def attempt() -> None:
            try:
                self._bring_back()
            except UsbipError:
                raise
            except Exception as error:  # nobody else would end the wait of those that use it
                log.exception("%s could not be used again", before)
                raise UsbipError(f"{error!r}") from error

        try:
            retry(attempt, self.reconnect, pause=self._closing.wait)
        except UsbipError as error:
            if not self._closing.is_set():
                self._give_up(f"{reason}; it did not come back within {self.reconnect:g} s: {error}")
                return
        else:
            log.warning("device %s was lost (%s) and is back as %s", before, reason, self.device.info)
        with self._lock:
            self._reviving = None
        if self._closing.is_set():
            self.device.close()
        else:
            self.watch()

    def _bring_back(self) -> None:
        """Raises UsbipError; the device is released then."""
        before, serial, old = self.device, self.serial, list(self.ports)
        device = self._reimport(self)
        try:
            self._adopt(device)
            if device.info.busid != before.info.busid and self.serial != serial:
                self.strangers.add(device.info.busid)
                raise DeviceNotFound(f"device {device.info} of {self.where} is another one: its serial number differs")
            with self._lock:
                users = dict(self.users)
            places = self._successors(list(users), old)
            for interface, user in users.items():
                user.attached(device, places[interface])
            with self._lock:  # without those that were closed meanwhile
                open_now = set(map(id, self.users.values()))
                self.users = {places[i].interface: user for i, user in users.items() if id(user) in open_now}
        except BaseException:
            self.device, self.serial, self.ports = before, serial, old
            device.close()
            raise

    def _successors(self, interfaces: list[int], old: list[Port]) -> dict[int, Port]:
        """What the ports at `interfaces` have become: those at the same interfaces, or else of the same numbers.

        Raises DeviceNotFound when there are too few.
        """
        now = {port.interface: port for port in self.ports}
        if all(interface in now for interface in interfaces):
            return {interface: now[interface] for interface in interfaces}
        indexes = {port.interface: index for index, port in enumerate(old)}
        if len(interfaces) == 1:
            return {interfaces[0]: self.ports[min(indexes[interfaces[0]], len(self.ports) - 1)]}
        if any(indexes[interface] >= len(self.ports) for interface in interfaces):
            raise DeviceNotFound(
                f"device {self.device.info} of {self.where} has {len(self.ports)} serial ports only, "
                f"and {len(interfaces)} were open"
            )
        return {interface: self.ports[indexes[interface]] for interface in interfaces}

    def _give_up(self, reason: str) -> None:
        with self._lock:
            self._reviving = None
            users = list(self.users.values())
        for user in users:
            user.lost(reason)
