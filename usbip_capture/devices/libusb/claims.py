"""The interfaces of a device, taken from the kernel's drivers and released to them.

By hand, not by libusb's auto-detach: that binds a driver at each release, so that the configuration cannot be changed,
and a driver of two interfaces does not find its second one, which is still claimed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from usbip_capture.devices.libusb import statuses
from usbip_capture.devices.libusb.handle import Handle
from usbip_capture.devices.libusb.statuses import Failure

log = logging.getLogger(__name__)


class Claims:
    """claimed: the interfaces that are ours. detached: those whose kernel driver was unbound.

    unclaimed: those of the active configuration that somebody else holds, with why. on_detaching: called with the
    interfaces whose drivers are unbound next; on_attached: when all drivers are bound again.
    """

    def __init__(
        self,
        handle: Handle,
        name: str,
        on_detaching: Callable[[list[int]], None] = lambda interfaces: None,
        on_attached: Callable[[], None] = lambda: None,
    ) -> None:
        self.claimed: set[int] = set()
        self.detached: set[int] = set()
        self.unclaimed: dict[int, str] = {}
        self._handle = handle
        self._name = name
        self._on_detaching = on_detaching
        self._on_attached = on_attached
        self._is_known = False  # that drivers are unbound

    def take(self, interfaces: Iterable[int]) -> None:
        """Claim what can be had of these, those of a configuration. Raises Failure only when the device is gone."""
        self.unclaimed.clear()
        interfaces = list(interfaces)
        self.detached.intersection_update(interfaces)  # the kernel binds none where no setting was changed
        bound = [number for number in interfaces if self._handle.has_driver(number)]
        if bound:
            self._is_known = True
            self._on_detaching(bound)
        for number in interfaces:
            try:
                self._take(number, driven=number in bound)
            except Failure as failure:
                if failure.code == statuses.ERROR_NO_DEVICE:
                    raise
                why = _WHY.get(failure.code, f"it cannot be claimed: {failure}")
                self.unclaimed[number] = why
                log.warning("interface %d of %s is not available: %s", number, self._name, why)

    def _take(self, number: int, *, driven: bool) -> None:
        if driven and self._handle.detach(number):
            self.detached.add(number)
        try:
            self._claim(number)
        except Failure:
            if number in self.detached:
                self._attach(number)
                self.detached.discard(number)
            raise
        self.claimed.add(number)

    def _claim(self, number: int) -> None:
        try:
            self._handle.claim(number)
        except Failure as failure:
            # A driver was bound just now, as one is some time after plug-in.
            if failure.code != statuses.ERROR_BUSY or not self._handle.detach(number):
                raise
            self.detached.add(number)
            self._handle.claim(number)

    def release(self) -> None:
        """Have none any more; the kernel's drivers are not bound yet."""
        for number in sorted(self.claimed):
            try:
                self._handle.release(number)
            except Failure as failure:
                log.debug("interface %d of %s cannot be released: %s", number, self._name, failure)
        self.claimed.clear()

    def attach(self) -> None:
        """Bind the drivers that were unbound; all interfaces are released before."""
        for number in sorted(self.detached):
            self._attach(number)
        self.detached.clear()
        if self._is_known:
            self._is_known = False
            self._on_attached()

    def _attach(self, number: int) -> None:
        try:
            self._handle.attach(number)
        except Failure as failure:
            # Busy: the driver of an earlier interface has bound this one along.
            if failure.code not in (statuses.ERROR_BUSY, statuses.ERROR_NO_DEVICE, statuses.ERROR_NOT_FOUND):
                log.warning("the kernel's driver of interface %d of %s is not bound: %s", number, self._name, failure)


_WHY = {
    statuses.ERROR_BUSY: "another program has claimed it",
    statuses.ERROR_ACCESS: "this user may not unbind its driver",
    statuses.ERROR_NOT_SUPPORTED: "its driver does not let programs use it",
}
