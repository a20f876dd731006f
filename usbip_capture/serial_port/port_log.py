"""The log of the device that a port belongs to: into the capture, or else to this program's own logging."""

from __future__ import annotations

import logging

from usbip_capture.capture.writer import PcapWriter
from usbip_capture.collector import SyslogReceiver
from usbip_capture.errors import UsbipError
from usbip_capture.servers.address import ServerAddress
from usbip_capture.syslog.message import Message
from usbip_capture.syslog.severity import ERROR, INFO, WARNING

log = logging.getLogger(__name__)


class PortLog:
    """Reads the log that `server` offers on its TCP `port` until closed; it is waited for. Raises UsbipError."""

    def __init__(self, server: ServerAddress, port: int, pcap: PcapWriter | None) -> None:
        self._receiver = SyslogReceiver(server.place[0], port, pcap, callback=_log, timeout=server.timeout)
        try:
            self._receiver.start()
        except RuntimeError as error:  # no thread to be had
            raise UsbipError(f"the log of {server} cannot be read: {error}") from error

    def close(self) -> None:
        """What came before is delivered when this returns."""
        self._receiver.stop()


def _log(message: Message) -> None:
    level = logging.DEBUG
    for severity, number in ((ERROR, logging.ERROR), (WARNING, logging.WARNING), (INFO, logging.INFO)):
        if message.severity <= severity:
            level = number
            break
    log.log(level, "%s", message.text)
