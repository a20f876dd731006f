"""A device while a client has it: itself, and what follows when it is closed."""

from __future__ import annotations

from collections.abc import Callable

from usbip_capture.device import Around, Device


class Lent(Around):
    """`device`, after whose closing `on_closed` is called, once."""

    def __init__(self, device: Device, on_closed: Callable[[], None]) -> None:
        super().__init__(device)
        self._on_closed: Callable[[], None] | None = on_closed
        # Without a call more for each URB.
        self.submit = device.submit  # type: ignore[method-assign]
        self.cancel = device.cancel  # type: ignore[method-assign]
        self.wait = device.wait  # type: ignore[method-assign]

    def close(self) -> None:
        try:
            super().close()
        finally:
            on_closed, self._on_closed = self._on_closed, None
            if on_closed is not None:
                on_closed()
