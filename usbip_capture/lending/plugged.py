"""What the lender needs of a bus and its devices: `devices.libusb` has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from usbip_capture.device import Device
from usbip_capture.usb.info import DeviceInfo, InterfaceInfo


class Plugged(Protocol):
    """A device that is plugged in. sysfs: its folder there, empty where there is none; texts may be empty."""

    info: DeviceInfo
    sysfs: str

    @property
    def manufacturer(self) -> str:
        """As the device calls it."""

    @property
    def product(self) -> str:
        """As the device calls itself."""

    @property
    def serial(self) -> str:
        """Its serial number."""

    @property
    def serial_is_known(self) -> bool:
        """False if it has a serial number that the system has not read."""

    @property
    def all_interfaces(self) -> Sequence[InterfaceInfo]:
        """Those of all its configurations and alternate settings."""

    def open(self, *, reset: bool = False) -> Device:
        """Have it; reset: when it is closed. Raises UsbipError."""


class Bus(Protocol):
    """What is plugged in.

    on_detached: called with a device and its interfaces before kernel drivers are unbound from these; on_attached:
    when all drivers of a device are bound again.
    """

    on_detached: Callable[[Any, list[int]], None]
    on_attached: Callable[[Any], None]

    def devices(self) -> Sequence[Plugged]:
        """All that is there."""

    def watch(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Have `on_change` called, from any thread, when that has changed; returns what ends it."""


@runtime_checkable
class Resetting(Protocol):
    """A device that is reset when it is closed, if `resets` is still set."""

    resets: bool


@runtime_checkable
class Working(Protocol):
    """A device with a thread of its own. working_since: when that began with what it does now, 0 while it waits."""

    working_since: float


@runtime_checkable
class Answering(Protocol):
    """A bus with a thread that all devices need."""

    def answers(self, timeout: float) -> bool:
        """Whether that comes round within `timeout` seconds."""


@runtime_checkable
class Switching(Protocol):
    """A bus whose hubs may switch the power of their ports."""

    def switch_power(self, busid: str, on: bool) -> None:
        """Of this port. Raises UsbipError: its hub cannot do that."""


@runtime_checkable
class HavingHubs(Protocol):
    """A bus that knows its hubs."""

    def hub_ports(self) -> Mapping[str, int]:
        """How many ports each has, by its name: `usb1` for a controller's own, `1-1.4`; empty where that is unknown."""


@runtime_checkable
class Described(Protocol):
    """A device whose descriptors are known without opening it. configurations: each with all that follows it."""

    device_descriptor: bytes

    @property
    def configurations(self) -> list[bytes]:
        """Of all of them."""
