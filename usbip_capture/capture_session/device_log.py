"""The device's own log in a capture: beside its USB traffic, or alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from usbip_capture.capture.log_target import LogCapture
from usbip_capture.capture_session.settings import LOG_CONNECT, LOG_OFF, CaptureSettings

if TYPE_CHECKING:
    from usbip_capture.collector import SyslogReceiver
    from usbip_capture.syslog.message import Message

log = logging.getLogger(__name__)


class DeviceLog:
    """The log that `settings` choose, if any; `on_message` gets each message."""

    def __init__(self, settings: CaptureSettings, on_message: Callable[[Message], object]) -> None:
        self._settings = settings
        self._on_message = on_message
        self._receiver: SyslogReceiver | None = None

    def start(self, writer: LogCapture) -> bool:
        """Begin to capture into `writer`; False if the log is off or begun. Raises UsbipError if it cannot."""
        source = self._settings.log_source
        if source == LOG_OFF or self._receiver is not None:
            return False
        # Imported here: a capture without the log does not pay for it.
        from usbip_capture.collector import SyslogReceiver

        choices = self._settings.choices
        host = self._settings.log_host() if source == LOG_CONNECT else None
        receiver = self._receiver = SyslogReceiver(
            host,
            choices.syslog_port,
            writer,
            callback=self._on_message,
            listen=choices.syslog_listen if host is None else None,
            certificate=choices.syslog_certificate,
            min_severity=choices.syslog_level,
            align_clock=choices.syslog_align,
        )
        receiver.start()
        for place in receiver.bound:
            log.info("waiting for logs on %s", place)
        return True

    def stop(self) -> None:
        """End it; what came before is in the writer's queue when this returns."""
        receiver = self._receiver
        if receiver is not None:
            receiver.stop()
            flaws = receiver.counts.flaws()
            log.info("%d messages of the log%s", receiver.counts.messages, "; " + ", ".join(flaws) if flaws else "")
