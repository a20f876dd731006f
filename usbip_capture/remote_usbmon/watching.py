"""One device of the other machine, captured for as long as it is wanted: unplugged, or the way there lost, and back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import CaptureError, RemoteProtocolError, ServerLost, UsbipError
from usbip_capture.recordings.reading import read_packets
from usbip_capture.recordings.stream import Stream
from usbip_capture.remote_usbmon.machine import RemoteMachine, RemoteShell
from usbip_capture.remote_usbmon.scripts import GONE, capture_script
from usbip_capture.remote_usbmon.settings import UsbmonSettings
from usbip_capture.remote_usbmon.survey import RemoteDevice, Survey
from usbip_capture.remote_usbmon.urbs import UrbFeed
from usbip_capture.servers.address import Selector

log = logging.getLogger(__name__)

#: Seconds between two attempts to reach the machine again, at first and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0
_OURS = "usbip-capture: "


class WatchedDevice:
    """`device`, as `survey` of `machine` has it. on_state: gets what becomes of it, in words."""

    def __init__(
        self,
        machine: RemoteMachine,
        survey: Survey,
        device: RemoteDevice,
        settings: UsbmonSettings,
        on_state: Callable[[object, str], None],
    ) -> None:
        self._machine = machine
        self._device = device
        self._settings = settings
        self._on_state = on_state
        self._stopping = threading.Event()
        self._shell: RemoteShell | None = self._start(survey)

    def add_interface(self, writer: PcapWriter) -> UsbChannel:
        """Its interface of the capture."""
        return writer.add_usb_interface(self._device.info, server=self._machine.name, product=self._device.product)

    def run(self, channel: UsbChannel) -> None:
        """Capture until `stop`. Raises UsbipError for what is not to be waited for, or cannot be mended by that."""
        while True:
            shell, self._shell = self._shell, None
            if shell is None:
                return
            try:
                reason = self._capture(shell, channel)
            finally:
                self._machine.close(shell)
            if self._stopping.is_set():
                return
            if not self._settings.reconnect:
                raise ServerLost(reason)
            self._on_state(self, f"{self._device.info.busid} gone: {reason}")
            self._return(channel, reason, was_unplugged=shell.status == GONE)

    def stop(self) -> None:
        """End `run` soon, once the machine was stopped; from any thread."""
        self._stopping.set()

    def close(self) -> None:
        """End what `run` has not begun with."""
        shell, self._shell = self._shell, None
        if shell is not None:
            self._machine.close(shell)

    def _start(self, survey: Survey) -> RemoteShell:
        """Its capture begins there. Raises UsbipError."""
        info = self._device.info
        tool, as_root = survey.tool_for(self._device, self._machine.target)
        log.info("%s on usbmon%d of %s%s", tool, info.busnum, self._machine.name, ", as root" if as_root else "")
        script = capture_script(info.busid, info.busnum, info.devnum, tool, self._settings.snaplen, as_root=as_root)
        return self._machine.run(script)

    def _capture(self, shell: RemoteShell, channel: UsbChannel) -> str:
        """Until it ends; why it has. Raises UsbipError where trying again does not help."""
        feed = UrbFeed(channel)
        info = self._device.info
        if self._settings.descriptors:
            feed.begin(self._device.descriptors, info.bConfigurationValue, time.time_ns())
        self._on_state(self, f"{info.busid} watched on {self._machine.name}")
        try:
            for packet in read_packets(Stream(f"what {self._machine.name} captures", shell.read)):
                feed.packet(packet)
        except (CaptureError, RemoteProtocolError) as error:
            # A capture that ends before its first packet, or in the middle of one, has its own reason.
            if not shell.reason and not self._stopping.is_set():
                raise
            log.debug("%s", error)
        reason = shell.reason or f"the capture on {self._machine.name} has ended"
        if shell.dropped:
            channel.comment(f"{_OURS}usbmon of {self._machine.name} has dropped {shell.dropped} packets")
        if feed.strays:
            channel.comment(f"{_OURS}{feed.strays} control transfers of before this capture have ended in it")
        if shell.has_failed and not self._stopping.is_set():
            raise UsbipError(reason)
        return reason

    def _return(self, channel: UsbChannel, reason: str, *, was_unplugged: bool) -> None:
        """Wait until it can be captured again. Raises UsbipError if that is not a matter of time."""
        channel.gone(reason)
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            try:
                survey = self._machine.survey(awaited=self._device.info.busid)
                (found,) = survey.selected([Selector(busid=self._device.info.busid)])
                self._device = found
                self._shell = self._start(survey)
            except UsbipError as error:
                log.info("%s: %s", self._machine.name, error)
                self._on_state(self, f"{self._device.info.busid}: {error}")
                self._stopping.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            channel.device(found.info)
            back = "plugged in again" if was_unplugged else f"{self._machine.name} reached again"
            channel.comment(f"{_OURS}{found} {back}")
            return
