"""A hub that switches the power of its ports, as far as its wHubCharacteristics say."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.usb.info import Speed
from usbip_capture.usb.setup import Setup

_DEVICE = struct.pack("<BBHBBBBHHHBBBB", 18, 1, 0x0200, 9, 0, 1, 64, 0x05E3, 0x0608, 0x0100, 0, 0, 0, 1)
_INTERRUPT_IN = struct.pack("<BBBBHB", 7, 5, 0x81, 3, 1, 12)
_INTERFACE = struct.pack("<BBBBBBBBB", 9, 4, 0, 0, 1, 9, 0, 0, 0) + _INTERRUPT_IN
_CONFIGURATION = struct.pack("<BBHBBBBB", 9, 2, 9 + len(_INTERFACE), 1, 1, 0, 0xE0, 50) + _INTERFACE
EACH_PORT, TOGETHER, NONE = 0x0001, 0x0000, 0x0002


class SimulatedHub(SimulatedDevice):
    """powered: which ports have power. on_switched: called with a port and whether it has power now."""

    def __init__(
        self,
        ports: int = 4,
        characteristics: int = EACH_PORT,
        *,
        busnum: int = 1,
        speed: Speed = Speed.HIGH,
        on_switched: Callable[[int, bool], None] = lambda port, on: None,
    ) -> None:
        descriptors = Descriptors(_DEVICE, [_CONFIGURATION])
        super().__init__(replace(descriptors.info(f"{busnum}-0", busnum, 1, speed)), descriptors)
        self.descriptor = struct.pack("<BBBH", 9, 0x2A if speed >= Speed.SUPER else 0x29, ports, characteristics)
        self.powered = dict.fromkeys(range(1, ports + 1), True)
        self._on_switched = on_switched

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        if (setup.bmRequestType, setup.bRequest, setup.wIndex) == (0xA0, 6, 0):
            known = setup.wValue >> 8 == self.descriptor[1]
            return (self.descriptor + bytes(4))[: setup.wLength] if known else None
        if setup.bmRequestType == 0x23 and setup.bRequest in (1, 3) and setup.wValue == 8:
            if setup.wIndex not in self.powered:
                return None
            self.powered[setup.wIndex] = setup.bRequest == 3
            self._on_switched(setup.wIndex, setup.bRequest == 3)
            return b""
        return None
