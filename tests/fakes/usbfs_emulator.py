"""Linux's usbfs on a machine without USB: a simulated device under the real libusb of another program.

    umockdev-wrapper /usr/bin/python3 usbfs_emulator.py DEVICE -- PROGRAM ARGUMENT...

The program sees one device, 1-1: the `demo`, or the one of PyUSB's own tests, `pyusb`. Needs the system's
Python, with PyGObject and UMockdev; PYTHONPATH leads to this package.
Ref: Linux include/uapi/linux/usbdevice_fs.h; drivers/usb/core/devio.c
"""

from __future__ import annotations

import errno
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from tests.fakes import pyusb_test_device
from tests.fakes.pyusb_test_device import PyusbTestDevice
from usbip_capture.demo import device as demo
from usbip_capture.demo.device import DemoDevice
from usbip_capture.device import Transfer
from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.usb import setup as requests
from usbip_capture.usb.descriptors import parse_configuration
from usbip_capture.usb.endpoints import EndpointMap
from usbip_capture.usb.info import Speed
from usbip_capture.usb.urb import DIR_IN, Completion, IsoPacket, TransferType, Urb

gi = import_module("gi")  # of the system's Python, unknown to checkers
gi.require_version("UMockdev", "1.0")
gi.require_version("GLib", "2.0")
UMockdev, GLib = import_module("gi.repository.UMockdev"), import_module("gi.repository.GLib")


def _ioctl(number: int, direction: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("U") << 8 | number


_READ, _WRITE, _NONE = 2, 1, 0
CLEARHALT = _ioctl(21, _READ, 4)
SETINTERFACE, SETCONFIGURATION = _ioctl(4, _READ, 8), _ioctl(5, _READ, 4)
GETDRIVER, IOCTL = _ioctl(8, _WRITE, 260), _ioctl(18, _READ | _WRITE, 16)
SUBMITURB, DISCARDURB = _ioctl(10, _READ, 56), _ioctl(11, _NONE, 0)
REAPURB, REAPURBNDELAY = _ioctl(12, _WRITE, 8), _ioctl(13, _WRITE, 8)
CLAIM, RELEASE, RESET = _ioctl(15, _READ, 4), _ioctl(16, _READ, 4), _ioctl(20, _NONE, 0)
GET_CAPABILITIES, GET_SPEED = _ioctl(26, _READ, 4), _ioctl(31, _NONE, 0)
#: Zero packets, no limit of packets, reaping after unplugging.
_CAPABILITIES = 0x01 | 0x04 | 0x10
#: struct usbdevfs_urb up to its packets: type, endpoint, status, flags, buffer, buffer_length, actual_length,
#: start_frame, number_of_packets, error_count, signr, usercontext
_URB = struct.Struct("<BBxxiI4xQiiiiiIQ")
_PACKET = struct.Struct("<IIi")
_TYPES = (TransferType.ISOCHRONOUS, TransferType.INTERRUPT, TransferType.CONTROL, TransferType.BULK)
DEVICES: dict[str, tuple[Callable[[], SimulatedDevice], Descriptors]] = {
    "demo": (DemoDevice, demo.DESCRIPTORS),
    "pyusb": (PyusbTestDevice, pyusb_test_device.DESCRIPTORS),
}
UNPLUG = b"\x40\x7f"
PLACE = "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-1"
DEVICE_FILE = "/dev/bus/usb/001/002"


class Usbfs:
    """One opened device file. on_unplugged: called when the program has asked for that, with vendor request 0x7F."""

    def __init__(self, device: SimulatedDevice, descriptors: Descriptors, on_unplugged: Callable[[], object]) -> None:
        self.device = device
        self.on_unplugged = on_unplugged
        self.endpoints = EndpointMap(parse_configuration(descriptors.configurations[0]), device.info.speed)
        self.claimed: set[int] = set()
        self.pending: dict[bytes, tuple[Transfer, Any, Any, int]] = {}
        self.ended: deque[tuple[bytes, Completion]] = deque()
        self.lock = threading.Lock()
        device.run(Urb.control(requests.set_configuration(1).pack()))

    def handle(self, _: object, client: Any) -> bool:
        request, argument = client.get_property("request") & 0xFFFFFFFF, client.get_property("arg")
        try:
            client.complete(*self.answer(request, argument))
        except Exception as error:  # noqa: BLE001  the program waits for an answer
            sys.stderr.write(f"usbfs: {error!r}\n")
            client.complete(-1, errno.EIO)
        return True

    def answer(self, request: int, argument: Any) -> tuple[int, int]:
        """What the system call returns, and errno."""
        if not self.device.alive and request not in (REAPURB, REAPURBNDELAY):
            return -1, errno.ENODEV
        if request == GET_CAPABILITIES:
            argument.resolve(0, 4).update(0, list(struct.pack("<I", _CAPABILITIES)))
        elif request in (CLAIM, RELEASE):
            (number,) = struct.unpack("<I", bytes(argument.resolve(0, 4).retrieve()))
            (self.claimed.add if request == CLAIM else self.claimed.discard)(number)
            if request == RELEASE:
                self.control(requests.set_interface(number, 0))
        elif request in (GETDRIVER, IOCTL):
            return -1, errno.ENODATA  # no driver is bound
        elif request == GET_SPEED:
            return self.device.info.speed, 0
        elif request == CLEARHALT:
            self.control(requests.clear_halt(*struct.unpack("<I", bytes(argument.resolve(0, 4).retrieve()))))
        elif request == SETCONFIGURATION:
            if self.claimed:
                return -1, errno.EBUSY
            self.control(requests.set_configuration(*struct.unpack("<I", bytes(argument.resolve(0, 4).retrieve()))))
        elif request == SETINTERFACE:
            self.control(requests.set_interface(*struct.unpack("<II", bytes(argument.resolve(0, 8).retrieve()))))
        elif request == SUBMITURB:
            return self.submit(argument)
        elif request == DISCARDURB:
            found = self.pending.get(bytes(argument.retrieve()))
            if found is None or found[0].completion is not None:
                return -1, errno.EINVAL
            self.device.cancel(found[0])
        elif request in (REAPURB, REAPURBNDELAY):
            return self.reap(argument)
        elif request != RESET:
            return -1, errno.ENOTTY
        return 0, 0

    def control(self, setup: requests.Setup) -> None:
        self.device.run(Urb.control(setup.pack()))
        self.endpoints.follow(setup.pack())

    def submit(self, argument: Any) -> tuple[int, int]:
        pointer, data = bytes(argument.retrieve()), argument.resolve(0, _URB.size)
        fields = _URB.unpack(bytes(data.retrieve())[: _URB.size])
        kind, endpoint, length, count = _TYPES[fields[0]], fields[1], fields[5], fields[8]
        if kind == TransferType.ISOCHRONOUS:
            argument.update(0, list(pointer))
            argument.reload()
            data = argument.resolve(0, _URB.size + _PACKET.size * count)
        if kind != TransferType.CONTROL and self.endpoints.find(endpoint) is None:
            return -1, errno.ENOENT
        buffer = data.resolve(16, length) if length else None
        content = bytes(buffer.retrieve()) if buffer is not None else b""
        urb = self.urb(kind, endpoint, content, bytes(data.retrieve())[_URB.size :], count)
        transfer = Transfer(urb, lambda completion: self.end(pointer, completion))
        self.pending[pointer] = (transfer, data, buffer, 8 if kind == TransferType.CONTROL else 0)
        self.device.submit(transfer)
        if content[:2] == UNPLUG and kind == TransferType.CONTROL:
            self.device.unplug()
            self.on_unplugged()
        return 0, 0

    def urb(self, kind: TransferType, endpoint: int, content: bytes, table: bytes, count: int) -> Urb:
        if kind == TransferType.CONTROL:
            return Urb.control(content[:8], content[8:] if not content[0] & DIR_IN else b"")
        packets, at = [], 0
        for number in range(count if kind == TransferType.ISOCHRONOUS else 0):
            size = _PACKET.unpack_from(table, _PACKET.size * number)[0]
            packets.append(IsoPacket(at, size))
            at += size
        length = at if kind == TransferType.ISOCHRONOUS else len(content)
        out = b"" if endpoint & DIR_IN else content[:length]
        return Urb(kind, endpoint, length, out, packets=packets, interval=8)

    def end(self, pointer: bytes, completion: Completion) -> None:
        with self.lock:
            self.ended.append((pointer, completion))

    def reap(self, argument: Any) -> tuple[int, int]:
        with self.lock:
            if not self.ended:
                return -1, errno.EAGAIN if self.device.alive else errno.ENODEV
            pointer, completion = self.ended.popleft()
        _, data, buffer, at = self.pending.pop(pointer)
        status = -errno.ENOENT if completion.status == -104 else completion.status
        data.update(4, list(struct.pack("<i", status)))
        data.update(28, list(struct.pack("<i", completion.actual_length)))
        taken, offset, table = 0, 0, b""
        for packet in completion.packets:
            piece = bytes(completion.data[taken : taken + packet.actual_length])
            if piece:
                buffer.update(offset, list(piece))
            taken += len(piece)
            offset += packet.length
            table += _PACKET.pack(packet.length, packet.actual_length, packet.status)
        if table:
            data.update(_URB.size, list(table))
        elif completion.data:
            buffer.update(at, list(bytes(completion.data)))
        result = argument.resolve(0, 8)
        result.set_ptr(0, data)
        return 0, 0


def description(device: SimulatedDevice, descriptors: Descriptors) -> str:
    """The device, and the controller's hub, as umockdev wants them."""
    raw = (descriptors.device + descriptors.configurations[0]).hex().upper()
    ids = tuple(f"{number:04x}" for number in device.info.vid_pid)
    manufacturer, product = descriptors.strings[:2]
    names = f"A: manufacturer={manufacturer}\\n\nA: product={product}\\n\n"
    speed = 12 if device.info.speed == Speed.FULL else 480
    hub = "12010002090001406B1D020001060302010109021900010100E0000904000001090000000705810304000C"
    texts = []
    for path, number, (vendor, model), hexed, extra in (
        ("usb1/1-1", 2, ids, raw, f"{names}A: speed={speed}\\n\n"),
        ("usb1", 1, ("1d6b", "0002"), hub, "A: speed=480\\n\n"),
    ):
        texts.append(
            f"P: /devices/pci0000:00/0000:00:14.0/{path}\nN: bus/usb/001/{number:03}\n"
            f"E: BUSNUM=001\nE: DEVNUM={number:03}\n"
            f"E: DEVNAME=/dev/bus/usb/001/{number:03}\nE: DEVTYPE=usb_device\nE: SUBSYSTEM=usb\nE: MAJOR=189\n"
            f"E: MINOR={number - 1}\nA: bConfigurationValue=1\\n\nA: busnum=1\\n\nA: devnum={number}\\n\n"
            f"A: devpath={number - 1}\\n\nA: idVendor={vendor}\\n\nA: idProduct={model}\\n\n"
            f"{extra}H: descriptors={hexed}\n"
        )
    return "\n".join(texts)


def main() -> int:
    """Run the program; its exit code."""
    testbed = UMockdev.Testbed.new()
    made = DEVICES[sys.argv[1]]
    device, descriptors = made[0](), made[1]
    testbed.add_from_string(description(device, descriptors))
    handler = UMockdev.IoctlBase()
    handler.connect("handle-ioctl", Usbfs(device, descriptors, partial(testbed.remove_device, PLACE)).handle)
    testbed.attach_ioctl(DEVICE_FILE, handler)
    loop = GLib.MainLoop()
    code: list[int] = []

    def run() -> None:
        code.append(subprocess.call(sys.argv[sys.argv.index("--") + 1 :]))
        loop.quit()

    threading.Thread(target=run, daemon=True).start()
    loop.run()
    return code[0]


if __name__ == "__main__":
    sys.exit(main())
