"""A machine with hubs and devices, its server with a dashboard, and clients that do transfers all the time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

from tests.fakes.local_machine import LocalMachine, local_machine
from tests.fakes.simulated_usb1 import USBDevice
from tests.web.dashboards import ANY
from usbip_capture import LocalServer, serve
from usbip_capture.demo.device import BULK_IN, BULK_OUT, DemoDevice
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.errors import UsbipError
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.usb.setup import set_configuration
from usbip_capture.usb.urb import TransferType, Urb
from usbip_capture.web.dashboard import Dashboard

_TIMEOUT = 20.0
#: Ports of the hubs that are there: a controller's own, and one plugged into its port 1.
HUBS = {"usb1": 4, "1-1": 7}


class Lab(NamedTuple):
    """boards: what is plugged in, by busid."""

    machine: LocalMachine
    server: LocalServer
    made: Dashboard
    boards: dict[str, USBDevice]

    def unplug(self, busid: str) -> None:
        """The system's files show it no more, too."""
        link = self._link(busid)
        link.rename(link.with_name(f"{busid}:gone"))
        self.machine.usb1.unplug(self.boards[busid])

    def plug_again(self, busid: str) -> None:
        """The same board at the same port."""
        info = self.boards[busid].device.info
        link = self._link(busid)
        link.with_name(f"{busid}:gone").rename(link)
        ports = [int(port) for port in busid.partition("-")[2].split(".")]
        self.boards[busid] = self.machine.usb1.plug(DemoDevice(info), ports)

    def _link(self, busid: str) -> Path:
        return self.machine.files.folder / "sys/bus/usb/devices" / busid

    @contextmanager
    def client(self, busid: str) -> Iterator[BusyClient]:
        """One that has this device, and uses it until the end of the block."""
        busy = BusyClient(self.server, busid)
        try:
            yield busy
        finally:
            busy.close()


class BusyClient:
    """Writes, and reads what it wrote, again and again. ended: set once it has lost its device, or was closed."""

    def __init__(self, server: LocalServer, busid: str) -> None:
        address = ServerAddress.parse(server.address, timeout=_TIMEOUT)
        self._device = address.import_device(Selector(busid))
        self._closing = threading.Event()
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"client of {busid}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join(_TIMEOUT)
        self._device.close()

    def _run(self) -> None:
        try:
            self._device.run(Urb.control(set_configuration(1).pack()), _TIMEOUT)
            while not self._closing.wait(0.02) and self._device.alive:
                self._device.run(Urb(TransferType.BULK, BULK_OUT, 512, bytes(512)), _TIMEOUT)
                self._device.run(Urb(TransferType.BULK, BULK_IN, 512), _TIMEOUT)
        except UsbipError:
            pass  # it was disconnected
        self.ended.set()


@contextmanager
def lab(folder: Path, **settings: Any) -> Iterator[Lab]:
    """1-1.4 and 1-1.2 behind a hub, and 1-3."""
    with local_machine(folder) as machine:
        boards = {
            "1-1.4": machine.plug_demo(1, 4, product="Sensor board", serial="S-0001"),
            "1-1.2": machine.plug_demo(1, 2, devnum=8, product="Loop-back board", serial="L-0002"),
            "1-3": machine.plug_demo(3, devnum=9, product="Spare board", serial="R-0003"),
        }
        for name, ports in HUBS.items():
            hub = folder / "sys/bus/usb/devices" / name
            hub.mkdir(parents=True, exist_ok=True)
            (hub / "maxchild").write_text(f"{ports}\n")
        with serve(["all"], bus=LocalBus.shared(), **{"listen": ANY, "web": ANY, **settings}) as server:
            yield Lab(machine, server, cast("Dashboard", server.dashboard), boards)
