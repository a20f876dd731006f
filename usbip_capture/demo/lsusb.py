"""Devices out of a folder of `lsusb -v` texts, served as simulated ones.

Serial ports are simulated with a loop-back plug, by the chip that their descriptors show. Other devices echo: what
comes to a bulk OUT endpoint goes to the bulk IN endpoint of the same interface.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from usbip_capture.device import Device
from usbip_capture.errors import DeviceNotFound, FileFormatError, LocalProtocolError
from usbip_capture.server import Server
from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.simulated.lsusb import LsusbDescriptors, read_lsusb
from usbip_capture.simulated.serial.acm import Acm
from usbip_capture.simulated.serial.ch34x import SimulatedCh34x
from usbip_capture.simulated.serial.cp210x import CHIPS, SimulatedCp210x
from usbip_capture.simulated.serial.exported import Adapter, Open
from usbip_capture.simulated.serial.ftdi import SimulatedFtdi
from usbip_capture.simulated.serial.line import Loopback
from usbip_capture.system.shown import one_line
from usbip_capture.uart.cdc_acm import CdcAcm
from usbip_capture.uart.ch34x import Ch34x
from usbip_capture.uart.cp210x import Cp210x
from usbip_capture.uart.driver import Driver
from usbip_capture.uart.ftdi import Ftdi
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.setup import Setup
from usbip_capture.usb.urb import DIR_IN, TransferType

#: The busid of a device that is listed, and refused to everybody.
REFUSED = "99-99"
_SUFFIX = ".lsusb"
_TO_HID = 0x21  # class request to an interface, either way
GET_PROTOCOL, SET_PROTOCOL = 3, 11
# GET_REPORT, GET_IDLE, GET_PROTOCOL, SET_REPORT, SET_IDLE, SET_PROTOCOL
_HID_REQUESTS = (1, 2, GET_PROTOCOL, 9, 10, SET_PROTOCOL)


class EchoDevice(SimulatedDevice):
    """A device that is nothing but its descriptors, with its bulk endpoints connected.

    Interfaces of HID answer what drivers ask of them, with reports of zeros. Ref: HID 1.11, 7.2
    """

    def __init__(self, info: DeviceInfo, descriptors: Descriptors) -> None:
        super().__init__(info, descriptors)
        self._protocols: dict[int, int] = {}

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        known = self._standard.descriptors.reports
        if setup.bmRequestType & 0x7F != _TO_HID or setup.wIndex not in known or setup.bRequest not in _HID_REQUESTS:
            return None
        if not setup.bmRequestType & DIR_IN:
            if setup.bRequest == SET_PROTOCOL:
                self._protocols[setup.wIndex] = setup.wValue & 1
            return b""
        protocol = bytes([self._protocols.get(setup.wIndex, 1)])
        return protocol if setup.bRequest == GET_PROTOCOL else bytes(setup.wLength)

    def received(self, address: int, data: bytes) -> None:
        endpoints = list(self._standard.endpoints)
        interface = next((e.bInterfaceNumber for e in endpoints if e.address == address), None)
        for endpoint in endpoints:
            bulk_in = endpoint.transfer_type == TransferType.BULK and endpoint.address & DIR_IN
            if bulk_in and endpoint.bInterfaceNumber == interface:
                self.loop_back(address, endpoint.address, data)
                return


def add_directory(server: Server, directory: Path, note: Callable[[str], None] = lambda text: None) -> list[DeviceInfo]:
    """Export each file NAME.lsusb of a folder under the busid NAME, replacing what is there.

    note: takes a sentence about each descriptor that a text does not show in full.
    Raises LocalProtocolError: no folder, or no such file in it. FileFormatError: files that are not such texts; nothing
    is exported then.
    """
    files = sorted(directory.glob(f"*{_SUFFIX}")) if directory.is_dir() else []
    if not files:
        shown = one_line(str(directory))
        raise LocalProtocolError(f"{shown} has no files BUSID{_SUFFIX}: save there what lsusb -v -d VID:PID prints")
    read: list[tuple[DeviceInfo, LsusbDescriptors]] = []
    wrong: list[tuple[Path, FileFormatError]] = []
    for path in files:
        try:
            read.append(read_lsusb(path))
        except FileFormatError as error:
            wrong.append((path, error))
    if wrong:
        others = ", ".join(one_line(path.name) for path, _ in wrong[1:])
        raise FileFormatError(f"{wrong[0][1]}" + (f" (nor can these be used: {others})" if others else ""))
    for info, descriptors in read:
        server.add(info, partial(open_device, info, descriptors))
        for sentence in descriptors.left_out:
            note(f"{info.busid}{_SUFFIX}: {sentence}")
    return [info for info, _ in read]


def open_device(info: DeviceInfo, descriptors: Descriptors) -> Device:
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
