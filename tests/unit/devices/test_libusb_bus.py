"""The devices of this machine: listed without asking them anything, opened, noticed when they come and leave."""

from __future__ import annotations

import ctypes
import importlib
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.builders.local_usb import LocalUsb, in_sysfs, local_usb
from tests.fakes import simulated_transfers as usb1
from tests.fakes import simulated_usb1 as fake
from tests.waiting import wait_until
from usbip_capture.demo import device as demo
from usbip_capture.demo.device import DemoDevice
from usbip_capture.devices.libusb import binding, bus, local_device
from usbip_capture.devices.libusb.binding import LibusbMissing
from usbip_capture.devices.libusb.budget import usbfs_limit
from usbip_capture.errors import DeviceNotFound
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.usb.info import Speed

TIMEOUT = 30.0


def another(busid: str, devnum: int) -> DemoDevice:
    return DemoDevice(replace(demo.INFO, busid=busid, devnum=devnum))


def test_what_is_listed() -> None:
    with local_usb() as usb:
        usb.module.plug(another("1-1.10", 4), (1, 10))
        usb.module.plug(another("1-1.9", 3), (1, 9))
        usb.module.plug(another("usb1", 1), ())  # a controller's own hub
        listed = usb.bus.devices()
        assert [device.info.busid for device in listed] == ["1-1", "1-1.9", "1-1.10"]
        device = listed[0]
        assert device.ports == (1,)
        info = device.info
        assert (info.vid_pid, info.speed, info.devnum, info.bConfigurationValue) == ((0x1209, 1), Speed.HIGH, 2, 1)
        assert [i.bInterfaceClass for i in info.interfaces] == [2, 10, 3, 255]
        assert (device.manufacturer, device.product, device.serial, device.sysfs) == ("", "", "", "")
        assert device.descriptors == demo.DESCRIPTORS.device + demo.DESCRIPTORS.configurations[0]
        assert usb.bus.find("1-1.9") is not None
        assert usb.bus.find("1-2") is None
        assert usb.module.calls == []


@pytest.mark.skipif(sys.platform != "linux", reason="sysfs is Linux's")
def test_what_sysfs_has_of_it(tmp_path: Path) -> None:
    simulated = DemoDevice()
    path = in_sysfs(tmp_path, simulated, manufacturer="usbip_capture", product="Démo", serial="DEMO0001")
    raw = demo.DESCRIPTORS.device + demo.DESCRIPTORS.configurations[0] + b"\x09\x02\x0b\x00\x00\x02\x00\x80\x00\x02\xff"
    (path / "descriptors").write_bytes(raw)
    (path / "bConfigurationValue").write_text("")  # not configured
    with local_usb(simulated=simulated, sysfs=str(tmp_path)) as usb:
        (device,) = usb.bus.devices()
        assert (device.manufacturer, device.product, device.serial) == ("usbip_capture", "Démo", "DEMO0001")
        assert device.sysfs == str(path)
        assert device.descriptors == raw
        assert len(device.configurations) == 2
        assert (device.info.bConfigurationValue, device.info.interfaces) == (0, ())
        assert device.info.path == str(path)


# -- opening


def test_no_rights_names_the_rule_to_write() -> None:
    with local_usb() as usb:
        usb.raw.open_error = "Access"
        with pytest.raises(DeviceNotFound) as caught:
            usb.open()
        for part in ("1-1 (1209:0001)", 'ATTR{idVendor}=="1209", ATTR{idProduct}=="0001"', "/etc/udev/rules.d/"):
            assert part in str(caught.value)


def test_a_hub_is_not_opened() -> None:
    """Without its driver all that is behind it would be gone."""
    descriptors = replace(demo.DESCRIPTORS, device=demo.DESCRIPTORS.device[:4] + b"\x09" + demo.DESCRIPTORS.device[5:])
    with local_usb(simulated=SimulatedDevice(demo.INFO, descriptors)) as usb:
        assert usb.bus.devices()[0].info.bDeviceClass == 9
        with pytest.raises(DeviceNotFound, match="is a hub"):
            usb.open()
        assert usb.raw.opened == 0


@pytest.mark.parametrize(("error", "words"), [("NoDevice", "has been unplugged"), ("Other", "cannot be opened")])
def test_other_reasons(error: str, words: str) -> None:
    with local_usb() as usb:
        usb.raw.open_error = error
        with pytest.raises(DeviceNotFound, match=words):
            usb.open()
        usb.raw.open_error = ""
        assert usb.open().alive


@pytest.mark.parametrize("error", ["Access", "IO", "NoDevice"])
def test_rights_that_come_late_after_plug_in(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """udev is at work then. A device that was there before is refused at once."""
    monkeypatch.setattr(local_device, "_RETRY_INTERVAL", 0.001)
    with local_usb() as usb:
        usb.bus.listen()
        usb.raw.open_error = error
        with pytest.raises(DeviceNotFound):
            usb.open()
        assert usb.raw.opened == 1
        raw = usb.module.plug(another("1-2", 9), (2,))
        raw.open_error = error

        def udev_is_through() -> None:
            if raw.opened == 3:
                raw.open_error = ""

        raw.on_open = udev_is_through
        wait_until("it is noticed", lambda: usb.bus.seconds_since_arrival((1, 9)) is not None)
        local = usb.bus.find("1-2")
        assert local is not None
        device = local.open()
        assert raw.opened == 3
        device.close()


def test_rights_that_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_device, "OPEN_PATIENCE", 0.05)
    monkeypatch.setattr(local_device, "_RETRY_INTERVAL", 0.001)
    with local_usb() as usb:
        usb.bus._arrivals[1, 2] = 1e12
        usb.raw.open_error = "Access"
        with pytest.raises(DeviceNotFound):
            usb.open()
        assert usb.raw.opened > 1


# -- noticing


@pytest.mark.parametrize("has_hotplug", [True, False], ids=["told by libusb", "polled"])
def test_what_comes_and_leaves(has_hotplug: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "POLL_INTERVAL", TIMEOUT * 10 if has_hotplug else 0.005)
    with local_usb(has_hotplug=has_hotplug) as usb:
        seen: list[list[str]] = []
        changed = threading.Semaphore(0)

        def fails() -> None:
            raise ValueError("a fault of the program's")

        def on_change() -> None:
            seen.append([device.info.busid for device in usb.bus.devices()])
            changed.release()

        usb.bus.watch(fails)
        unwatch = usb.bus.watch(on_change)
        assert seen == []  # what is there is not news
        device = usb.open()
        lost = threading.Event()
        device.watch(lambda reason: lost.set())
        usb.module.plug(another("1-2", 9), (2,))
        assert changed.acquire(timeout=TIMEOUT)
        usb.module.unplug(usb.raw)
        assert changed.acquire(timeout=TIMEOUT)
        assert lost.wait(TIMEOUT)
        assert seen == [["1-1", "1-2"], ["1-2"]]
        unwatch()
        usb.module.plug(another("1-3", 10), (3,))
        wait_until("it is noticed", lambda: usb.bus.seconds_since_arrival((1, 10)) is not None)
        assert len(seen) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="sysfs is Linux's")
def test_a_port_that_is_reset_has_its_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux shows the address 0 for a tenth of a second, which a look may meet."""
    monkeypatch.setattr(bus, "POLL_INTERVAL", 0.005)
    simulated = DemoDevice()
    path = in_sysfs(tmp_path, simulated, dev="189:1")
    with local_usb(simulated=simulated, sysfs=str(tmp_path), has_hotplug=False) as usb:
        changes: list[list[str]] = []
        usb.bus.watch(lambda: changes.append([device.info.busid for device in usb.bus.devices()]))
        device = usb.open()
        lost: list[str] = []
        device.watch(lost.append)
        (path / "devnum").write_text("0\n")
        assert [str(found.info) for found in usb.bus.devices()] == ["1-1 (1209:0001)"]
        assert len(usb.module.contexts) == 1
        second = another("1-2", 9)
        usb.module.plug(second, (2,))
        in_sysfs(tmp_path, second)
        wait_until("a look has seen it", lambda: changes)
        assert changes == [["1-1", "1-2"]]
        assert device.alive
        assert not lost


@pytest.mark.skipif(sys.platform != "linux", reason="sysfs is Linux's")
def test_a_libusb_that_notices_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's, where no udevd runs: a new context lists the new device; what is open stays open."""
    monkeypatch.setattr(bus, "POLL_INTERVAL", 0.005)
    monkeypatch.setattr(bus, "_LAG", 0.01)
    simulated = DemoDevice()
    in_sysfs(tmp_path, simulated)
    with local_usb(simulated=simulated, sysfs=str(tmp_path)) as usb:
        usb.module.lags = True
        changed = threading.Event()
        usb.bus.watch(changed.set)
        device = usb.open()
        second = another("1-2", 9)
        usb.module.plug(second, (2,))
        in_sysfs(tmp_path, second)
        assert changed.wait(TIMEOUT)
        assert [device.info.busid for device in usb.bus.devices()] == ["1-1", "1-2"]
        contexts = len(usb.module.contexts)
        assert len(usb.bus.devices()) == 2
        assert len(usb.module.contexts) == contexts == 2
        assert device.alive
        local = usb.bus.find("1-2")
        assert local is not None
        other = local.open()
        assert other.alive
        device.close()
        assert not usb.module.contexts[0].is_open  # nothing of it is open any more
        other.close()
        third = another("1-3", 10)
        usb.module.plug(third, (3,))
        in_sysfs(tmp_path, third)
        assert usb.bus.find("1-3") is not None  # by a third context; the second one is closed, and not to be touched
        assert not usb.module.contexts[1].is_open
        other = local.open()
        assert other.alive
        other.close()
        shutil.rmtree(tmp_path / "1-1")
        assert [device.info.busid for device in usb.bus.devices()] == ["1-2", "1-3"]  # though libusb still lists it
        (tmp_path / "1-2/devnum").write_text("11")
        usb.module.attached[1].device.info = replace(second.info, devnum=11)  # in and out again
        usb.bus._libusb.close()
        with pytest.raises(DeviceNotFound, match="has been unplugged"):
            local.open()


@pytest.mark.skipif(sys.platform != "linux", reason="sysfs is Linux's")
def test_a_new_context_does_not_wait_for_an_event_that_waits_for_the_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """libusb reports the new device after all, just when the context is replaced."""
    monkeypatch.setattr(bus, "_LAG", 0.0)
    monkeypatch.setattr(bus, "POLL_INTERVAL", TIMEOUT * 10)
    simulated = DemoDevice()
    in_sysfs(tmp_path, simulated)
    with local_usb(simulated=simulated, sysfs=str(tmp_path)) as usb:
        usb.bus.watch(lambda: None)
        usb.module.lags = True
        second = another("1-2", 9)
        raw = usb.module.plug(second, (2,))
        in_sysfs(tmp_path, second)
        old, renewed, calling = usb.context, usb.libusb.renewed, threading.Event()

        def event() -> None:
            calling.set()
            old.announce(raw, True)

        def renews() -> binding.Libusb:
            old.post(event)
            assert calling.wait(TIMEOUT)
            return renewed()

        monkeypatch.setattr(usb.libusb, "renewed", renews)
        assert [device.info.busid for device in usb.bus.devices()] == ["1-1", "1-2"]
        assert not old.is_open
        assert "does not return from its events" not in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="sysfs is Linux's")
def test_a_context_is_not_replaced_while_somebody_lists_its_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The devices of a context that is closed are not to be touched."""
    monkeypatch.setattr(bus, "_LAG", 0.0)
    monkeypatch.setattr(bus, "POLL_INTERVAL", TIMEOUT * 10)
    simulated = DemoDevice()
    in_sysfs(tmp_path, simulated)
    with local_usb(simulated=simulated, sysfs=str(tmp_path)) as usb:
        usb.module.lags = True
        reading, begun, go_on = usb.raw.getPortNumberList, threading.Event(), threading.Event()

        def ports() -> list[int]:
            if not begun.is_set():
                begun.set()
                assert go_on.wait(TIMEOUT)
                assert usb.context.is_open
            return reading()

        monkeypatch.setattr(usb.raw, "getPortNumberList", ports)
        found: list[int] = []
        first = threading.Thread(target=lambda: found.append(len(usb.bus.devices())))
        first.start()
        assert begun.wait(TIMEOUT)
        second = another("1-2", 9)
        usb.module.plug(second, (2,))
        in_sysfs(tmp_path, second)
        other = threading.Thread(target=lambda: found.append(len(usb.bus.devices())))
        other.start()
        other.join(0.2)
        go_on.set()
        first.join(TIMEOUT)
        other.join(TIMEOUT)
        assert sorted(found) == [1, 2]
        assert len(usb.module.contexts) == 2


def test_no_thread_to_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    with local_usb() as usb:
        usb.libusb.start()

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(Exception, match="no thread to watch the USB"):
                usb.bus.watch(lambda: None)
        usb.bus.watch(lambda: None)()


# -- libusb itself


def test_no_package_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usb1", None)
    with pytest.raises(LibusbMissing, match="pip install libusb1 libusb-package"):
        binding.load()


@pytest.mark.parametrize("error", [OSError("no such file"), AttributeError("too old a library")])
def test_no_library_is_a_sentence(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(library: object) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "usb1", SimpleNamespace(loadLibrary=fails))
    with pytest.raises(LibusbMissing, match=r"libusb is not installed: .* apt install libusb-1.0-0"):
        binding.load()


def test_the_packaged_library_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []
    monkeypatch.setitem(sys.modules, "usb1", SimpleNamespace(loadLibrary=loaded.append))
    binding.load()
    monkeypatch.setitem(sys.modules, "libusb_package", None)
    binding.load()
    assert isinstance(loaded[0], ctypes.CDLL)
    assert "libusb_package" in loaded[0]._name
    assert loaded[1] is None  # where there is no such package, that of the system


def test_libusb_is_imported_by_who_uses_it_only() -> None:
    program = "import sys, usbip_capture, usbip_capture.devices.libusb.bus; sys.exit('usb1' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert importlib.util.find_spec("usb1") is not None


def test_a_libusb_that_does_not_start() -> None:
    module = fake.SimulatedUsb1()
    module.start_error = "NoMem"
    with pytest.raises(Exception, match="libusb does not start"):
        binding.Libusb(module)


def test_the_budget_is_a_part_of_what_usbfs_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "usbfs_memory_mb"
    monkeypatch.setattr("usbip_capture.devices.libusb.budget._LIMIT", limit)
    for text, expected in (("16\n", 12 << 20), ("0\n", 64 << 20), ("garbage", 64 << 20)):
        limit.write_text(text)
        assert usbfs_limit() == expected
    limit.unlink()
    assert usbfs_limit() == 64 << 20


def test_the_event_thread_outlives_what_fails_on_it(caplog: pytest.LogCaptureFixture) -> None:
    usb = LocalUsb()
    device = usb.open()

    def fails() -> None:
        raise usb1.error("IO")

    usb.context.post(fails)
    usb.context.post(usb.context.interruptEventHandler)
    wait_until("it has failed", lambda: "libusb cannot handle events" in caplog.text)
    assert device.alive
    usb.close()
    assert not usb.context.is_open
