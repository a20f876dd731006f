"""A device while a client has it: itself, and what follows when it is closed."""

from __future__ import annotations

from collections.abc import Callable

from usbip_capture.device import Device, Transfer


class Lent(Device):
    """`device`, after whose closing `on_closed` is called, once."""

    def __init__(self, device: Device, on_closed: Callable[[], None]) -> None:
        self.info = device.info
        self._device = device
        self._on_closed: Callable[[], None] | None = on_closed
        # Without a call more for each URB.
        self.submit = device.submit  # type: ignore[method-assign]
        self.cancel = device.cancel  # type: ignore[method-assign]
        self.wait = device.wait  # type: ignore[method-assign]

    @property
    def alive(self) -> bool:
        return self._device.alive

    @property
    def closed(self) -> bool:  # type: ignore[override]
        return self._device.closed

    @property
    def loss(self) -> str:
        return self._device.loss

    def submit(self, transfer: Transfer) -> None:
        self._device.submit(transfer)

    def cancel(self, transfer: Transfer) -> None:
        self._device.cancel(transfer)

    def abandon(self, transfer: Transfer) -> None:
        self._device.abandon(transfer)

    def watch(self, on_lost: Callable[[str], None]) -> None:
        self._device.watch(on_lost)

    def close(self) -> None:
        try:
            self._device.close()
        finally:
            on_closed, self._on_closed = self._on_closed, None
            if on_closed is not None:
                on_closed()
