"""A machine for programs of ours that a test starts: `usb1` is simulated there, and told by a named pipe what to do.

`environment(folder)` is for the program; `Machine(folder)` is the test's end.
"""

from __future__ import annotations

import atexit
import os
import threading
from dataclasses import replace
from itertools import count
from pathlib import Path

from tests.fakes.simulated_usb1 import SimulatedUsb1, USBDevice
from tests.programs.commands import ROOT, command_environment
from usbip_capture.demo.device import DESCRIPTORS, INFO, DemoDevice
from usbip_capture.simulated.chapter9 import StandardRequests
from usbip_capture.usb.info import DeviceInfo

_SITE = Path(__file__).parent / "simulated_site"
_VARIABLE = "SIMULATED_MACHINE"
#: Where a device is plugged in from the beginning: no real machine has such a port.
PORT, BUSID = "9.9", "1-9.9"
_addresses = count(3)


class Machine:
    """The test's end. folder: of the program, too."""

    def __init__(self, folder: Path) -> None:
        os.mkfifo(folder / "machine")
        self._fd = os.open(folder / "machine", os.O_RDWR)
        self._folder = folder

    def plug(self, port: str, vid_pid: str = "1209:0001") -> None:
        """Put a demo device of this identity at a port such as 9.8."""
        os.write(self._fd, f"plug {port} {vid_pid}\n".encode())

    def unplug(self, port: str) -> None:
        os.write(self._fd, f"unplug {port}\n".encode())

    @property
    def calls(self) -> list[str]:
        """What libusb was asked for, once the program has ended in order."""
        return (self._folder / "machine.calls").read_text().splitlines()

    def close(self) -> None:
        os.close(self._fd)


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a program whose machine has a `Machine(folder)`."""
    search = os.pathsep.join([str(_SITE), str(ROOT)])
    return command_environment(
        folder,
        **{_VARIABLE: str(folder / "machine"), "PYTHONPATH": search, "XDG_STATE_HOME": str(folder / "state"), **more},
    )


# -- in the program


def module() -> SimulatedUsb1:
    """What `usb1` is there."""
    made = SimulatedUsb1()
    path = os.environ[_VARIABLE]
    plugged = {PORT: _plug(made, PORT, INFO.idVendor, INFO.idProduct)}
    threading.Thread(target=_obey, args=(made, plugged, path), daemon=True).start()
    atexit.register(lambda: Path(f"{path}.calls").write_text("".join(f"{call}\n" for call in made.calls)))
    return made


class _Identified(DemoDevice):
    """The demo device with another identity."""

    def __init__(self, info: DeviceInfo) -> None:
        super().__init__(info)
        identity = info.idVendor.to_bytes(2, "little") + info.idProduct.to_bytes(2, "little")
        device = DESCRIPTORS.device[:8] + identity + DESCRIPTORS.device[12:]
        self._standard = StandardRequests(replace(DESCRIPTORS, device=device), info.speed)


def _plug(made: SimulatedUsb1, port: str, vendor: int, product: int) -> USBDevice:
    number = next(_addresses)
    device = _Identified(replace(INFO, busid=f"1-{port}", devnum=number, idVendor=vendor, idProduct=product))
    attached = made.plug(device, tuple(map(int, port.split("."))))
    attached.bind(0, "cdc_acm")
    attached.bind(2, "usbhid")
    return attached


def _obey(made: SimulatedUsb1, plugged: dict[str, USBDevice], path: str) -> None:
    with open(path, encoding="utf-8") as orders:
        for order in orders:
            action, port, *identity = order.split()
            if action == "unplug" or port in plugged:
                made.unplug(plugged.pop(port))
            if action == "plug":
                vendor, product = (int(number, 16) for number in identity[0].split(":"))
                plugged[port] = _plug(made, port, vendor, product)
