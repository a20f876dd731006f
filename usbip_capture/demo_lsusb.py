"""Devices out of a folder of `lsusb -v` texts, served as simulated ones.

Serial ports are simulated with a loop-back plug, by the chip that their descriptors show. Other devices echo: what
comes to a bulk OUT endpoint goes to the bulk IN endpoint of the same interface.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from usbip_capture.device import Device
from usbip_capture.devices.chapter9 import Descriptors
from usbip_capture.devices.lsusb import read_lsusb
from usbip_capture.devices.serial.acm import Acm
from usbip_capture.devices.serial.ch34x import SimulatedCh34x
from usbip_capture.devices.serial.cp210x import CHIPS, SimulatedCp210x
from usbip_capture.devices.serial.exported import Adapter, Open
from usbip_capture.devices.serial.ftdi import SimulatedFtdi
from usbip_capture.devices.serial.line import Loopback
from usbip_capture.devices.simulated import SimulatedDevice
from usbip_capture.errors import DeviceNotFound, LocalProtocolError
from usbip_capture.server import Server
from usbip_capture.uart.cdc_acm import CdcAcm
from usbip_capture.uart.ch34x import Ch34x
from usbip_capture.uart.cp210x import Cp210x
from usbip_capture.uart.driver import Driver
from usbip_capture.uart.ftdi import Ftdi
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.urb import DIR_IN, TransferType

#: The busid of a device that is listed, and refused to everybody.
REFUSED = "99-99"
_SUFFIX = ".lsusb"


class EchoDevice(SimulatedDevice):
    """A device that is nothing but its descriptors, with its bulk endpoints connected."""

    def received(self, address: int, data: bytes) -> None:
        endpoints = list(self._standard.endpoints)
        interface = next((e.bInterfaceNumber for e in endpoints if e.address == address), None)
        for endpoint in endpoints:
            bulk_in = endpoint.transfer_type == TransferType.BULK and endpoint.address & DIR_IN
            if bulk_in and endpoint.bInterfaceNumber == interface:
                self.loop_back(address, endpoint.address, data)
                return


def add_directory(server: Server, directory: Path) -> list[DeviceInfo]:
    """Export each file NAME.lsusb of a folder under the busid NAME, replacing what is there.

    Raises LocalProtocolError: no folder, no such file in it, or one that is not such a text.
    """
    files = sorted(directory.glob(f"*{_SUFFIX}")) if directory.is_dir() else []
    if not files:
        raise LocalProtocolError(f"{directory} has no files BUSID{_SUFFIX}: save there what lsusb -v -d VID:PID prints")
    added = []
    for path in files:
        info, descriptors = read_lsusb(path)
        server.add(info, partial(_open, info, descriptors))
        added.append(info)
    return added


def _open(info: DeviceInfo, descriptors: Descriptors) -> Device:
    if info.busid == REFUSED:
        raise DeviceNotFound(f"{info} is there to be refused")
    ports = descriptors.serial_ports(info.speed)
    if not ports:
        return EchoDevice(info, descriptors)
    kind = _chip(ports[0].kind, info)
    return Adapter(info, descriptors, kind, [Loopback() for _ in ports]).open()


def _chip(driver: type[Driver], info: DeviceInfo) -> Open:
    """What simulates the chip that a driver is for."""
    if driver is Cp210x:
        part, firmware = next((chip[0] for chip in CHIPS.values() if chip[1] == info.idProduct), 0x20), bytes([1, 0, 8])
        return partial(SimulatedCp210x, part, firmware)
    kinds: dict[type[Driver], Open] = {
        CdcAcm: Acm,
        Ftdi: SimulatedFtdi,
        Ch34x: partial(SimulatedCh34x, 0x31, True),
    }
    return kinds[driver]
