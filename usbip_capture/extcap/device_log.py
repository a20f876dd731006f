"""The device's own log in a capture: beside its USB traffic, or alone in mode `syslog`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from usbip_capture.capture.writer import PcapWriter
from usbip_capture.options.table import Choices
from usbip_capture.servers.address import ServerAddress

if TYPE_CHECKING:
    from usbip_capture.collector import SyslogReceiver
    from usbip_capture.syslog.message import Message

log = logging.getLogger(__name__)

OFF, CONNECT, LISTEN = "off", "connect", "listen"
#: The mode without USB.
ALONE = "syslog"
#: Lines a second that the toolbar's window gets; a flood is no use to anybody there.
_SHOWN_PER_SECOND = 100


class DeviceLog:
    """What was chosen for the log. `show` gets each line for the toolbar's window.

    Raises LocalProtocolError for a choice that cannot be.
    """

    def __init__(self, choices: Choices, show: Callable[[str], object]) -> None:
        self._show = show
        self._second = 0
        self._shown = self._left_out = 0
        self._receiver: SyslogReceiver | None = None
        self._choices = choices
        source = choices.syslog
        if choices.mode == ALONE and source == OFF:
            source = CONNECT
        self._source = source

    def start(self, writer: PcapWriter) -> None:
        """Begin to capture into `writer`, unless the log is off or begun. Raises UsbipError if it cannot."""
        if self._source == OFF or self._receiver is not None:
            return
        # Imported here: a capture without the log does not pay for it.
        from usbip_capture.collector import SyslogReceiver

        choices = self._choices
        connect = self._source == CONNECT
        self._receiver = SyslogReceiver(
            ServerAddress.parse(choices.host.strip(), choices.port).host if connect else None,
            choices.syslog_port,
            writer,
            callback=self._line,
            listen=None if connect else choices.syslog_listen,
            certificate=choices.syslog_certificate,
            min_severity=choices.syslog_level,
            align_clock=choices.syslog_align,
        )
        self._receiver.start()
        for place in self._receiver.bound:
            log.info("waiting for logs on %s", place)

    def stop(self) -> None:
        """End it; what came before is in the writer's queue when this returns."""
        receiver = self._receiver
        if receiver is not None:
            receiver.stop()
            self._tell_left_out()
            flaws = receiver.counts.flaws()
            log.info("%d messages of the log%s", receiver.counts.messages, "; " + ", ".join(flaws) if flaws else "")

    def _line(self, message: Message) -> None:
        from usbip_capture.collector.display import line

        second = time.time_ns() // 1_000_000_000
        if second != self._second:
            self._tell_left_out()
            self._second, self._shown = second, 0
        if self._shown < _SHOWN_PER_SECOND:
            self._shown += 1
            self._show(line(message, with_source=self._source == LISTEN) + "\n")
        else:
            self._left_out += 1

    def _tell_left_out(self) -> None:
        if self._left_out:
            self._show(f"({self._left_out} more messages of the log, not shown here)\n")
        self._left_out = 0
