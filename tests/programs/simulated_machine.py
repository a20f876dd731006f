"""A machine for programs of ours that a test starts: `usb1` is simulated there, and told by a named pipe what to do.

`environment(folder)` is for the program; `Machine(folder)` is the test's end.
"""

from __future__ import annotations

import atexit
import os
import threading
from dataclasses import replace
from pathlib import Path

from tests.fakes.simulated_usb1 import SimulatedUsb1, USBDevice
from tests.programs.commands import ROOT, command_environment
from usbip_capture.demo.device import DESCRIPTORS, INFO, DemoDevice
from usbip_capture.simulated.chapter9 import StandardRequests

_SITE = Path(__file__).parent / "simulated_site"
_VARIABLE = "SIMULATED_MACHINE"
#: Where a device is plugged in from the beginning: no real machine has such a port.
PORT, BUSID = "9.9", "1-9.9"


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


def _plug(made: SimulatedUsb1, port: str, vendor: int, product: int) -> USBDevice:
    info = replace(INFO, busid=f"1-{port}", devnum=made_number(made), idVendor=vendor, idProduct=product)
    device = DemoDevice(info)
    descriptor = bytearray(DESCRIPTORS.device)
    descriptor[8:12] = vendor.to_bytes(2, "little") + product.to_bytes(2, "little")
    device._standard = StandardRequests(replace(DESCRIPTORS, device=bytes(descriptor)), info.speed)
    attached = made.plug(device, tuple(map(int, port.split("."))))
    attached.bind(0, "cdc_acm")
    attached.bind(2, "usbhid")
    return attached


def made_number(made: SimulatedUsb1) -> int:
    """A device address that was not used before."""
    made.addresses = getattr(made, "addresses", 2) + 1  # type: ignore[attr-defined]
    return int(made.addresses)  # type: ignore[attr-defined]


def _obey(made: SimulatedUsb1, plugged: dict[str, USBDevice], path: str) -> None:
    with open(path, encoding="utf-8") as orders:
        for order in orders:
            action, port, *identity = order.split()
            if action == "unplug" or port in plugged:
                made.unplug(plugged.pop(port))
            if action == "plug":
                vendor, product = (int(number, 16) for number in identity[0].split(":"))
                plugged[port] = _plug(made, port, vendor, product)
