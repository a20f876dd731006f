"""What the rig needs of the machine it runs on.

Debian 12 on amd64: its kernel package is what the guest boots, and its own programs go into the guest.
"""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KERNEL_PACKAGE = "linux-image-amd64"  # the cloud flavour has no USB at all

#: Copied into the guest, next to busybox.
GUEST_PROGRAMS = (
    "/usr/sbin/usbip",
    "/usr/sbin/usbipd",
    "/usr/bin/lsusb",
    "/usr/bin/aplay",
    "/usr/bin/arecord",
    "/usr/bin/tcpdump",
)
BUSYBOX = "/bin/busybox"

_PACKAGES = {
    "/usr/bin/qemu-system-x86_64": "qemu-system-x86",
    "/usr/bin/setpriv": "util-linux",
    BUSYBOX: "busybox-static",
    "/sbin/depmod": "kmod",
    "/usr/sbin/usbip": "usbip",
    "/usr/sbin/usbipd": "usbip",
    "/usr/bin/lsusb": "usbutils",
    "/usr/bin/aplay": "alsa-utils",
    "/usr/bin/arecord": "alsa-utils",
    "/usr/bin/tcpdump": "tcpdump",
}


class RigError(Exception):
    """The rig failed, or a command in the guest did: not a finding about what is being tested."""


def unsupported() -> str:
    """Why there can be no guest on this machine, as a sentence; empty when there can."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    system = (release.get("ID"), release.get("VERSION_ID"), platform.machine())
    if system != ("debian", "12", "x86_64"):
        return "a guest with a real kernel is made of the packages of Debian 12 on amd64"
    missing = sorted({package for path, package in _PACKAGES.items() if not Path(path).exists()})
    if missing:
        return f"a guest with a real kernel needs more packages: apt-get install {' '.join(missing)}"
    return ""


def cache() -> Path:
    """Where kernels, initramfs images and saved states are kept between runs.

    Not in XDG_CACHE_HOME: each test has one of its own, and would fetch, build and boot all of it again.
    """
    chosen = os.environ.get("USBIP_RIG_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "usbip-rig"


@contextmanager
def cache_to_itself() -> Iterator[None]:
    """One process after the other makes what the cache lacks, so that the next one finds it."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def output(*command: str | Path, cwd: Path | None = None) -> str:
    """What a program prints. Raises RigError with its complaint."""
    done = subprocess.run(command, text=True, capture_output=True, cwd=cwd, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RigError(f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout
