"""What this machine does with a device: its keyboard, a disk that is mounted, the way it is reached by."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.builders.sysfs_tree import KEYBOARD_KEYS, Machine
from usbip_capture.devices.uses import DISK, KEYBOARD, MOUSE, NETWORK, Use, uses

_HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def found(machine: Machine, sysfs: str, *peers: str) -> list[Use]:
    return uses(sysfs, peers, machine.roots)


def phrases(machine: Machine, sysfs: str, *peers: str) -> list[str]:
    return [str(use) for use in found(machine, sysfs, *peers)]


def route(name: str, network: str, mask: str, flags: str = "0003") -> str:
    """A line of /proc/net/route; the kernel writes addresses as numbers of this machine."""

    def number(address: str) -> str:
        raw = bytes(map(int, address.split(".")))
        return f"{int.from_bytes(raw, sys.byteorder):08X}"

    return f"{name}\t{number(network)}\t00000000\t{flags}\t0\t0\t0\t{number(mask)}\t0\t0\t0"


def test_a_keyboard_and_a_mouse(machine: Machine) -> None:
    sysfs = machine.device()
    machine.input(machine.interface(sysfs, 0, "usbhid"), "Acme \x1bKeyboard", key=KEYBOARD_KEYS)
    machine.input(machine.interface(sysfs, 1, "usbhid"), "Acme Mouse", key="70000 0 0 0 0", rel="103")
    machine.input(machine.interface(sysfs, 2, "usbhid"), "Acme Volume", key="3e000b00000000 0 0 0")
    machine.input(machine.interface(sysfs, 3, "usbhid"), "", properties="2")
    listed = sorted(found(machine, sysfs), key=lambda use: use.text)
    assert [use.kind for use in listed] == [KEYBOARD, MOUSE, MOUSE]
    assert [str(use) for use in listed] == [
        r"this machine's keyboard (Acme \x1bKeyboard)",
        "this machine's mouse",
        "this machine's mouse (Acme Mouse)",
    ]
    assert not any(use.vital or use.boot for use in listed)


def test_a_disk_that_nobody_has_mounted_is_not_in_use(machine: Machine) -> None:
    sysfs = machine.device()
    machine.disk(machine.interface(sysfs, 0, "usb-storage"), partitions=2)
    machine.proc("self/mountinfo", "23 1 8:17 / / rw shared:1 - ext4 /dev/sdb1 rw")
    assert found(machine, sysfs) == []


def test_mounted_disks(machine: Machine) -> None:
    sysfs = machine.device()
    machine.disk(machine.interface(sysfs, 0, "usb-storage"), partitions=3)
    machine.proc(
        "self/mountinfo",
        "23 1 8:1 / /media/a\\040stick rw shared:1 - vfat /dev/sda1 rw",
        "24 1 0:30 /@ /boot/efi rw - btrfs /dev/sda2 rw",
        "25 1 0:31 / /mnt rw - nfs4 server:/dev/sda3 rw",
        "garbage",
        "26 1 0:5 / /dev rw",
    )
    listed = found(machine, sysfs)
    assert [(use.name, str(use), use.vital, use.boot) for use in listed] == [
        ("sda1", "the disk sda1, mounted at /media/a stick", True, False),
        ("sda2", "the disk sda2, mounted at /boot/efi", True, True),
    ]
    assert {use.kind for use in listed} == {DISK}


def test_swap(machine: Machine) -> None:
    sysfs = machine.device()
    machine.disk(machine.interface(sysfs, 0, "uas"), partitions=1)
    machine.proc("swaps", "Filename\t\tType\t\tSize", "/dev/sda1 partition 1048572 0 -2")
    assert [(str(use), use.vital) for use in found(machine, sysfs)] == [("the disk sda1, used for swapping", True)]


def test_encrypted_volumes_on_a_disk(machine: Machine) -> None:
    sysfs = machine.device()
    disk = machine.disk(machine.interface(sysfs, 0, "uas"), partitions=1)
    opened = machine.mapped(disk / "sda1", "dm-0", "opened")
    machine.mapped(opened, "dm-1", "vg-root", 1)
    machine.mapped(opened, "dm-2", "vg-swap", 2)
    machine.mapped(opened, "dm-3", "vg-spare", 3)
    machine.proc("self/mountinfo", "23 1 253:1 / / rw - ext4 /dev/mapper/vg-root rw")
    machine.proc("swaps", "Filename", "/dev/dm-2 partition 1 0 -2")
    listed = found(machine, sysfs)
    assert [(str(use), use.boot) for use in listed] == [
        ("the disk sda1, mounted by vg-root at /", True),
        ("the disk sda1, used by vg-swap for swapping", False),
        ("the disk sda1, used by vg-spare", False),
    ]
    assert all(use.vital for use in listed)


def test_a_network_adapter_without_routes(machine: Machine) -> None:
    sysfs = machine.device()
    machine.adapter(machine.interface(sysfs, 0, "cdc_ether"))
    machine.proc("net/route", _HEADER, route("eth0", "0.0.0.0", "0.0.0.0"))
    assert found(machine, sysfs) == [Use(NETWORK, "eth1", "the network adapter eth1")]


def test_the_default_route(machine: Machine) -> None:
    sysfs = machine.device()
    machine.adapter(machine.interface(sysfs, 0, "cdc_ether"))
    machine.proc("net/route", _HEADER, route("eth1", "0.0.0.0", "0.0.0.0"))
    assert found(machine, sysfs) == [
        Use(NETWORK, "eth1", "the network adapter eth1, which has the default route", True)
    ]


def test_the_default_route_of_ipv6(machine: Machine) -> None:
    sysfs = machine.device()
    machine.adapter(machine.interface(sysfs, 0, "cdc_ether"))
    zero = "0" * 32
    machine.proc("net/ipv6_route", f"{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 eth1")
    assert phrases(machine, sysfs) == ["the network adapter eth1"]  # a route that rejects
    machine.proc("net/ipv6_route", f"{zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 00000003 eth1")
    assert phrases(machine, sysfs) == ["the network adapter eth1, which has the default route"]


@pytest.mark.parametrize(
    ("peer", "is_reached"),
    [
        ("192.0.2.77", True),
        ("::ffff:192.0.2.77", True),
        ("198.51.100.1", False),
        ("2001:db8::5", True),
        ("2001:db8:1::5", False),
        ("fe80::1%eth1", True),
        ("fe80::1%eth0", False),
        ("no address", False),
    ],
)
def test_the_way_to_who_is_logged_in(machine: Machine, peer: str, is_reached: bool) -> None:
    sysfs = machine.device()
    machine.adapter(machine.interface(sysfs, 0, "cdc_ether"))
    machine.proc(
        "net/route",
        _HEADER,
        route("eth0", "0.0.0.0", "0.0.0.0"),
        route("eth1", "192.0.2.0", "255.255.255.0"),
        "garbage",
    )
    network = "20010db8" + "0" * 24
    zero = "0" * 32
    machine.proc("net/ipv6_route", f"{network} 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 eth1")
    expected = f"the network adapter eth1, by which {peer} is reached" if is_reached else "the network adapter eth1"
    assert phrases(machine, sysfs, peer) == [expected]


def test_who_is_logged_in_by_ssh(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    sysfs = machine.device()
    machine.adapter(machine.interface(sysfs, 0, "cdc_ether"))
    machine.proc("net/route", _HEADER, route("eth1", "192.0.2.0", "255.255.255.0"))
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.5 50000 192.0.2.1 22")
    assert [use.vital for use in uses(sysfs, roots=machine.roots)] == [True]
    monkeypatch.delenv("SSH_CONNECTION")
    assert [use.vital for use in uses(sysfs, roots=machine.roots)] == [False]


def test_an_adapter_in_a_bridge(machine: Machine) -> None:
    sysfs = machine.device()
    machine.adapter(machine.interface(sysfs, 0, "cdc_ether"), upper="br0")
    machine.proc("net/route", _HEADER, route("br0", "0.0.0.0", "0.0.0.0"))
    assert phrases(machine, sysfs) == ["the network adapter eth1, which has the default route"]


def test_what_hangs_on_a_hub_is_not_the_hubs(machine: Machine) -> None:
    hub = machine.device("1-1", devnum=2)
    machine.interface(hub, 0, "hub")
    behind = Path(hub).resolve() / "1-1.4"
    interface = behind / "1-1.4:1.0"
    interface.mkdir(parents=True)
    machine.disk(interface)
    machine.proc("self/mountinfo", "23 1 8:1 / / rw - ext4 /dev/sda1 rw")
    assert found(machine, hub) == []
    assert phrases(machine, str(behind)) == ["the disk sda1, mounted at /"]


def test_no_folder_at_all(machine: Machine) -> None:
    assert found(machine, "") == []
    assert found(machine, str(machine.folder / "nowhere")) == []
