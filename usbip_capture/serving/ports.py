"""Resetting a device of this machine, and switching the power of its port, whether a client has it or not."""

from __future__ import annotations

import logging
import threading

from usbip_capture.device import Device
from usbip_capture.devices.uses import DISK, uses
from usbip_capture.errors import DeviceError, DeviceNotFound, LocalProtocolError, UsbipError
from usbip_capture.lending.lender import Lender
from usbip_capture.lending.plugged import Bus, Switching
from usbip_capture.usb.setup import port_reset
from usbip_capture.usb.urb import Urb

log = logging.getLogger(__name__)

OFF, ON, CYCLE = "off", "on", "cycle"
#: Seconds that a reset may take: up to one, and what is in flight ends before.
_RESET_TIMEOUT = 15.0
#: Seconds without power, for what is charged to run empty.
OFF_TIME = 2.0


class Ports:
    """The ports of what is exported. Threads may share it."""

    def __init__(self, lender: Lender, bus: Bus) -> None:
        self._lender = lender
        self._bus = bus
        self._switching = threading.Lock()
        self._closing = threading.Event()
        self._off: set[str] = set()

    def close(self) -> None:
        """Let a port that is switched off and on again have its power now."""
        self._closing.set()

    @property
    def off(self) -> list[str]:
        """Those that were switched off here."""
        return sorted(self._off.copy())

    def reset(self, busid: str) -> None:
        """A port reset, by the device's worker if a client has it. Raises UsbipError; a disk in use is not reset."""
        self._check(busid)
        device = next((device for device in self._lender.opened if device.info.busid == busid), None)
        if device is not None:
            _reset(device)
            return
        plugged = next((plugged for plugged in self._bus.devices() if plugged.info.busid == busid), None)
        if plugged is None:
            raise DeviceNotFound(f"nothing is plugged in at {busid}")
        disk = next((use for use in uses(plugged.sysfs) if use.kind == DISK and use.vital), None)
        if disk is not None:
            raise UsbipError(f"device {plugged.info} is {disk}: a reset takes it from its driver; unmount it first")
        device = plugged.open()
        try:
            _reset(device)
        finally:
            device.close()

    def switch_power(self, busid: str, action: str) -> None:
        """Switch the power of the port off, on, or off and on again. Raises UsbipError: its hub cannot do that."""
        if action not in (OFF, ON, CYCLE):
            raise LocalProtocolError(f"{action!r} cannot be done to a port: it is {OFF}, {ON} or {CYCLE}")
        bus = self._bus
        if not isinstance(bus, Switching):
            raise UsbipError("the power of ports cannot be switched on this bus")
        with self._switching:
            if action != ON and busid not in self._off:
                self._check(busid)
            if action != ON:
                bus.switch_power(busid, False)
                self._off.add(busid)
                log.info("the port %s has no power", busid)
            if action == CYCLE:
                self._closing.wait(OFF_TIME)  # a server that ends leaves no port off that is to be on again
            if action != OFF:
                bus.switch_power(busid, True)
                self._off.discard(busid)
                log.info("the port %s has power", busid)

    def _check(self, busid: str) -> None:
        check_exported(self._lender, busid)


def check_exported(lender: Lender, busid: str) -> None:
    """Raises DeviceNotFound for what the server does not export."""
    busids = [exported.info.busid for exported in lender.exported]
    if busid not in busids:
        there = f"there is {', '.join(busids)}" if busids else "nothing is"
        raise DeviceNotFound(f"{busid!r} is not exported: {there}")


def _reset(device: Device) -> None:
    """Raises DeviceError."""
    port = int(device.info.busid.rpartition("-")[2].rpartition(".")[2] or 0)
    status = device.run(Urb.control(port_reset(port).pack()), _RESET_TIMEOUT).status
    if status:
        why = device.loss or "it was unplugged, came back as another device, or does not answer"
        raise DeviceError(f"device {device.info} cannot be reset: {why}", status)
    log.info("device %s was reset", device.info)
