"""A probe session: import, read, listen, release; and again when the device was disconnected."""

from __future__ import annotations

import logging
import threading

from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.device import Device
from usbip_capture.errors import DeviceError, DeviceGone, ServerLost, TransferTimeout, UsbipError
from usbip_capture.filters.language import ENUMERATION_LABEL
from usbip_capture.host.handle import DeviceHandle
from usbip_capture.host.reimport import import_first, places, retry
from usbip_capture.probe.enumeration import Enumeration
from usbip_capture.probe.listen import Listener
from usbip_capture.probe.settings import ProbeEvents, ProbeSettings
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.tap import Tapped
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.status import status_name

log = logging.getLogger(__name__)

#: Seconds between two looks for a device that is disconnected.
RETRY_INTERVAL = 0.5
#: Seconds that the device has to finish URBs when the capture stops.
RELEASE_TIMEOUT = 0.2
#: Seconds in which a server that reports "no such device" may close the connection, with a better reason.
_GONE_GRACE = 0.3


class ProbeSession:
    """Captures one device of one server until stopped."""

    def __init__(
        self, server: ServerAddress, selector: Selector, settings: ProbeSettings, events: ProbeEvents | None = None
    ) -> None:
        self._server = server
        self._selector = selector
        self._settings = settings
        self._events = events or ProbeEvents()
        self._wake = threading.Event()
        self._stopping = False
        self._lock = threading.Lock()
        self._first: Device | None = None
        self._current: Device | None = None  # while it is read: `stop` breaks that off
        self._listener: Listener | None = None
        self._chosen: frozenset[int] | None = None if settings.listen_in else frozenset()
        self._gone_status = 0
        self._channel: UsbChannel | None = None

    def connect(self) -> None:
        """Import the device. Raises UsbipError: unreachable, not found, refused."""
        self._state("connecting")
        first = self._server.import_device(self._selector)
        with self._lock:
            self._first = self._current = first  # until it is read, `stop` closes it
            stopping = self._stopping
        if stopping:  # meanwhile, with nothing to close yet
            first.close()

    def run(self, writer: PcapWriter) -> None:
        """Capture into `writer` until `stop`, or until the device is gone and is not to be waited for.

        Raises UsbipError, its message one sentence, when there is nothing (more) to capture.
        """
        if self._first is None:
            self.connect()
        device, again = self._first, False
        while device is not None:
            info = device.info
            self._events.imported(info)
            reason = self._capture(device, writer, again)
            if self._stopping:
                return
            log.info("%s", reason)
            if not self._settings.reconnect:
                raise ServerLost(f"the capture ended: {reason}")
            self._state(f"{info.busid} disconnected")
            device, again = self._wait_for(info), True

    def stop(self) -> None:
        """End `run` soon; from any thread."""
        with self._lock:
            self._stopping = True
            current = self._current
        self._wake.set()
        if current is not None:
            current.close()

    def listen_to(self, chosen: frozenset[int] | None) -> None:
        """Read these IN endpoints from now on, None for all; from any thread."""
        with self._lock:
            self._chosen = chosen
            listener = self._listener
        if listener is not None:
            listener.listen_to(chosen)
            self._state_of(listener)

    def _capture(self, device: Device, writer: PcapWriter, again: bool) -> str:
        """One stay of the device: until it is gone or the session is stopped. Why it is gone."""
        reason = ""
        self._gone_status = 0
        self._wake.clear()
        try:
            device.watch(lambda lost: self._wake.set())
            channel = self._open_channel(writer, device.info, again)
            tapped = self._events.observe(Tapped(device, channel))
            handle = self._enumerate(tapped, channel)
            if handle is not None:
                reason = self._listen(device, tapped, handle, channel)
        except DeviceError as error:
            # One that has just come back may need a while until it answers.
            gone = again or isinstance(error, DeviceGone)
            if not self._stopping and not device.loss and not (gone and self._settings.reconnect):
                raise UsbipError(f"device {device.info} of {self._server} {_complaint(error)}") from error
            reason = str(error)
        finally:
            reason = device.loss or reason
            device.close()
            if reason and self._channel is not None and not self._stopping:
                self._channel.gone(reason)
        return reason

    def add_interface(self, writer: PcapWriter) -> None:
        """Have an interface of the capture now, if the device is imported: they are numbered in this order."""
        if self._channel is None and self._first is not None:
            self._channel = writer.add_usb_interface(self._first.info, server=str(self._server), product=None)

    def _open_channel(self, writer: PcapWriter, info: DeviceInfo, again: bool) -> UsbChannel:
        if self._channel is None:
            self._channel = writer.add_usb_interface(info, server=str(self._server), product=None)
        elif again:
            self._channel.device(info)
            self._channel.comment(f"usbip-capture: device {info} is back, imported again")
            log.info("device %s is back", info)
        return self._channel

    def _enumerate(self, device: Device, channel: UsbChannel) -> DeviceHandle | None:
        """Read the device as its host would. None when the session is being stopped."""
        with self._lock:
            if self._stopping:
                return None
            self._current = device
        info = device.info
        self._state(f"{info.busid} reading descriptors")

        def on_product(name: str) -> None:
            channel.product(name)
            self._events.product(info, name)

        def on_serial(number: str) -> None:
            self._events.serial(info, number)

        handle = DeviceHandle(device)
        channel.label = ENUMERATION_LABEL
        try:
            enumeration = Enumeration(handle, on_product, on_serial)
            if self._settings.descriptors:
                enumeration.describe()
            problem = enumeration.configure()
            if problem:
                channel.comment(f"usbip-capture: {problem}")
            elif self._settings.descriptors:
                enumeration.describe_hid()
        finally:
            channel.label = None
            with self._lock:
                self._current = None
        return None if self._stopping else handle

    def _listen(self, device: Device, tapped: Device, handle: DeviceHandle, channel: UsbChannel) -> str:
        """Read what is to be read until the device is gone, or the session is stopped. Why it is gone."""

        def note(text: str) -> None:
            channel.comment(f"usbip-capture: {text}")

        def on_gone(status: int) -> None:
            self._gone_status = status
            self._wake.set()

        listener = Listener(tapped, list(handle.endpoints), note, on_gone)
        with self._lock:
            self._listener, chosen = listener, self._chosen
        try:
            listener.listen_to(chosen)
            self._state_of(listener)
            while not self._stopping and not device.loss and not self._gone_status:
                self._wake.wait()
                self._wake.clear()
            if self._gone_status and not device.loss and not self._stopping:
                self._wake.wait(_GONE_GRACE)
        finally:
            with self._lock:
                self._listener = None
            listener.stop(RELEASE_TIMEOUT)
        return f"device {device.info} of {self._server} is gone: {status_name(self._gone_status)}"

    def _wait_for(self, before: DeviceInfo) -> Device | None:
        """Look for the device until it can be imported again; None when stopped meanwhile.

        Without a busid or VID:PID it is the one that was there before: at its place, or elsewhere by its VID:PID.
        """

        def pause(seconds: float) -> bool:
            self._wake.wait(seconds)
            self._wake.clear()
            return self._stopping

        selector = self._selector
        choices = places(before, selector.serial) if selector.serial or not str(selector) else [selector]
        if pause(RETRY_INTERVAL):  # servers need about that long after a device was released
            return None
        try:
            return retry(lambda: import_first(self._server, choices), interval=RETRY_INTERVAL, pause=pause)
        except UsbipError:
            return None

    def _state(self, text: str) -> None:
        self._events.state(self, text)

    def _state_of(self, listener: Listener) -> None:
        busid = self._channel.info.busid if self._channel is not None else ""
        self._state(f"{busid} listening" if listener.listening else f"{busid} imported")


def _complaint(error: DeviceError) -> str:
    if isinstance(error, TransferTimeout):
        return f"does not answer: {error}: plug it in again, or look at the server's log"
    return f"cannot be read: {error}: plug it in again, or try --descriptors off"
