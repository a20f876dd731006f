"""Exports follow what is plugged in, and the rules; who has a device that is not exported any more loses it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.local_usb import local_usb
from tests.builders.sysfs_tree import KEYBOARD_KEYS, Machine
from tests.fakes.local_bus import FakeBus, FakePlugged
from tests.waiting import wait_until
from usbip_capture.device import Device
from usbip_capture.errors import ImportRefused, UsbipError
from usbip_capture.lending import lender as lender_module
from usbip_capture.lending.lender import Exported, Lender
from usbip_capture.lending.plugged import Answering, Resetting, Switching, Working
from usbip_capture.lending.restore import folder
from usbip_capture.server import Server
from usbip_capture.server.rules import Rules
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.usb.setup import get_descriptor
from usbip_capture.usb.urb import Urb
from usbip_capture.wire.structs import OpStatus

READ = Urb.control(get_descriptor(1, 0, 0, 18).pack())


class Lending:
    """A server on a port of its own, and a bus."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.bus = FakeBus()
        self.server = Server()
        self.address = ServerAddress("127.0.0.1", self.server.listen("127.0.0.1", 0)[1], 20.0)
        self.lender: Lender | None = None
        self.changes = 0

    def lend(self, *rules: str, force: bool = False, max_devices: int = 0, reset: bool = True) -> Lender:
        self.lender = Lender(
            self.server, self.bus, Rules(rules, force=force), max_devices=max_devices, reset=reset,
            on_change=self._on_change, roots=self.machine.roots,
        )  # fmt: skip
        return self.lender

    def _on_change(self) -> None:
        self.changes += 1

    def listed(self) -> list[str]:
        return [str(info) for info in self.address.devices()]

    def wait_listed(self, *expected: str) -> None:
        wait_until(f"{expected} are listed", lambda: self.listed() == list(expected))

    def attach(self, busid: str = "1-1") -> Device:
        return self.address.import_device(Selector(busid))


@pytest.fixture
def lending(tmp_path: Path) -> Iterator[Lending]:
    made = Lending(Machine(tmp_path))
    yield made
    if made.lender is not None:
        made.lender.close()
    made.server.close()


def test_devices_come_and_leave(lending: Lending) -> None:
    lending.bus.plug("1-1")
    lender = lending.lend("all")
    lending.wait_listed("1-1 (303a:4001)")
    lending.bus.plug("1-4.2", (0x0403, 0x6001))
    lending.wait_listed("1-1 (303a:4001)", "1-4.2 (0403:6001)")
    assert [str(exported) for exported in lender.exported][1] == "1-4.2 (0403:6001) Demo device"
    lending.bus.unplug("1-1")
    lending.wait_listed("1-4.2 (0403:6001)")
    assert lending.changes >= 3
    lender.close()
    lending.wait_listed()
    assert not lending.bus.watchers


def test_a_port_keeps_its_busid_when_a_bootloader_answers(lending: Lending) -> None:
    lending.bus.plug("1-1")
    lending.lend("1-1")
    device = lending.attach()
    lost: list[str] = []
    device.watch(lost.append)
    lending.bus.plug("1-1", (0x303A, 0x0002))
    wait_until("the client has lost the device that is not there any more", lambda: lost)
    device.close()
    lending.wait_listed("1-1 (303a:0002)")
    again = lending.attach()
    assert again.info.vid_pid == (0x303A, 0x0002)
    again.close()


def test_a_device_that_never_notices_that_it_is_gone_is_not_waited_for_for_ever(
    lending: Lending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lender_module, "_PATIENCE", 0.3)
    plugged = lending.bus.plug("1-1")
    lender = lending.lend("1-1")
    device = lending.attach()
    lost: list[str] = []
    device.watch(lost.append)
    del lending.bus.plugged["1-1"]
    lending.bus.changed()
    assert [str(exported.info) for exported in lender.exported] == ["1-1 (303a:4001)"]  # it may still answer its URBs
    wait_until("the session is ended all the same", lambda: lost)
    assert plugged.opened[0].released.wait(20)
    wait_until("nothing is exported", lambda: not lender.exported)
    device.close()


def test_a_device_that_one_look_has_missed_is_not_leaving(lending: Lending, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its session goes on, and nobody looks again and again."""
    monkeypatch.setattr(lender_module, "_LOOK_AGAIN", 0.01)
    plugged = lending.bus.plug("1-1")
    lender = lending.lend("1-1")
    device = lending.attach()
    lending.bus.plugged.clear()
    lending.bus.changed()
    wait_until("it is waited for", lambda: lender._leaving)
    lending.bus.plugged["1-1"] = plugged
    lending.bus.changed()
    wait_until("nobody waits any more", lambda: not lender._leaving)
    assert device.run(READ).status == 0
    device.close()
    lending.wait_listed("1-1 (303a:4001)")


def test_an_identity_follows_the_device_to_another_port(lending: Lending) -> None:
    lending.bus.plug("1-1", serial="A")
    lending.bus.plug("1-2", serial="B")
    lending.lend("303a:4001:B")
    lending.wait_listed("1-2 (303a:4001)")
    lending.bus.plug("1-2", (0x303A, 0x0002), serial="B")  # its bootloader is another device for this rule
    lending.wait_listed()
    lending.bus.plug("1-3", serial="B")
    lending.wait_listed("1-3 (303a:4001)")


def test_a_look_changes_nothing_for_who_has_a_device(lending: Lending) -> None:
    lending.bus.plug("1-1")
    lending.lend("all")
    device = lending.attach()
    lending.bus.plug("1-2")
    lending.wait_listed("1-2 (303a:4001)")
    assert device.run(READ, 20).status == 0
    device.close()


def test_changed_rules_end_sessions_of_what_is_not_exported_any_more(lending: Lending) -> None:
    plugged = [lending.bus.plug(busid) for busid in ("1-1", "1-2")]
    lender = lending.lend("1-1", "1-2")
    first, second = lending.attach("1-1"), lending.attach("1-2")
    lost: list[str] = []
    first.watch(lost.append)
    lender.set_rules(Rules(["1-2"]))
    wait_until("the client has lost its device", lambda: lost)
    assert plugged[0].opened[0].released.wait(20)
    assert second.run(READ, 20).status == 0
    with pytest.raises(ImportRefused) as caught:
        lending.attach("1-1")
    assert caught.value.status == OpStatus.NODEV
    for device in (first, second):
        device.close()


def test_hubs_and_devices_from_elsewhere_are_never_exported(lending: Lending) -> None:
    lending.bus.plug("1-1", bDeviceClass=9)
    elsewhere = lending.machine.device("1-2", controller="platform/vhci_hcd.0")
    lending.bus.plug("1-2", sysfs=elsewhere)
    lending.bus.plug("1-3")
    lending.lend("all", "1-1", "1-2", force=True)
    lending.wait_listed("1-3 (303a:4001)")


@pytest.fixture
def disk(lending: Lending) -> str:
    """A disk at 1-1 that is mounted."""
    sysfs = lending.machine.device("1-1")
    lending.machine.disk(lending.machine.interface(sysfs, 0, "usb-storage"))
    lending.machine.proc("self/mountinfo", "36 35 8:1 / /mnt rw,noatime - ext4 /dev/sda1 rw")
    return sysfs


def test_a_mounted_disk_needs_its_name_or_force(lending: Lending, disk: str, caplog: pytest.LogCaptureFixture) -> None:
    lending.bus.plug("1-1", sysfs=disk)
    lender = lending.lend("all")
    assert not lender.exported
    assert "1-1 (303a:4001) is not exported: it is the disk sda1, mounted at /mnt; name it" in caplog.text
    lender.set_rules(Rules(["all"], force=True))
    assert len(lender.exported) == 1
    lender.set_rules(Rules(["class:08"]))
    assert not lender.exported
    lender.set_rules(Rules(["1-1"]))
    assert len(lender.exported) == 1
    assert "is the disk sda1, mounted at /mnt: a client that attaches it takes it from here" in caplog.text


def test_a_disk_that_was_mounted_later_is_not_taken(lending: Lending, disk: str) -> None:
    mounts = Path(lending.machine.roots.proc, "self/mountinfo")
    text = mounts.read_text()
    mounts.write_text("")
    plugged = lending.bus.plug("1-1", sysfs=disk)
    lending.lend("all")
    lending.wait_listed("1-1 (303a:4001)")
    mounts.write_text(text)
    with pytest.raises(ImportRefused) as caught:
        lending.attach()
    assert caught.value.status == OpStatus.DEV_ERR
    assert not plugged.opened


def test_the_keyboard_is_lent_with_a_warning_said_once(lending: Lending, caplog: pytest.LogCaptureFixture) -> None:
    sysfs = lending.machine.device("1-1")
    lending.machine.input(lending.machine.interface(sysfs, 0, "usbhid"), "Keys", key=KEYBOARD_KEYS)
    lending.bus.plug("1-1", sysfs=sysfs)
    lending.lend("class:03")
    lending.bus.changed()
    lending.attach().close()
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    said = "1-1 (303a:4001) is this machine's keyboard (Keys): a client that attaches it takes it from here"
    assert [text for text in warnings if "keyboard" in text] == [said]


def test_no_more_devices_than_there_may_be(lending: Lending, caplog: pytest.LogCaptureFixture) -> None:
    for busid in ("1-1", "1-2", "1-3"):
        lending.bus.plug(busid)
    lending.lend("all", max_devices=2)
    lending.wait_listed("1-1 (303a:4001)", "1-2 (303a:4001)")
    assert "1-3 (303a:4001) is not exported: 2 devices are, and that is the limit" in caplog.text
    lending.bus.unplug("1-1")
    lending.wait_listed("1-2 (303a:4001)", "1-3 (303a:4001)")


@pytest.mark.parametrize("reset", [True, False])
def test_a_device_is_reset_between_two_clients(lending: Lending, reset: bool) -> None:
    plugged = lending.bus.plug("1-1")
    lending.lend("1-1", reset=reset)
    lending.attach().close()
    wait_until("the device is released", lambda: plugged.opened and plugged.opened[0].released.is_set())
    assert plugged.opened[0].was_reset is reset


def test_nobody_waits_for_a_reset_at_the_end(lending: Lending) -> None:
    plugged = lending.bus.plug("1-1")
    lender = lending.lend("1-1")
    device = lending.attach()
    lender.close()
    lending.server.close()
    assert plugged.opened[0].released.is_set()
    assert not plugged.opened[0].was_reset
    device.close()


def test_one_that_is_opened_meanwhile_is_not_reset_at_the_end_either(lending: Lending) -> None:
    plugged = lending.bus.plug("1-1")
    lender = lending.lend("1-1")
    opening = plugged.open

    def closes_meanwhile(*, reset: bool = False) -> Device:
        device = opening(reset=reset)
        lender.close()
        return device

    plugged.open = closes_meanwhile  # type: ignore[method-assign]
    with pytest.raises(ImportRefused):
        lending.attach()
    assert plugged.opened[0].released.is_set()
    assert not plugged.opened[0].was_reset


def test_a_worker_that_is_stuck_has_bound_no_drivers(lending: Lending, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client is gone; whoever kills the server then finds them remembered."""
    monkeypatch.setenv("XDG_STATE_HOME", str(lending.machine.folder / "state"))
    sysfs = lending.machine.device("1-1", devnum=3)
    lending.machine.interface(sysfs, 0, "cdc_acm")
    plugged = lending.bus.plug("1-1", sysfs=sysfs)
    assert plugged.info.devnum == 3
    lending.lend("1-1")
    device = lending.attach()
    lending.bus.on_detached(plugged, [0])
    device.close()
    wait_until("the device is released", lambda: lending.lender is not None and not lending.lender.opened)
    assert len(list(folder().iterdir())) == 1
    lending.bus.on_attached(plugged)
    assert list(folder().iterdir()) == []


@pytest.mark.parametrize("ends", ["the client", "the server"])
def test_a_device_by_libusb_is_reset_between_two_clients_and_not_at_the_end(ends: str) -> None:
    with local_usb() as usb:
        server = Server()
        address = ServerAddress("127.0.0.1", server.listen("127.0.0.1", 0)[1], 20.0)
        lender = Lender(server, usb.bus, Rules(["all"]))
        device = address.import_device(Selector("1-1"))
        (opened,) = lender.opened
        assert isinstance(opened, Resetting)
        assert isinstance(opened, Working)
        assert isinstance(usb.bus, Answering)
        assert isinstance(usb.bus, Switching)
        if ends == "the client":
            device.close()
            wait_until("the device is released", lambda: not lender.opened)
        lender.close()
        server.close()
        assert (("reset",) in usb.module.calls) is (ends == "the client")
        device.close()


def test_a_device_that_cannot_be_opened_is_refused_and_others_go_on(
    lending: Lending, caplog: pytest.LogCaptureFixture
) -> None:
    lending.bus.plug("1-1").refuses = "device 1-1 may not be opened by this user"
    lending.bus.plug("1-2")
    lending.lend("all")
    with pytest.raises(ImportRefused) as caught:
        lending.attach("1-1")
    assert caught.value.status == OpStatus.DEV_ERR
    assert "may not be opened by this user" in caplog.text
    lending.attach("1-2").close()


def test_what_fails_for_one_device_is_no_others(
    lending: Lending, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = lending.bus.plug("1-1")
    lending.bus.plug("1-2")
    monkeypatch.setattr(bad, "info", bad.info)
    monkeypatch.setattr(type(bad), "manufacturer", property(_fails), raising=False)
    lending.lend("1-2")
    assert "cannot be decided" in caplog.text
    monkeypatch.undo()
    lending.bus.changed()
    lending.wait_listed("1-2 (303a:4001)")


def _fails(plugged: object) -> str:
    raise OSError("no such file")


@pytest.mark.parametrize("error", [UsbipError("libusb does not start"), ValueError("a fault of ours")])
def test_a_bus_that_cannot_be_asked_is_asked_again(
    lending: Lending, error: Exception, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without anything being plugged in, and without the same words in the log each time."""
    monkeypatch.setattr(lender_module, "_RETRY", 0.005)
    asked = threading.Semaphore(0)

    def fails() -> list[FakePlugged]:
        asked.release()
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(lending.bus, "devices", fails)
        lending.lend("all")
        for _ in range(4):
            assert asked.acquire(timeout=20)
        assert caplog.text.count(f"which devices are plugged in cannot be asked: {error}") == 1
        assert ("Traceback" in caplog.text) is isinstance(error, ValueError)
        watchers, lending.bus.watchers = lending.bus.watchers, []
        lending.bus.plug("1-1")
        lending.bus.watchers = watchers
    lending.wait_listed("1-1 (303a:4001)")


def test_what_is_put_around_a_device_sees_it(lending: Lending) -> None:
    lending.bus.plug("1-1")
    seen: list[str] = []

    def observed(device: Device, exported: Exported) -> Device:
        seen.append(str(exported))
        return device

    lending.lender = Lender(lending.server, lending.bus, Rules(["all"]), observed=observed)
    lending.attach().close()
    assert seen == ["1-1 (303a:4001) Demo device"]


# -- by hand


def test_what_is_withheld_is_exported_by_no_rule_until_it_is_lent(lending: Lending) -> None:
    lending.bus.plug("1-1")
    lending.bus.plug("1-2")
    lender = lending.lend("all")
    device = lending.attach()
    lost: list[str] = []
    device.watch(lost.append)
    lender.withhold("1-1", "is ejected", "web:ann")
    wait_until("the client has lost it", lambda: lost)
    device.close()
    assert (lending.listed(), lender.is_withheld("1-1")) == (["1-2 (303a:4001)"], True)
    lender.set_rules(Rules(["all", "1-1"]))
    lending.bus.unplug("1-1")
    lending.bus.plug("1-1")
    wait_until("it was noticed", lambda: [e for e in lending.server.events.after(0, 100) if e.kind == "plugged"])
    assert lending.listed() == ["1-2 (303a:4001)"]
    lender.lend("1-1")
    lending.wait_listed("1-1 (303a:4001)", "1-2 (303a:4001)")
    withdrawn = [event for event in lending.server.events.after(0, 100) if event.kind == "withdrawn"]
    assert [(event.text, event.by) for event in withdrawn] == [("its device is ejected", "web:ann")]


@pytest.mark.parametrize("between", [True, False])
def test_what_is_withheld_until_it_is_unplugged(lending: Lending, between: bool) -> None:
    lending.bus.plug("1-1")
    lender = lending.lend("all")
    lender.withhold("1-1", until_unplugged=True)
    assert not lending.listed()
    if between:
        lending.bus.unplug("1-1")
        wait_until("that was noticed", lambda: not lender.present)
    lending.bus.plug("1-1")
    lending.wait_listed("1-1 (303a:4001)")


def test_what_is_lent_by_hand_stays_so_when_the_rules_change(lending: Lending) -> None:
    lending.bus.plug("1-1")
    lender = lending.lend()
    lender.lend("1-1")
    assert [(exported.info.busid, str(exported.rule)) for exported in lender.exported] == [("1-1", "1-1")]
    lender.set_rules(Rules(["1-7"]))
    assert (lending.listed(), list(map(str, lender.rules))) == (["1-1 (303a:4001)"], ["1-7"])
    lender.withhold("1-1")
    assert not lending.listed()
    with pytest.raises(UsbipError, match="not a"):
        lender.lend("../1-1")


def test_what_is_plugged_in_and_out_is_an_event_but_not_what_was_there_before(lending: Lending) -> None:
    lending.bus.plug("1-1")
    lender = lending.lend()
    lending.bus.plug("1-2", (0x0403, 0x6001), serial="A1")
    wait_until("it is there", lambda: len(lender.present) == 2)
    lending.bus.plug("1-1", (0x303A, 0x0002))  # in place of another one
    wait_until("it is another one", lambda: lender.present[0].info.idProduct == 2)
    lending.bus.unplug("1-2")
    wait_until("it is gone", lambda: len(lender.present) == 1)
    seen = [(e.kind, e.busid, e.device, e.text, e.by) for e in lending.server.events.after(0, 100)]
    assert seen == [
        ("plugged", "1-2", "0403:6001:A1", "Demo device", "device"),
        ("unplugged", "1-1", "303a:4001", "", "device"),
        ("plugged", "1-1", "303a:0002", "Demo device", "device"),
        ("unplugged", "1-2", "0403:6001", "", "device"),
    ]
