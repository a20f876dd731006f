"""The tap: a Device around a Device, through which every URB passes on its way to a capture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from usbip_capture.device import Device, Transfer
from usbip_capture.usb.urb import Completion, Urb


class Tap(ABC):
    """Told of each URB, on the thread that moves it: must not block, and stamps the time by itself."""

    @abstractmethod
    def submitted(self, urb: Urb) -> int:
        """A URB is about to be submitted. Returns the id that its completion is reported with; 0: not recorded."""

    @abstractmethod
    def completed(self, urb_id: int, urb: Urb, completion: Completion) -> None:
        """A URB came back."""


class _Inside(Transfer):
    """The transfer that the inner device sees; finishing it reports and finishes the outer one."""

    __slots__ = ("_outer", "_owner", "_urb_id")

    def __init__(self, outer: Transfer, owner: Tapped, urb_id: int) -> None:
        super().__init__(outer.urb, awaited=outer.awaited)
        self._outer = outer
        self._owner = owner
        self._urb_id = urb_id

    def finish(self, completion: Completion) -> None:
        owner = self._owner
        owner.tap.completed(self._urb_id, self.urb, completion)
        owner.inside.pop(self._outer, None)
        self._outer.finish(completion)
        super().finish(completion)


class Tapped(Device):
    """`inner`, with every URB shown to `tap`."""

    def __init__(self, inner: Device, tap: Tap) -> None:
        self.inner = inner
        self.info = inner.info
        self.tap = tap
        self.inside: dict[Transfer, _Inside] = {}

    def submit(self, transfer: Transfer) -> None:
        inside = _Inside(transfer, self, self.tap.submitted(transfer.urb))
        self.inside[transfer] = inside
        self.inner.submit(inside)

    def cancel(self, transfer: Transfer) -> None:
        inside = self.inside.get(transfer)
        if inside is not None:
            self.inner.cancel(inside)

    def abandon(self, transfer: Transfer) -> None:
        inside = self.inside.get(transfer)
        if inside is not None:
            self.inner.abandon(inside)

    def wait(self, transfer: Transfer, timeout: float | None = None) -> bool:
        inside = self.inside.get(transfer)
        if inside is not None:
            return self.inner.wait(inside, timeout)
        return super().wait(transfer, timeout)

    def watch(self, on_lost: Callable[[str], None]) -> None:
        self.inner.watch(on_lost)

    def close(self) -> None:
        self.inner.close()
