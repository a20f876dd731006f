"""What a guest boots: the kernel, and an initramfs with busybox, the USB/IP tools, the modules and an agent.

Ref: Linux Documentation/driver-api/early-userspace/buffer-format.rst
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.kernel.rig.host import BUSYBOX, GUEST_PROGRAMS, RigError, output, unsupported
from tests.kernel.rig.kernel import extract_vmlinux, fetch_kernel, module_closure, modules_dir, strip_signature

USBIPD_PORT = 3240  # offers the devices bound to usbip-host
GADGET_PORT = 3241  # offers usbip-vudc, once there is a gadget
AGENT_PORT = 5555
READY = b"rig: ready"  # on the console, when usbipd listens

# Loaded by init, in this order; the rest is there for modprobe.
_BOOT_MODULES = (
    "virtio_pci", "virtio_net", "usbcore", "usbip-host", "xhci-pci", "ehci-pci", "uhci-hcd",
)  # fmt: skip
_MODULES = (
    *_BOOT_MODULES,
    "vhci-hcd", "usbip-vudc", "dummy_hcd", "libcomposite",
    "usb-storage", "uas", "sd_mod", "cdc-acm", "ftdi_sio", "cp210x", "ch341", "usbhid", "hid-generic", "evdev",
    "snd-usb-audio", "usblp", "cdc_ether", "rndis_host", "usbtest",
    "usb_f_acm", "usb_f_serial", "usb_f_ss_lb", "usb_f_mass_storage", "usb_f_hid", "usb_f_printer", "usbmon",
)  # fmt: skip

INIT = f"""#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t debugfs debugfs /sys/kernel/debug
mkdir -p /dev/pts /dev/shm && mount -t devpts pts /dev/pts
mkfifo /run/never
while read -r module; do insmod "$module"; done </etc/boot.modules
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
usbipd -4 -D -t {USBIPD_PORT}
echo "{READY.decode()}" >/dev/console
while :; do nc -ll -p {AGENT_PORT} -e /bin/agent; done
"""

# One command per connection: its first line is the command, the rest of what the host sends is the command's stdin.
# Programs are dear to start in emulation: no second shell, and pauses, of less than a second, within the shell.
_AGENT = r"""#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root LC_ALL=C
usleep() {
    set -- "000000$1"
    read -r -t "0.${1#${1%??????}}" _ <>/run/never || :
}
read -r command
(eval "$command") 2>&1
printf '\n\001rc=%d\n' $?
"""

_ETC = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
    "etc/group": "root:x:0:\naudio:x:29:\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "usr/share/misc/usb.ids": "",  # usbip wants one
}
_IMAGES_KEPT = 3
_FOLDERS = ("proc", "sys", "dev", "tmp", "root", "var/run", "var/lib", "mnt", "etc", "run")


class Cpio:
    """A cpio archive in the "newc" format, as the kernel unpacks it at boot."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._names: set[str] = set()

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        self._add(name, 0o100000 | mode, data)

    def link(self, name: str, target: str) -> None:
        self._add(name, 0o120777, target.encode())

    def folder(self, name: str) -> None:
        self._add(name, 0o040755)

    def character_device(self, name: str, major: int, minor: int) -> None:
        self._add(name, 0o020600, rdev=(major, minor))

    def finish(self) -> bytes:
        self._add("TRAILER!!!", 0)
        return bytes(self._out)

    def _add(self, name: str, mode: int, data: bytes = b"", rdev: tuple[int, int] = (0, 0)) -> None:
        """The first entry of a name counts; folders on its way are made."""
        name = name.strip("/")
        if name in self._names:
            return
        parent = os.path.dirname(name)
        if parent:
            self.folder(parent)
        self._names.add(name)
        ino, nlink = len(self._names), 1
        fields = (ino, mode, 0, 0, nlink, 0, len(data), 0, 0, *rdev, len(name) + 1, 0)
        self._padded(b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0")
        self._padded(data)

    def _padded(self, data: bytes) -> None:
        self._out += data
        self._out += bytes(-len(self._out) % 4)


def prepare(*, update: bool = False) -> tuple[Path, Path]:
    """Kernel and initramfs, made when they are not in the cache. Raises RigError.

    update: look for a newer kernel.
    """
    if reason := unsupported():
        raise RigError(reason)
    tree = fetch_kernel(update=update)
    key = hashlib.sha256(Path(__file__).read_bytes())
    for program in (BUSYBOX, *GUEST_PROGRAMS):
        key.update(Path(program).read_bytes())
    kernel = tree / "vmlinux"
    initramfs = tree / f"initramfs-{key.hexdigest()[:12]}.cpio"
    make(kernel, lambda: extract_vmlinux(next(tree.glob("boot/vmlinuz-*")).read_bytes()))
    make(initramfs, lambda: _initramfs(tree))
    os.utime(initramfs)
    remove_older(tree, "initramfs-*.cpio")
    return kernel, initramfs


def make(path: Path, content: Callable[[], bytes]) -> None:
    """Write a file of the cache if it is not there, whole or not at all."""
    if not path.exists():
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_bytes(content())
        scratch.rename(path)


def remove_older(folder: Path, images: str) -> None:
    """Keep the last few: several copies of the project may share the cache."""
    for old in sorted(folder.glob(images), key=os.path.getmtime)[:-_IMAGES_KEPT]:
        old.unlink(missing_ok=True)


def _initramfs(tree: Path) -> bytes:
    cpio = Cpio()
    for folder in _FOLDERS:
        cpio.folder(folder)
    cpio.character_device("dev/console", 5, 1)
    cpio.file("init", INIT.encode(), 0o755)
    cpio.file("bin/agent", _AGENT.encode(), 0o755)
    for name, text in _ETC.items():
        cpio.file(name, text.encode())
    _add_programs(cpio)
    _add_modules(cpio, modules_dir(tree))
    return cpio.finish()


def _add_programs(cpio: Cpio) -> None:
    cpio.file(BUSYBOX, Path(BUSYBOX).read_bytes(), 0o755)
    for applet in output(BUSYBOX, "--list").split():
        cpio.link(f"bin/{applet}", "busybox")
    for path in (*GUEST_PROGRAMS, *shared_libraries(GUEST_PROGRAMS)):
        cpio.file(path, Path(path).read_bytes(), 0o755)
    alsa = Path("/usr/share/alsa")
    for config in (alsa / "alsa.conf", *sorted((alsa / "pcm").glob("*"))):
        cpio.file(str(config), config.read_bytes())


def shared_libraries(programs: Iterable[str]) -> list[str]:
    """Those of this machine that programs are linked with."""
    found: set[str] = set()
    for program in programs:
        listed = subprocess.run(["ldd", program], text=True, capture_output=True, check=False).stdout
        found.update(word for word in listed.split() if word.startswith("/"))
    return sorted(found)


def _add_modules(cpio: Cpio, folder: Path) -> None:
    base = f"lib/modules/{folder.name}"
    order = module_closure(folder, _MODULES)
    for path in order:
        cpio.file(f"{base}/{path}", strip_signature((folder / path).read_bytes()))
    depends = (folder / "modules.dep").read_text().splitlines()
    kept = [line for line in depends if line.partition(":")[0] in order]
    cpio.file(f"{base}/modules.dep", "".join(f"{line}\n" for line in kept).encode())
    boot = module_closure(folder, _BOOT_MODULES)
    cpio.file("etc/boot.modules", "".join(f"/{base}/{path}\n" for path in boot).encode())
