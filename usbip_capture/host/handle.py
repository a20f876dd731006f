"""The host's side of one imported device: its descriptors, its settings, control transfers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from usbip_capture.device import UNLINK_GRACE, Device, Transfer, after_unlink
from usbip_capture.errors import (
    DeviceError,
    DeviceGone,
    RemoteProtocolError,
    RequestRefused,
    TransferFailed,
    TransferTimeout,
)
from usbip_capture.usb.descriptors import ConfigurationDescriptor, DeviceDescriptor, read_configuration
from usbip_capture.usb.endpoints import Endpoint, EndpointMap
from usbip_capture.usb.setup import (
    DT_DEVICE,
    PLAIN_DATA,
    PORT_RESET,
    SET_FEATURE,
    SetConfiguration,
    SetInterface,
    Setup,
    classify,
    get_configuration,
    get_descriptor,
    set_configuration,
    set_interface,
)
from usbip_capture.usb.status import EINVAL, ENODEV, ENOENT, GONE, TIMED_OUT, UNLINKED, status_name
from usbip_capture.usb.urb import DIR_IN, FLAG_DIR_IN, Buffer, Completion, TransferType, Urb
from usbip_capture.wire.structs import MAX_TRANSFER

log = logging.getLogger(__name__)

#: Seconds for the control transfers that this class makes of its own accord.
CONTROL_TIMEOUT = 5.0
#: Seconds that a server has at least to unlink a URB; else twice its round trip, up to UNLINK_GRACE.
_MIN_GRACE = 0.003
#: Seconds that a device may be missing after it was released.
_RESET_PATIENCE = 5.0
#: Seconds that the reset of a port takes.
_RESET_TIME = 0.2
_VENDOR_SPECIFIC = 0xFF
_CONTROL = TransferType.CONTROL


class DeviceHandle:
    """One imported device as its host sees it. Descriptors are read once, when asked for.

    max_transfer: bytes of one bulk or interrupt URB; lowered when the server refuses that many.
    claims: who has claimed each interface. grace: seconds that the server has to unlink a URB.
    reimport: imports the device again and tries for so many seconds; None if that cannot be done.
    reconnect: a device that is lost is imported again by its next use, within so many seconds; 0 leaves it lost.
    """

    def __init__(
        self,
        device: Device,
        *,
        max_transfer: int = MAX_TRANSFER,
        reimport: Callable[[float], Device] | None = None,
        reconnect: float = 0.0,
    ) -> None:
        self.device = device
        self.max_transfer = max_transfer
        self.claims: dict[int, object] = {}
        self._reimport = reimport
        self._reconnect = reconnect
        self.endpoints = EndpointMap(None, device.info.speed)
        self.alternates: dict[int, int] = {}
        self._descriptor: DeviceDescriptor | None = None
        self._configurations: dict[int, ConfigurationDescriptor] = {}
        self._value: int | None = None
        self._configured = False  # it was set since the import, perhaps to none
        self.grace = UNLINK_GRACE
        self._lock = threading.RLock()

    @property
    def reconnects(self) -> bool:
        """Whether a device that is lost comes back by its next use."""
        return bool(self._reconnect)

    # -- descriptors

    def device_descriptor(self) -> DeviceDescriptor:
        """The device's own descriptor. Raises DeviceError."""
        with self._lock:
            if self._descriptor is None:
                raw = self._read_descriptor(DT_DEVICE, 0, 18)
                try:
                    self._descriptor = DeviceDescriptor.parse(raw)
                except RemoteProtocolError as error:
                    raise RequestRefused(f"device {self.device.info}: {error}", -ENOENT) from error
            return self._descriptor

    def configuration(self, index: int) -> ConfigurationDescriptor:
        """Configuration by its index, 0 to bNumConfigurations - 1. Raises DeviceError."""
        with self._lock:
            if not 0 <= index < self.device_descriptor().bNumConfigurations:
                raise RequestRefused(f"device {self.device.info} has no configuration with index {index}", -ENOENT)
            if index not in self._configurations:
                try:
                    configuration = read_configuration(index, self._read_descriptor)
                except RemoteProtocolError as error:
                    raise RequestRefused(
                        f"configuration {index} of device {self.device.info}: {error}", -ENOENT
                    ) from error
                self._configurations[index] = configuration
                self.endpoints.add_configuration(configuration)
            return self._configurations[index]

    def configurations(self) -> list[ConfigurationDescriptor]:
        """All configurations that can be read. Raises DeviceError once the device is gone."""
        found = []
        for index in range(self.device_descriptor().bNumConfigurations):
            try:
                found.append(self.configuration(index))
            except DeviceError as error:
                if not self.device.alive:
                    raise
                log.warning("configuration %d of device %s cannot be read: %s", index, self.device.info, error)
        return found

    # -- settings

    def configuration_value(self) -> int:
        """bConfigurationValue of the active configuration, 0 while there is none. Raises DeviceError."""
        with self._lock:
            if self._value is None and not self.device.info.bConfigurationValue:
                # The server's kernel has no configuration set, whatever the device remembers: without it, Linux does
                # not even answer transfers to its endpoints.
                self._value = 0
            if self._value is None:
                answer = self.control(get_configuration(), timeout=CONTROL_TIMEOUT)
                if not answer:
                    raise RequestRefused(f"device {self.device.info} does not report its configuration", -ENOENT)
                self._activated(answer[0])
            return self._value or 0

    def set_configuration(self, value: int) -> None:
        """Make a configuration the active one. Raises DeviceError."""
        with self._lock:
            if not 0 <= value <= 0xFF:
                raise RequestRefused(f"{value} is not a bConfigurationValue of device {self.device.info}", -EINVAL)
            self.configurations()  # endpoints must be known before they can be followed
            self.control(set_configuration(value), timeout=CONTROL_TIMEOUT)

    def ensure_configured(self) -> None:
        """Set a configuration as Linux chooses it, if there is none: a host's programs find their device so.

        Raises DeviceError. Ref: Linux drivers/usb/core/generic.c, usb_choose_configuration
        """
        with self._lock:
            if self._configured or self.configuration_value():
                return
            choices = self.configurations()
            if not choices:
                return
            standard = [
                choice
                for choice in choices
                if choice.interfaces and choice.interfaces[0].bInterfaceClass != _VENDOR_SPECIFIC
            ]
            vendor_specific = self.device_descriptor().bDeviceClass == _VENDOR_SPECIFIC
            best = choices[0] if vendor_specific or not standard else standard[0]
            self.set_configuration(best.bConfigurationValue)

    def has_interface(self, number: int) -> bool:
        """Whether the active configuration has an interface of this number."""
        active = self.endpoints.configuration
        return active is not None and any(i.bInterfaceNumber == number for i in active.interfaces)

    def has_alternate(self, number: int, alternate: int) -> bool:
        """Whether the active configuration has this alternate setting."""
        active = self.endpoints.configuration
        return active is not None and any(
            (i.bInterfaceNumber, i.bAlternateSetting) == (number, alternate) for i in active.interfaces
        )

    def reset(self) -> None:
        """Reset the port that the device hangs on; it keeps its configuration and alternate settings.

        Linux servers have a request for it; elsewhere the device is released and imported again, which resets it.
        Raises DeviceError; "not found" when it is another device afterwards, as libusb does.
        """
        with self._lock:
            before = self.device_descriptor()
            try:
                self.control(Setup(0x23, SET_FEATURE, PORT_RESET, 1, 0), timeout=CONTROL_TIMEOUT)
            except DeviceError:
                if self._reimport is None or not self.device.alive:
                    raise
                self.device.close()
                self._adopt(self._reimport(_RESET_PATIENCE))
            else:
                self._settle()
            if self.device_descriptor() != before:
                raise RequestRefused(
                    f"{self._name} came back from its reset with other descriptors: look for it again", -ENOENT
                )

    def _settle(self) -> None:
        """Wait for the end of a reset, which Linux only begins when it is asked for. Raises DeviceError."""
        deadline = time.monotonic() + _RESET_PATIENCE
        value, alternates = self._value, dict(self.alternates)
        while True:
            time.sleep(_RESET_TIME)
            try:
                self._adopt(self.device)
                return
            except DeviceError:
                if not self.device.alive or time.monotonic() > deadline:
                    raise
                self._value, self.alternates = value, dict(alternates)

    def _revive(self) -> Device:
        """The device is lost: import it again. Raises DeviceError."""
        with self._lock:
            if not self.device.alive and self._reimport is not None:
                lost = self.device.info
                self._adopt(self._reimport(self._reconnect))
                log.warning("device %s was lost and is imported again, as %s", lost, self.device.info)
            return self.device

    def _adopt(self, device: Device) -> None:
        """Go on with `device`, imported again or reset, with the settings that it had as far as it has them."""
        value, alternates = self._value, dict(self.alternates)
        self.device = device
        self.endpoints = EndpointMap(None, device.info.speed)
        self.alternates = {}
        self._descriptor, self._configurations, self._value, self._configured = None, {}, None, False
        known = {choice.bConfigurationValue for choice in self.configurations()}
        if value is not None and (value in known or not value):
            if self.configuration_value() != value:
                self.set_configuration(value)
        else:
            self.ensure_configured()
        for number, alternate in alternates.items():
            if alternate and self.has_alternate(number, alternate):
                self.control(set_interface(number, alternate), timeout=CONTROL_TIMEOUT)

    # -- transfers

    def control(self, setup: Setup, data: Buffer = b"", timeout: float | None = None) -> bytes:
        """A control transfer: what its data stage brought. Raises DeviceError; `timeout` in seconds."""
        return bytes(self.run_control(setup.pack(), data, timeout).data)

    def run_control(self, setup: bytes, data: Buffer, timeout: float | None) -> Completion:
        """A control transfer by its setup packet. Raises DeviceError; `timeout` in seconds."""
        length = setup[6] | setup[7] << 8
        if setup[0] & DIR_IN and length:  # as Urb.control, without its call
            urb = Urb(_CONTROL, DIR_IN, length, data, setup, FLAG_DIR_IN)
        else:
            urb = Urb(_CONTROL, 0, length, data, setup)
        completion = self.run(urb, timeout)
        if completion.status:
            raise self._failed(completion.status, timeout, f"control request {setup.hex(' ')} to {self._name}", 0)
        if not setup[0] & PLAIN_DATA and (action := classify(setup)) is not None:
            with self._lock:
                self.endpoints.follow(setup)
                if isinstance(action, SetConfiguration):
                    self._value = action.value
                    self.alternates.clear()
                    self._configured = True
                elif isinstance(action, SetInterface):
                    self.alternates[action.interface] = action.alternate
        return completion

    def endpoint(self, address: int) -> Endpoint:
        """An endpoint of the current alternate settings.

        Raises DeviceError for others: Linux servers do not even answer such a request.
        """
        with self._lock:  # while the settings are changed, or the device is reset, there are none
            found = self.endpoints.find(address)
        if found is None:
            raise RequestRefused(f"{self._name} has no endpoint {address:#04x} in its current settings", -ENOENT)
        return found

    def run(self, urb: Urb, timeout: float | None, into: memoryview | None = None) -> Completion:
        """Run a URB; -ECONNRESET if it was unlinked after `timeout` seconds. `into`: where its data may be put."""
        transfer = Transfer(urb, None, True, into)  # a name of a parameter would cost half as much again
        device = self.present() if self._reconnect else self.device
        try:
            device.submit(transfer)
            done = device.wait(transfer, timeout)
        except BaseException:  # Ctrl-C: what comes now is for the program's next transfer
            device.unlink([transfer], 0.0)
            raise
        if not done:
            device.unlink([transfer], self.grace)
            return after_unlink(transfer)
        completion = transfer.completion
        assert completion is not None
        return completion

    def present(self) -> Device:
        """The device, imported again if it was lost and that is wanted. Raises DeviceError."""
        device = self.device
        return self._revive() if self._reconnect and not device.alive else device

    def failed(self, status: int, timeout: float | None, address: int) -> DeviceError:
        """What to raise for a URB on an endpoint that ended so."""
        return self._failed(status, timeout, f"endpoint {address:#04x} of {self._name}", address)

    @property
    def _name(self) -> str:
        return f"device {self.device.info}"

    def _failed(self, status: int, timeout: float | None, what: str, endpoint: int) -> DeviceError:
        if self.device.closed and (status in UNLINKED or status in GONE):
            return DeviceGone(f"{what}: this program has released the device", -ENODEV, released=True)
        if status in UNLINKED and timeout is not None:
            text = f"{what}: no answer within {timeout * 1000:g} ms"
            return TransferTimeout(text, status, endpoint, timeout)
        if status in GONE:
            return DeviceGone(f"{what}: {self.device.loss or status_name(status)}", status)
        kind = TransferTimeout if status in TIMED_OUT else TransferFailed
        return kind(f"{what}: {status_name(status)}", status, endpoint)

    def _activated(self, value: int) -> None:
        """The device reports that this is its configuration."""
        self._value = value
        if value:
            self.configurations()
            self.endpoints.activate(value)

    def _read_descriptor(self, kind: int, index: int, length: int) -> bytes:
        started = time.monotonic()
        raw = self.control(get_descriptor(kind, index, 0, length), timeout=CONTROL_TIMEOUT)
        round_trip = time.monotonic() - started
        self.grace = min(max(2 * round_trip, _MIN_GRACE), self.grace)
        return raw
