"""The backend of a program that was started with `usbip-capture use`."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from usbip_capture.errors import CannotListen, CaptureError
from usbip_capture.pyusb_backend import get_backend
from usbip_capture.pyusb_backend.backend import UsbipBackend
from usbip_capture.servers.address import ServerAddress

if TYPE_CHECKING:
    from usbip_capture.capture.writer import PcapWriter
    from usbip_capture.syslog.message import Message

#: Seconds in which the device's log can still report on the last transfer.
_LOG_LINGER = 0.2


class UseSettings(TypedDict):
    """What `usbip-capture use` was asked for. marker: a file that is made by the first process that needs a backend.

    syslog_port: of the log that goes into the capture as well, 0 for none.
    packages: folders that have our package and what it needs, for a program of another Python.
    """

    host: str
    port: int
    device: str
    timeout: float
    reconnect: float
    pcap: str
    syslog_port: int
    offer: bool
    hindsight: str
    marker: str
    packages: list[str]


_backend: UsbipBackend | None = None
_lock = threading.Lock()


def shared_backend(settings: UseSettings) -> UsbipBackend:
    """Always the same one, as libusb's `get_backend` does. Raises UsbipError."""
    global _backend  # noqa: PLW0603  one for the process, as in PyUSB
    with _lock:
        if _backend is None:
            path = _capture(settings)
            _backend = get_backend(
                settings["host"],
                settings["port"],
                settings["timeout"],
                _with_log(path, settings) if path and settings["syslog_port"] else path,
                device=settings["device"],
                reconnect=settings["reconnect"],
                offer=_offer(settings),
            )
        return _backend


def _offer(settings: UseSettings) -> bool:
    """Whether this program is offered; one that cannot be runs all the same."""
    if not settings["offer"]:
        return False
    from usbip_capture.offering.program import program_offer

    try:
        program_offer(settings["hindsight"])
    except CannotListen as error:
        sys.stderr.write(f"usbip-capture: {error}\n")
        return False
    return True


def _with_log(path: str, settings: UseSettings) -> PcapWriter:
    """A capture that has the device's log as well, which is also shown, until the program ends. Raises CaptureError."""
    import logging

    from usbip_capture.capture.writer import PcapWriter
    from usbip_capture.collector import SyslogReceiver
    from usbip_capture.collector.display import line

    def show(message: Message) -> None:
        sys.stderr.write(f"[syslog] {line(message)}\n")

    def stop() -> None:
        threading.Event().wait(_LOG_LINGER)
        log.stop()
        try:
            writer.close()
        except CaptureError as error:
            sys.stderr.write(f"usbip-capture: {error}\n")

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("usbip-capture: %(message)s"))
    logger = logging.getLogger("usbip_capture.collector")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    writer = PcapWriter(path)
    host = ServerAddress.parse(settings["host"], settings["port"]).place[0]
    log = SyslogReceiver(host, settings["syslog_port"], writer, callback=show, timeout=settings["timeout"])
    log.start()
    atexit.register(stop)
    return writer


def _capture(settings: UseSettings) -> str | None:
    """The file to capture to: of the program's first process the one that was asked for, of others beside it."""
    path = settings["pcap"]
    try:
        os.close(os.open(settings["marker"], os.O_CREAT | os.O_EXCL, 0o600))
    except OSError:
        if path:
            name = Path(path)
            path = str(name.with_name(f"{name.stem}-{os.getpid()}{name.suffix}"))
    return path or None
