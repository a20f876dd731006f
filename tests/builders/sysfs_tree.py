"""A machine's /sys, /proc and /dev as folders of a test, made as the Linux kernel shows USB devices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from usbip_capture.devices.sysfs import Roots

KEYBOARD_KEYS = "10000 7 ff9f207ac14057ff febeffdfffefffff fffffffffffffffe"


@dataclass
class Machine:
    """`folder` gets sys, proc and dev."""

    folder: Path

    @property
    def roots(self) -> Roots:
        return Roots(*(str(self.folder / name) for name in ("sys", "proc", "dev")))

    def device(
        self, busid: str = "1-1.4", *, devnum: int = 7, driver: str = "usb", controller: str = "", **files: str
    ) -> str:
        """A device of bus `busid`; files: its attributes. Returns its sysfs folder, as the kernel links it."""
        bus = int(busid.partition("-")[0])
        real = self.folder / "sys/devices" / (controller or "pci0000:00/0000:00:14.0") / f"usb{bus}" / busid
        real.mkdir(parents=True)
        given = {"busnum": str(bus), "devnum": str(devnum), "bDeviceClass": "00", **files}
        for name, text in given.items():
            (real / name).write_text(text + "\n")
        self._bind(real, driver)
        link = self.folder / "sys/bus/usb/devices" / busid
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(real)
        node = self.node(bus, devnum)
        node.parent.mkdir(parents=True, exist_ok=True)
        node.touch()
        return str(link)

    def interface(self, sysfs: str, number: int, driver: str = "") -> Path:
        """An interface of the device, perhaps with its driver. Returns its folder."""
        at = Path(sysfs).resolve()
        made = at / f"{at.name}:1.{number}"
        made.mkdir()
        (made / "bInterfaceNumber").write_text(f"{number:02x}\n")
        self._bind(made, driver)
        return made

    def input(self, interface: Path, name: str, **capabilities: str) -> None:
        """An input device below an interface. capabilities: bit maps, such as key and rel; properties too."""
        made = interface / "0003:303A:4001.0001/input/input3"
        (made / "capabilities").mkdir(parents=True)
        (made / "event3").mkdir()
        (made / "name").write_text(name + "\n")
        (made / "properties").write_text(capabilities.pop("properties", "0") + "\n")
        for kind, bits in {"key": "0", "rel": "0", **capabilities}.items():
            (made / "capabilities" / kind).write_text(bits + "\n")

    def disk(self, interface: Path, name: str = "sda", partitions: int = 1) -> Path:
        """A disk below an interface, its partitions 8:1 and on."""
        made = interface / "host2/target2:0:0/2:0:0:0/block" / name
        for number in range(partitions + 1):
            folder = made / f"{name}{number}" if number else made
            (folder / "holders").mkdir(parents=True)
            (folder / "dev").write_text(f"8:{number}\n")
            if number:
                (folder / "partition").write_text(f"{number}\n")
        return made

    def mapped(self, block: Path, name: str, called: str, minor: int = 0) -> Path:
        """A block device of the device mapper that is made of another one."""
        made = self.folder / "sys/devices/virtual/block" / name
        (made / "holders").mkdir(parents=True)
        (made / "dm").mkdir()
        (made / "dev").write_text(f"253:{minor}\n")
        (made / "dm/name").write_text(called + "\n")
        (block / "holders" / name).symlink_to(made)
        return made

    def adapter(self, interface: Path, name: str = "eth1", upper: str = "") -> None:
        """A network adapter below an interface, perhaps part of `upper`, such as a bridge."""
        made = interface / "net" / name
        (made / "queues").mkdir(parents=True)
        known = self.folder / "sys/class/net" / name
        known.parent.mkdir(parents=True, exist_ok=True)
        known.symlink_to(made)
        if upper:
            above = self.folder / "sys/class/net" / upper
            above.mkdir()
            (made / f"upper_{upper}").symlink_to(above)

    def process(self, pid: int, name: str, *open_files: str) -> None:
        """A program; open_files: the absolute paths that its descriptors link to."""
        made = self.folder / "proc" / str(pid)
        (made / "fd").mkdir(parents=True)
        (made / "comm").write_text(name + "\n")
        for number, path in enumerate(open_files):
            (made / "fd" / str(number)).symlink_to(path)

    def proc(self, path: str, *lines: str) -> None:
        """A file below /proc."""
        made = self.folder / "proc" / path
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text("".join(f"{line}\n" for line in lines))

    def node(self, bus: int = 1, devnum: int = 7) -> Path:
        """The file of usbfs of a device."""
        return self.folder / f"dev/bus/usb/{bus:03d}/{devnum:03d}"

    def _bind(self, folder: Path, driver: str) -> None:
        if driver:
            made = self.folder / "sys/bus/usb/drivers" / driver
            made.mkdir(parents=True, exist_ok=True)
            (folder / "driver").symlink_to(made)
