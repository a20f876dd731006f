"""A device that a tap sees, and whose end is reported."""

from __future__ import annotations

from collections.abc import Callable

from usbip_capture.device import Device
from usbip_capture.tap import Tap, Tapped


class ObservedDevice(Tapped):
    """`device`, with every URB shown to `tap`. on_closed: called once, with the reason if the device was gone."""

    def __init__(self, device: Device, tap: Tap, on_closed: Callable[[str], None]) -> None:
        super().__init__(device, tap)
        self._on_closed: Callable[[str], None] | None = on_closed

    def close(self) -> None:
        loss = self.loss
        try:
            super().close()
        finally:
            on_closed, self._on_closed = self._on_closed, None
            if on_closed is not None:
                on_closed(loss)
