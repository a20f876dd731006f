"""Who holds a device, and what stands in the way of lending it: read from folders made as the kernel makes them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders.sysfs_tree import Machine
from usbip_capture.devices.holders import (
    SOMEBODY,
    Holder,
    attached_from_elsewhere,
    device_holder,
    interface_holders,
    obstacle,
    openers,
    remedy,
    udev_rule,
)
from usbip_capture.devices.sysfs import device_node
from usbip_capture.usb.info import DeviceInfo, Speed

INFO = DeviceInfo("1-1.4", 1, 7, Speed.FULL, 0x303A, 0x4001)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_kernel_drivers_of_the_interfaces(machine: Machine) -> None:
    sysfs = machine.device()
    machine.interface(sysfs, 0, "cdc_acm")
    machine.interface(sysfs, 1, "cdc_acm")
    machine.interface(sysfs, 2)
    machine.interface(sysfs, 10, "usbhid")
    held = interface_holders(sysfs, machine.roots)
    assert {number: str(holder) for number, holder in held.items()} == {0: "cdc_acm", 1: "cdc_acm", 10: "usbhid"}
    assert device_holder(sysfs) is None


def test_the_program_that_holds_an_interface_by_usbfs(machine: Machine) -> None:
    sysfs = machine.device(devnum=7)
    machine.interface(sysfs, 0, "usbfs")
    machine.process(4711, "openocd", "/dev/null", "/dev/bus/usb/001/007")
    machine.process(4712, "other", "/dev/bus/usb/001/008", "socket:[77]")
    assert interface_holders(sysfs, machine.roots) == {0: Holder("openocd", 4711)}
    assert str(Holder("openocd", 4711)) == "openocd (process 4711)"


def test_the_file_of_a_device_that_is_just_reset(machine: Machine) -> None:
    """Linux shows the address 0 then; the number of the file stays. Bus 2, address 7: 1 * 128 + 6."""
    sysfs = machine.device("2-1", devnum=0, dev="189:134")
    assert device_node(sysfs, machine.roots) == str(machine.node(2, 7))
    Path(sysfs, "dev").unlink()
    assert device_node(sysfs, machine.roots) == ""


def test_a_program_that_may_not_be_looked_at(machine: Machine) -> None:
    sysfs = machine.device()
    machine.interface(sysfs, 0, "usbfs")
    machine.process(4711, "openocd")
    assert interface_holders(sysfs, machine.roots) == {0: SOMEBODY}


def test_this_program_is_named_last(machine: Machine) -> None:
    sysfs = machine.device()
    machine.process(os.getpid(), "python3", "/dev/bus/usb/001/007")
    machine.process(os.getpid() + 1, "openocd", "/dev/bus/usb/001/007")
    assert [holder.name for holder in openers(sysfs, machine.roots)] == ["openocd", "python3"]


def test_names_of_programs_are_cleaned(machine: Machine) -> None:
    sysfs = machine.device()
    machine.process(5, "a\x1b[2Jb", "/dev/bus/usb/001/007")
    assert [holder.name for holder in openers(sysfs, machine.roots)] == [r"a\x1b[2Jb"]


def test_a_device_that_is_attached_over_usbip(machine: Machine) -> None:
    away = machine.device("3-1", controller="platform/vhci_hcd.0")
    assert attached_from_elsewhere(away)
    assert not attached_from_elsewhere(machine.device())
    assert not attached_from_elsewhere("")
    found = obstacle(INFO, away, machine.roots)
    assert found is not None
    assert str(found) == "it is attached here over USB/IP: lend it from the machine that it is plugged into"


def test_a_device_that_usbip_host_lends(machine: Machine) -> None:
    sysfs = machine.device(driver="usbip-host")
    assert device_holder(sysfs) == Holder("usbip-host")
    found = obstacle(INFO, sysfs, machine.roots)
    assert str(found) == "the driver usbip-host has it: `usbip unbind -b 1-1.4` ends that"


def test_a_hub_is_not_lent(machine: Machine) -> None:
    found = obstacle(replace(INFO, bDeviceClass=9), machine.device(), machine.roots)
    assert found is not None
    assert found.reason == "hubs are not lent"


def test_nothing_is_in_the_way(machine: Machine) -> None:
    sysfs = machine.device()
    machine.interface(sysfs, 0, "usb-storage")
    assert obstacle(INFO, sysfs, machine.roots) is None
    assert obstacle(INFO, "", machine.roots) is None


def test_no_permission_names_the_rule_to_write(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    sysfs = machine.device()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root, who may open everything
    found = obstacle(INFO, sysfs, machine.roots)
    assert found is not None
    assert found.reason == f"no permission to open {machine.node()}"
    rule = 'SUBSYSTEM=="usb", ATTR{idVendor}=="303a", ATTR{idProduct}=="4001", TAG+="uaccess"'
    assert udev_rule(0x303A, 0x4001) == rule
    for part in (rule, "/etc/udev/rules.d/70-usbip-capture.rules", "udevadm control --reload", "udevadm trigger"):
        assert part in found.remedy


def test_no_node_and_no_device(machine: Machine) -> None:
    sysfs = machine.device()
    machine.node().unlink()
    found = obstacle(INFO, sysfs, machine.roots)
    assert found is not None
    assert found.reason == f"there is no {machine.node()}"
    gone = obstacle(INFO, str(machine.folder / "sys/bus/usb/devices/9-9"), machine.roots)
    assert gone is not None
    assert gone.reason == "it is not there any more"
    assert interface_holders(str(machine.folder / "9-9"), machine.roots) == {}


@pytest.mark.parametrize(
    ("platform", "part"),
    [("linux", "uaccess"), ("darwin", "com.apple.vm.device-access"), ("win32", "WinUSB"), ("cygwin", "Zadig")],
)
def test_each_system_has_its_remedy(platform: str, part: str) -> None:
    assert part in remedy(0x303A, 0x4001, platform)
