"""The requests that must not be passed on to a device: the kernel has to know of them, so libusb has calls for them.

All of them block: the device's worker makes them, in order with the URBs around.
"""

from __future__ import annotations

from collections.abc import Callable

from usbip_capture.devices.libusb import statuses
from usbip_capture.devices.libusb.checks import control_refusal
from usbip_capture.devices.libusb.claims import Claims
from usbip_capture.devices.libusb.handle import Handle
from usbip_capture.devices.libusb.in_flight import InFlight
from usbip_capture.devices.libusb.statuses import Failure
from usbip_capture.usb.endpoints import EndpointMap
from usbip_capture.usb.setup import ClearHalt, HostAction, PortReset, SetConfiguration, SetInterface
from usbip_capture.usb.status import EPIPE
from usbip_capture.usb.urb import Urb

#: Seconds for what is pending on an interface to end: the kernel needs up to 0.13 s for an isochronous transfer.
_FLUSH_PATIENCE = 3.0


class Requests:
    """Those of one device. Before settings change, what is pending there is ended by us: what the change itself
    kills libusb reports as completed, with no data."""

    def __init__(
        self,
        handle: Handle,
        claims: Claims,
        endpoints: EndpointMap,
        flights: InFlight,
        on_doubt: Callable[[], None],
    ) -> None:
        self._handle = handle
        self._claims = claims
        self._endpoints = endpoints
        self._flights = flights
        self._on_doubt = on_doubt
        self._alternates: dict[int, int] = {}
        self._first: int | None = None

    def learn(self) -> int:
        """Claim the interfaces of the configuration that is active now; its bConfigurationValue. Raises Failure."""
        self._alternates.clear()
        value = self._handle.configuration()
        if self._first is None:
            self._first = value
        self._endpoints.activate(value)
        active = self._endpoints.configuration
        numbers = {interface.bInterfaceNumber for interface in active.interfaces} if active is not None else set()
        self._claims.take(sorted(numbers))
        return value

    def perform(self, action: HostAction, urb: Urb) -> int:
        """The status of the request; nothing is raised."""
        status = control_refusal(urb, self._endpoints, self._claims)
        if status is not None:
            return status
        try:
            if isinstance(action, SetConfiguration):
                self._set_configuration(action.value)
            elif isinstance(action, SetInterface):
                self._set_interface(action, urb)
            elif isinstance(action, ClearHalt):
                self._handle.clear_halt(action.endpoint)
            else:
                self.reset()
        except Failure as failure:
            if isinstance(action, PortReset):
                self._on_doubt()  # with another descriptor it has come back as another device
                return failure.status
            # A device stalls what it does not have.
            return -EPIPE if failure.code == statuses.ERROR_NOT_FOUND else failure.status
        return 0

    def restore(self) -> None:
        """Have the configuration that was found, with the kernel's drivers bound. Raises Failure."""
        if self._first is not None and self._handle.configuration() != self._first:
            self._claims.release()
            self._handle.set_configuration(self._first)

    def _set_configuration(self, value: int) -> None:
        self._flights.flush(None, _FLUSH_PATIENCE)
        if value == self._handle.configuration():  # again it would be a reset of the device
            for number, alternate in list(self._alternates.items()):
                if alternate:
                    self._handle.set_interface(number, 0)
            self._alternates.clear()
            self._endpoints.activate(value)
            return
        self._claims.release()
        try:
            self._handle.set_configuration(value)
        finally:
            self.learn()

    def _set_interface(self, action: SetInterface, urb: Urb) -> None:
        self._flights.flush(action.interface, _FLUSH_PATIENCE)
        self._handle.set_interface(action.interface, action.alternate)
        self._alternates[action.interface] = action.alternate
        self._endpoints.follow(urb.setup)

    def reset(self) -> None:
        """Of the device's port. Raises Failure, with ERROR_NOT_FOUND when it has become another device."""
        self._flights.flush(None, _FLUSH_PATIENCE)
        self._handle.reset()
        self._alternates.clear()
        self._endpoints.activate(self._handle.configuration())
