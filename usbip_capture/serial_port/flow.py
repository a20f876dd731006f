"""Flow control that a chip leaves to the host: how the other side stops the data that we send, and the reverse."""

from __future__ import annotations

from usbip_capture.uart.driver import Driver
from usbip_capture.uart.settings import XOFF, XON, LineSettings

_STRIPPED = bytes([XON, XOFF])


class Flow:
    """One direction each: `stopped` is what the other side wants; `held` what we have asked of it."""

    def __init__(self) -> None:
        self._driver: Driver | None = None
        self._settings = LineSettings()
        self._xoff = False
        self.held = False

    def adopt(self, driver: Driver, settings: LineSettings) -> None:
        """Go by these from now on."""
        self._driver, self._settings = driver, settings
        if not self._watches_bytes:
            self._xoff = self.held = False

    def stopped(self) -> bool:
        """Whether nothing may be sent now."""
        driver, settings = self._driver, self._settings
        if driver is None:
            return False
        if self._xoff:
            return True
        if settings.rtscts and "rtscts" not in driver.in_chip and not driver.lines.cts:
            return True
        return settings.dsrdtr and "dsrdtr" not in driver.in_chip and not driver.lines.dsr

    def received(self, data: bytes) -> bytes:
        """`data` without XON and XOFF, when those are ours to obey."""
        if not self._watches_bytes or (XON not in data and XOFF not in data):
            return data
        self._xoff = data.rfind(XOFF) > data.rfind(XON)
        return data.translate(None, _STRIPPED)

    def release(self) -> None:
        """Forget an XOFF."""
        self._xoff = False

    def hold(self, full: bool) -> bytes:
        """The byte to send when our side has just become full, or has room again; none if that is not our affair."""
        if not self._watches_bytes or full == self.held:
            return b""
        self.held = full
        return bytes([XOFF if full else XON])

    @property
    def _watches_bytes(self) -> bool:
        driver = self._driver
        return driver is not None and self._settings.xonxoff and "xonxoff" not in driver.in_chip
