"""What this machine itself does with a USB device: its keyboard, a disk that is mounted, the way it is reached by.

Read from /sys and /proc, as in `holders`. Text of devices is cleaned: it goes to a screen.

Ref: Linux Documentation/ABI/testing/sysfs-block; proc(5), /proc/PID/mountinfo, /proc/swaps, /proc/net/route
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TypeAlias

from usbip_capture.devices.sysfs import ROOTS, Roots, folders, interfaces, is_hex, names, text
from usbip_capture.system.shown import one_line

#: Kinds of uses.
KEYBOARD, MOUSE, DISK, NETWORK = "keyboard", "mouse", "disk", "network"
_BOOT = ("/boot", "/efi")
#: What is made of a network adapter or a disk is followed so far.
_DEPTH = 8
#: The second half of a line of mountinfo begins after this.
_SEPARATOR = " - "
_RTF_UP, _RTF_REJECT = 0x1, 0x200
#: Destination, length of its prefix, and the adapter.
_Route: TypeAlias = "tuple[IPv4Address | IPv6Address, int, str]"


@dataclass(slots=True, frozen=True)
class Use:
    """What this machine does with a device. kind: KEYBOARD, MOUSE, DISK or NETWORK. name: such as sda1 or eth1.

    vital: who takes the device loses data or the machine: a mounted disk, swap, the network adapter that it is reached
    by. boot: the disk that the system runs or starts from. `str` is a phrase: "the disk sda1, mounted at /home".
    """

    kind: str
    name: str
    text: str
    vital: bool = False
    boot: bool = False

    def __str__(self) -> str:
        return self.text


def uses(sysfs: str, peers: Sequence[str] | None = None, roots: Roots = ROOTS) -> list[Use]:
    """What this machine does with a device: its keyboard or mouse, a disk in use, a network adapter.

    peers: addresses of those who are to be reached further on; None: whoever is logged in by ssh.
    """
    if peers is None:
        peers = os.environ.get("SSH_CONNECTION", "").split()[:1]
    found: list[Use] = []
    for folder in _below(sysfs):
        kind = folder.parent.name
        if kind == "input":
            found += _input_uses(folder)
        elif kind == "block":
            found += _disk_uses(folder, roots)
        elif kind == "net":
            found += _network_uses(folder, peers, roots)
    return list(dict.fromkeys(found))


# -- input


def _input_uses(folder: Path) -> Iterator[Use]:
    """Of an input device. Ref: systemd src/udev/udev-builtin-input_id.c"""
    keys, relative = (_last_word(folder / "capabilities" / name) for name in ("key", "rel"))
    name = one_line(text(folder / "name"))
    named = f" ({name})" if name else ""
    if keys & 0xFFFFFFFE == 0xFFFFFFFE:  # escape, digits, letters
        yield Use(KEYBOARD, folder.name, f"this machine's keyboard{named}")
    if relative & 3 == 3 or _last_word(folder / "properties") & 3:  # x and y; pointer, or touch screen
        yield Use(MOUSE, folder.name, f"this machine's mouse{named}")


def _last_word(path: Path) -> int:
    """The least significant word of a bit map, of which the kernel writes the most significant first."""
    words = text(path).split()
    return int(words[-1], 16) if words and is_hex(words[-1]) else 0


# -- disks


def _disk_uses(disk: Path, roots: Roots) -> Iterator[Use]:
    mounts, swaps = _mounts(roots), _swaps(roots)
    for folder in (disk, *(part for part in folders(disk) if (part / "partition").exists())):
        for block, called in _stack(folder, _DEPTH):
            yield from _block_uses(folder.name, block, called, mounts, swaps)


def _block_uses(
    disk: str, block: Path, called: set[str], mounts: list[tuple[str, str, str]], swaps: set[str]
) -> Iterator[Use]:
    """block: the disk itself, or what the kernel made of it, known as `called`."""
    by = "" if block.name == disk else f" by {min(called - {block.name}, default=block.name)}"
    number = text(block / "dev")
    # By name as well: the numbers of btrfs are its own.
    sources = {f"/dev/{name}" for name in called} | {f"/dev/mapper/{name}" for name in called}
    points = [where for dev, where, source in mounts if dev == number or source in sources]
    for where in sorted(set(points)):
        boot = where == "/" or where.startswith(_BOOT)
        yield Use(DISK, disk, f"the disk {disk}, mounted{by} at {one_line(where)}", True, boot)
    if swaps & called:
        yield Use(DISK, disk, f"the disk {disk}, used{by} for swapping", True)
    if by and not points and not swaps & called and not folders(block / "holders"):
        yield Use(DISK, disk, f"the disk {disk}, used{by}", True)


def _stack(block: Path, depth: int) -> Iterator[tuple[Path, set[str]]]:
    """A block device, and those that are made of it: encrypted, LVM, RAID; each with its names in /dev."""
    yield block, {block.name, *filter(None, [one_line(text(block / "dm" / "name"))])}
    for holder in folders(block / "holders") if depth else ():
        yield from _stack(holder.resolve(), depth - 1)


def _mounts(roots: Roots) -> list[tuple[str, str, str]]:
    """Device number, mount point and source of each mount that this process sees."""
    found = []
    for line in text(Path(roots.proc, "self", "mountinfo")).splitlines():
        first, separator, second = line.partition(_SEPARATOR)
        fields, source = first.split(" "), second.split(" ")
        if separator and len(fields) > 4 and len(source) > 1:
            found.append((fields[2], _unescaped(fields[4]), _unescaped(source[1])))
    return found


def _swaps(roots: Roots) -> set[str]:
    lines = text(Path(roots.proc, "swaps")).splitlines()[1:]
    return {os.path.basename(_unescaped(line.split()[0])) for line in lines if line.split()}


def _unescaped(written: str) -> str:
    r"""The kernel writes blanks as \040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8) & 0xFF), written)


# -- network adapters


def _network_uses(adapter: Path, peers: Sequence[str], roots: Roots) -> Iterator[Use]:
    what = f"the network adapter {adapter.name}"
    stack = _uppers(adapter.name, roots, _DEPTH)
    routes = _routes(roots)
    for peer in peers:
        if _way_to(peer, routes) in stack:
            yield Use(NETWORK, adapter.name, f"{what}, by which {one_line(peer)} is reached", True)
            return
    if any(name in stack and not length for _, length, name in routes):
        yield Use(NETWORK, adapter.name, f"{what}, which has the default route", True)
    else:
        yield Use(NETWORK, adapter.name, what)


def _uppers(name: str, roots: Roots, depth: int) -> set[str]:
    """The adapter, and what stands on it: bridges, bonds, VLANs."""
    found = {name}
    for entry in names(Path(roots.sys, "class", "net", name)) if depth else ():
        if entry.startswith("upper_"):
            found |= _uppers(entry.removeprefix("upper_"), roots, depth - 1)
    return found


def _routes(roots: Roots) -> list[_Route]:
    """Destination, length of its prefix and adapter of each route, those of IPv4 first."""
    found: list[_Route] = []
    for line in text(Path(roots.proc, "net", "route")).splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and is_hex(fields[1]) and is_hex(fields[3]) and is_hex(fields[7]):
            network = bytes.fromhex(fields[1].zfill(8))  # a number of this machine, whose bytes are the address
            if int(fields[3], 16) & _RTF_UP:
                address = network[::-1] if sys.byteorder == "little" else network
                found.append((IPv4Address(address), int(fields[7], 16).bit_count(), fields[0]))
    for line in text(Path(roots.proc, "net", "ipv6_route")).splitlines():
        fields = line.split()
        if len(fields) < 10 or len(fields[0]) != 32 or not all(map(is_hex, (fields[0], fields[1], fields[8]))):
            continue
        if int(fields[8], 16) & (_RTF_UP | _RTF_REJECT) == _RTF_UP:
            found.append((IPv6Address(bytes.fromhex(fields[0])), int(fields[1], 16), fields[9]))
    return found


def _way_to(peer: str, routes: list[_Route]) -> str:
    """The adapter by which an address is reached: that of the longest prefix; empty if it is not known."""
    written, zone, adapter = peer.partition("%")
    if zone:
        return adapter
    try:
        address = ip_address(written)
    except ValueError:
        return ""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    bits = address.max_prefixlen
    best, way = -1, ""
    for network, length, name in routes:
        if network.version != address.version or not best < length <= bits:
            continue
        if int(network) >> (bits - length) == int(address) >> (bits - length):
            best, way = length, name
    return way


def _below(sysfs: str) -> Iterator[Path]:
    """All folders that the kernel's drivers have made below the interfaces; links are not followed."""
    waiting = interfaces(sysfs)
    while waiting:
        folder = waiting.pop()
        for inner in folders(folder):
            if not inner.is_symlink():
                yield inner
                waiting.append(inner)
