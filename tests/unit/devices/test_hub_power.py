"""The power of a hub's ports: switched where the hub says it can do that for each, a sentence elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.simulated_hub import NONE, TOGETHER, SimulatedHub
from tests.fakes.simulated_usb1 import SimulatedUsb1
from usbip_capture.demo.device import DemoDevice
from usbip_capture.devices.libusb import hubs
from usbip_capture.devices.libusb.binding import Libusb
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.devices.libusb.hubs import Port
from usbip_capture.errors import DeviceNotFound, UsbipError
from usbip_capture.usb.info import Speed


@pytest.fixture
def usb1() -> SimulatedUsb1:
    return SimulatedUsb1()


@pytest.fixture
def bus(usb1: SimulatedUsb1, tmp_path: Path) -> Iterator[LocalBus]:
    libusb = Libusb(usb1)
    made = LocalBus(libusb, str(tmp_path))
    yield made
    made.close()
    libusb.close()
    usb1.close()


def plugged(usb1: SimulatedUsb1, hub: SimulatedHub, *ports: int) -> SimulatedHub:
    usb1.plug(hub, ports)
    return hub


def test_a_port_is_switched_and_no_other(bus: LocalBus, usb1: SimulatedUsb1) -> None:
    hub = plugged(usb1, SimulatedHub(), 1)
    bus.switch_power("1-1.4", False)
    assert hub.powered == {1: True, 2: True, 3: True, 4: False}
    bus.switch_power("1-1.4", True)
    assert hub.powered[4]
    # Not claimed: the kernel's driver keeps the hub, and all that is behind it.
    assert {call[0] for call in usb1.calls} == {"close"}


def test_a_port_of_the_controllers_own_hub(bus: LocalBus, usb1: SimulatedUsb1) -> None:
    root, other = plugged(usb1, SimulatedHub()), plugged(usb1, SimulatedHub(busnum=2))
    bus.switch_power("2-3", False)
    assert all(root.powered.values())
    assert not other.powered[3]


def test_a_hub_that_this_libusb_does_not_list_yet(bus: LocalBus, usb1: SimulatedUsb1, tmp_path: Path) -> None:
    """As Debian's, where no udevd runs."""
    usb1.lags = True
    hub = plugged(usb1, SimulatedHub(), 1)
    in_sysfs(tmp_path, hub)
    bus.switch_power("1-1.4", False)
    assert not hub.powered[4]


def test_a_context_is_not_closed_while_the_hub_is_looked_for(
    bus: LocalBus, usb1: SimulatedUsb1, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread finds that its list is out of date, and replaces it."""
    hub = SimulatedHub()
    raw = usb1.plug(hub, (1,))
    replacing = threading.Thread(target=bus.devices)
    looked: list[bool] = []

    def ports() -> list[int]:
        if not looked:
            in_sysfs(tmp_path, hub)
            usb1.lags, usb1.contexts[0].listed = True, []
            replacing.start()
            replacing.join(0.5)  # it has to wait
            looked.append(usb1.contexts[0].is_open)
        return [1]

    monkeypatch.setattr(raw, "getPortNumberList", ports)
    bus.switch_power("1-1.4", False)
    replacing.join(30)
    assert looked == [True]
    assert not hub.powered[4]
    assert [context.is_open for context in usb1.contexts] == [False, True]


def in_sysfs(folder: Path, hub: SimulatedHub) -> None:
    (folder / "1-1").mkdir()
    (folder / "1-1" / "busnum").write_text(f"{hub.info.busnum}\n")
    (folder / "1-1" / "devnum").write_text(f"{hub.info.devnum}\n")


@pytest.mark.parametrize(
    ("hub", "why"),
    [
        (SimulatedHub(characteristics=TOGETHER), "it switches all its ports together"),
        (SimulatedHub(characteristics=NONE), "it has no power switches"),
        (SimulatedHub(characteristics=0x0003), "it has no power switches"),
    ],
)
def test_a_hub_that_cannot_is_a_sentence(bus: LocalBus, usb1: SimulatedUsb1, hub: SimulatedHub, why: str) -> None:
    plugged(usb1, hub, 1)
    with pytest.raises(UsbipError, match=f"the hub 1-1 cannot switch the power of its port 2: {why}"):
        bus.switch_power("1-1.2", False)
    assert all(hub.powered.values())


def test_of_a_single_port_together_is_each(bus: LocalBus, usb1: SimulatedUsb1) -> None:
    hub = plugged(usb1, SimulatedHub(1, TOGETHER), 1)
    bus.switch_power("1-1.1", False)
    assert not hub.powered[1]


def test_a_hub_of_usb_3_has_a_descriptor_of_its_own(bus: LocalBus, usb1: SimulatedUsb1) -> None:
    hub = plugged(usb1, SimulatedHub(speed=Speed.SUPER), 1)
    bus.switch_power("1-1.2", False)
    assert not hub.powered[2]


@pytest.mark.parametrize("descriptor", [b"", b"\x09\x29\x04", b"\x09\x01\x04\x01\x00"])
def test_what_is_not_a_hub_switches_nothing(bus: LocalBus, usb1: SimulatedUsb1, descriptor: bytes) -> None:
    hub = SimulatedHub()
    hub.descriptor = descriptor.ljust(5, b"\0") if len(descriptor) == 5 else b"\x09\x29\x04\x02\x00"
    plugged(usb1, hub, 1)
    with pytest.raises(UsbipError, match="cannot switch the power of its port 4"):
        bus.switch_power("1-1.4", False)


def test_a_device_is_not_a_hub(bus: LocalBus, usb1: SimulatedUsb1) -> None:
    usb1.plug(DemoDevice(), (1,))
    with pytest.raises(UsbipError, match="it refuses"):
        bus.switch_power("1-1.4", False)


@pytest.mark.parametrize(
    ("busid", "why"),
    [
        ("1-1.5", "has ports 1 to 4, not 5"),
        ("1-1.0", "has ports 1 to 4, not 0"),
        ("1-2.1", "there is no hub 1-2"),
        ("3-1", "there is no hub usb3"),
        ("x", "'x' is not a port"),
        ("1-1.\u0664", "is not a port"),
    ],
)
def test_ports_that_are_not_there(bus: LocalBus, usb1: SimulatedUsb1, busid: str, why: str) -> None:
    plugged(usb1, SimulatedHub(), 1)
    with pytest.raises(DeviceNotFound, match=why):
        bus.switch_power(busid, False)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        ("Access", "this user may not open it"),
        ("NotSupported", "does not let programs use hubs"),
        ("IO", "input/output error"),
    ],
)
def test_a_hub_that_cannot_be_opened(bus: LocalBus, usb1: SimulatedUsb1, error: str, why: str) -> None:
    usb1.plug(SimulatedHub(), (1,)).open_error = error
    with pytest.raises(UsbipError, match=why):
        bus.switch_power("1-1.4", False)


def test_a_hub_that_does_not_answer(bus: LocalBus, usb1: SimulatedUsb1, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its handle stays open: closing it would wait for the request."""
    monkeypatch.setattr(hubs, "_TIMEOUT", 0.01)
    monkeypatch.setattr(hubs, "_PATIENCE", 0.01)
    plugged(usb1, SimulatedHub(), 1)
    usb1.contexts[0].hold(True)
    with pytest.raises(UsbipError, match="it does not answer"):
        bus.switch_power("1-1.4", False)
    assert usb1.calls == []
    usb1.contexts[0].hold(False)


def test_linux_switches_by_its_hub_driver(bus: LocalBus, usb1: SimulatedUsb1, tmp_path: Path) -> None:
    """Where sysfs has the file, else the driver might switch the port on again; both buses of a port of USB 3."""
    hub, twin = plugged(usb1, SimulatedHub(), 1), plugged(usb1, SimulatedHub(busnum=2, speed=Speed.SUPER))
    port, peer = tmp_path / "1-1:1.0" / "1-1-port4", tmp_path / "2-0:1.0" / "usb2-port4"
    for folder in (port, peer):
        folder.mkdir(parents=True)
    (port / "disable").write_text("0\n")
    (port / "peer").symlink_to(peer)
    bus.switch_power("1-1.4", False)
    assert (port / "disable").read_text() == "1\n"
    assert hub.powered[4]  # it was the kernel's to do
    assert not twin.powered[4]  # an older kernel on this bus: by the request
    bus.switch_power("1-1.4", True)
    assert (port / "disable").read_text() == "0\n"
    assert twin.powered[4]


def test_another_bus_that_cannot_be_switched_is_reported(
    bus: LocalBus, usb1: SimulatedUsb1, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub = plugged(usb1, SimulatedHub(), 1)
    (tmp_path / "1-1:1.0" / "1-1-port4").mkdir(parents=True)
    (tmp_path / "1-1:1.0" / "1-1-port4" / "peer").symlink_to("usb2-port4")
    bus.switch_power("1-1.4", False)
    assert not hub.powered[4]
    assert "1-1.4 is switched, but not its other bus: there is no hub usb2" in caplog.text


def test_a_file_that_cannot_be_written_is_no_obstacle(bus: LocalBus, usb1: SimulatedUsb1, tmp_path: Path) -> None:
    hub = plugged(usb1, SimulatedHub(), 1)
    (tmp_path / "1-1:1.0" / "1-1-port4" / "disable").mkdir(parents=True)
    bus.switch_power("1-1.4", False)
    assert not hub.powered[4]


@pytest.mark.parametrize(
    ("link", "peer"),
    [
        ("../../x/usb3-port2", Port(3, (), 2)),
        ("../3-1.2:1.0/3-1.2-port1", Port(3, (1, 2), 1)),
        ("nonsense", None),
    ],
)
def test_the_other_bus_of_a_port(tmp_path: Path, link: str, peer: Port | None) -> None:
    folder = tmp_path / "1-1:1.0" / "1-1-port4"
    folder.mkdir(parents=True)
    assert Port.of("1-1.4").peer(str(tmp_path)) is None
    (folder / "peer").symlink_to(link)
    assert Port.of("1-1.4").peer(str(tmp_path)) == peer
