"""`usbip-capture serve` in a guest with Python, over the devices plugged into it, taken from that guest's drivers."""

from __future__ import annotations

from pathlib import Path

from tests.kernel.rig import PythonGuest
from usbip_capture.devices.devlist import list_devices
from usbip_capture.net.connecting import connect
from usbip_capture.net.transport import SocketTransport
from usbip_capture.usb.info import DeviceInfo

PORT = 3242  # in the guest
TIMEOUT = 60.0


class Lending:
    """port: where the server answers on this machine's loopback. program: the server's process.

    arguments: of the server, beside the usual ones.
    """

    def __init__(self, guest: PythonGuest, *arguments: str) -> None:
        self.guest = guest
        self.port = guest.forward(PORT)
        self._plugged: list[str] = []
        self.start(*arguments)

    def start(self, *arguments: str) -> None:
        """Start the server's program: again, after `stop` or its death."""
        self._arguments = arguments
        options = ["--all", "--listen", f"0.0.0.0:{PORT}", "--allow-public", "--no-announce", "--no-live"]
        self.program = self.guest.start("-m", "usbip_capture", "serve", *options, *arguments)
        self.program.wait_printed("serving at ", 300)

    def stop(self) -> str:
        """End it as Ctrl-C does; all that it has printed."""
        self.program.signal("INT")
        self.program.wait_ended()
        return self.program.printed()

    def lend(
        self,
        kind: str,
        bus: str = "xhci",
        *,
        file: Path | None = None,
        socket: Path | None = None,
        driver: str = "",
    ) -> str:
        """Plug a device in, as `Guest.plug` does; its busid, once it can be imported and its `driver` is bound."""
        busid = self.guest.plug(kind, bus, file=file, socket=socket)
        self._plugged.append(busid)
        if driver:
            self.wait_driver(busid, driver)
        if kind != "hub":
            self.wait_available(busid)
        return busid

    def wait_available(self, busid: str) -> DeviceInfo:
        """Until the device that is plugged in there is offered: a new one, or one that a client had.

        Not the one before it, whose session has just ended, and which the server withdraws next.
        """
        return self.guest.wait_until(lambda: self._offered_now(busid), TIMEOUT)[0]

    def _offered_now(self, busid: str) -> list[DeviceInfo]:
        devnum = self.guest.run(f"cat /sys/bus/usb/devices/{busid}/devnum", check=False).text.strip()
        return [info for info in self.offered() if (info.busid, str(info.devnum)) == (busid, devnum)]

    def wait_removed(self, busid: str) -> None:
        """Until a device is offered no more."""
        self.guest.wait_until(lambda: busid not in [info.busid for info in self.offered()], TIMEOUT)

    def wait_driver(self, busid: str, driver: str) -> None:
        """Until a driver of the guest's kernel has the device's first interface."""
        self.guest.wait_until(lambda: driver in self.drivers(busid).values(), TIMEOUT)

    def offered(self) -> list[DeviceInfo]:
        """What the server lists: the devices that nobody has."""
        return list_devices(SocketTransport(connect("127.0.0.1", self.port, TIMEOUT), "the guest"), TIMEOUT)

    def drivers(self, busid: str) -> dict[str, str]:
        """Which driver of the guest's kernel has which interface of a device."""
        folders = f"/sys/bus/usb/devices/{busid}:*"
        listed = self.guest.run(f"for i in {folders}; do [ -e $i/driver ] && echo $i $(readlink $i/driver); done; true")
        # A driver may leave between the two looks.
        pairs = (pair for line in listed.text.splitlines() if len(pair := line.split()) == 2)
        return {folder.rpartition(":")[2]: driver.rpartition("/")[2] for folder, driver in pairs}

    def unplug(self, busid: str) -> None:
        """Pull a device out, and wait until the server, if it runs, has noticed."""
        self._plugged.remove(busid)
        self.guest.unplug(busid)
        if self.program.alive:
            self.wait_removed(busid)

    def restore(self) -> None:
        """As it was in the beginning: nothing is plugged in, and the server runs, without arguments."""
        for busid in reversed(list(self._plugged)):
            self.unplug(busid)
        if self._arguments and self.program.alive:
            self.stop()
        if not self.program.alive:
            self.start()

    def close(self) -> None:
        """Unplug what is plugged in, and stop the server if it runs."""
        for busid in reversed(list(self._plugged)):
            self.unplug(busid)
        if self.program.alive:
            self.stop()
