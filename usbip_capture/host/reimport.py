"""Importing a device again: soon after this process has released it, or after it was lost."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import TypeAlias, TypeVar

from usbip_capture.device import Device
from usbip_capture.errors import DeviceNotFound, UsbipError
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.usb.info import DeviceInfo

log = logging.getLogger(__name__)

T = TypeVar("T")
_Place: TypeAlias = tuple[str, int, str]

#: Seconds for which a device may be missing after it was released: Linux resets it then.
SETTLING_TIME = 2.0
RETRY_INTERVAL = 0.05


class Released:
    """What this process has released within the last SETTLING_TIME seconds, by host, port and busid."""

    def __init__(self) -> None:
        self._since: dict[_Place, tuple[float, DeviceInfo]] = {}
        self._new: SimpleQueue[tuple[_Place, float, DeviceInfo]] = SimpleQueue()
        self._lock = threading.Lock()

    def add(self, server: ServerAddress, info: DeviceInfo) -> None:
        # A device may be released by the garbage collector, in a thread that has the lock: no lock here.
        self._new.put(((*server.place, info.busid), time.monotonic(), info))

    def take(self, server: ServerAddress, busid: str) -> bool:
        """Whether it is one of them; it is not any more."""
        with self._lock:
            self._learn()
            return self._since.pop((*server.place, busid), None) is not None

    def of(self, server: ServerAddress) -> list[DeviceInfo]:
        """Those of one server."""
        with self._lock:
            self._learn()
            return [info for (*at, _), (_, info) in self._since.items() if at == [*server.place]]

    def _learn(self) -> None:
        while not self._new.empty():
            place, since, info = self._new.get()
            self._since[place] = since, info
        now = time.monotonic()
        self._since = {place: value for place, value in self._since.items() if now - value[0] <= SETTLING_TIME}


#: Of this process, whoever released it.
released = Released()


def retry(
    attempt: Callable[[], T],
    seconds: float = math.inf,
    *,
    interval: float = RETRY_INTERVAL,
    pause: Callable[[float], object] = time.sleep,
) -> T:
    """What `attempt` returns, which is called again while it raises UsbipError, within `seconds`.

    pause: waits for so many seconds; if it returns anything true, there is no further attempt. Raises the last error.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except UsbipError as error:
            log.debug("not yet: %s", error)
            if time.monotonic() > deadline or pause(interval):
                raise


def places(before: DeviceInfo, serial: str = "") -> list[Selector]:
    """Where a device that was lost may be: at its place, whatever it is now, or elsewhere by its VID:PID."""
    return [Selector(before.busid, serial=serial), Selector(vid_pid=before.vid_pid, serial=serial)]


def import_first(server: ServerAddress, choices: Iterable[Selector]) -> Device:
    """The first of `choices` that can be imported. Raises UsbipError, that of the last one."""
    failed: UsbipError = DeviceNotFound(f"no device of {server} is meant")
    for choice in choices:
        try:
            return server.import_device(choice)
        except UsbipError as error:
            log.debug("not imported: %s", error)
            failed = error
    raise failed
