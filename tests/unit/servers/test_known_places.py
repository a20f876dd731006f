"""Places of labgrid in the cache: which are listed, and a file that nobody else's text can break."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from usbip_capture.coordinator import asking
from usbip_capture.coordinator.places import Lab, LabDevice, LabPlace
from usbip_capture.errors import ServerUnreachable
from usbip_capture.servers import known_places, memory, refresher
from usbip_capture.servers.known_places import KnownPlace, find_place, typed_place
from usbip_capture.system.folders import cache_folder

USB, UART = (LabDevice(f"lab/bench/NetworkUsbipDevice/{name}", name, "lab") for name in ("usb", "uart"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("LG_COORDINATOR", "lab:20408")
    monkeypatch.delenv("USBIP_CAPTURE_SERVERS", raising=False)
    return tmp_path


def listed() -> list[tuple[str, str]]:
    return [(place.interface, place.display) for place in known_places.known_places()]


def test_devices_of_places_are_interfaces() -> None:
    memory.remember_places("lab:20408", [KnownPlace("rpi4", "usb", "rpi4"), KnownPlace("b b", "uart", "b b, uart")])
    assert listed() == [
        ("usbip-place-rpi4", "USB/IP place: rpi4"),
        ("usbip-place-b-b--uart", "USB/IP place: b b, uart"),
    ]
    found = find_place("usbip-place-b-b--uart")
    assert found is not None
    assert (found.place, found.device) == ("b b", "uart")
    assert find_place("usbip-place-x") is None


def test_those_of_another_coordinator_are_not(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.remember_places("lab:20408", [KnownPlace("rpi4")])
    monkeypatch.setenv("LG_COORDINATOR", "other")
    assert listed() == []
    monkeypatch.delenv("LG_COORDINATOR")
    assert find_place("usbip-place-rpi4") is None
    folder = home / "config/usbip-capture"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('[servers]\npi = "pi"\n\n[labgrid]\ncoordinator = "lab:20408"\n')
    memory.remember_places("lab:20408", [KnownPlace("rpi4", "usb")])
    assert listed() == [("usbip-place-rpi4", "USB/IP place: rpi4")]


def test_not_all_of_many_are_listed_and_no_two_are_called_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USBIP_CAPTURE_SERVERS", "place-a=pi")
    memory.remember_places("lab:20408", [KnownPlace(name, "usb") for name in ("a", "A", "a.", *map(str, range(20)))])
    names = [interface for interface, _ in listed()]
    assert len({"usbip-place-a", *names}) == 1 + known_places.MAX_PLACES


def test_a_cache_that_nobody_has_written_so() -> None:
    memory.remember_places("lab:20408", [KnownPlace("x\ny\tz\x1b", "usb")])
    path = os.path.join(cache_folder(), known_places.PLACES_FILE)
    with open(path, "a", encoding="utf-8") as file:
        file.write("place\t\t\t\nplace\ta\n\nserver\ta\tb\tc\n")
    assert [display for _, display in listed()] == ["USB/IP place: x y z"]
    with open(path, "wb") as file:
        file.write(b"\xff\xfe\0")
    assert listed() == []
    memory.forget_everything()
    assert not os.path.exists(path)


@pytest.mark.parametrize(
    ("text", "place"),
    [("place:rpi4", ("rpi4", "")), (" place: rpi4 , usb", ("rpi4", "usb")), ("rpi4", None), ("pi:3240", None)],
)
def test_places_that_are_typed(text: str, place: tuple[str, str] | None) -> None:
    found = typed_place(text)
    assert (found and (found.place, found.device)) == place


def test_one_s_own_are_listed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    free, held = LabPlace("a", "", False, (USB,)), LabPlace("b", "pc/bob", False, (USB,))
    lab = Lab((free, held, LabPlace("c", "pc/ann", True, (UART, USB))))
    monkeypatch.setattr(asking, "asked", lambda where: lab)
    refresher._look_for_places()
    assert [display.partition(": ")[2] for _, display in listed()] == ["c, uart", "c, usb", "b", "a"]


def test_a_coordinator_that_does_not_answer_leaves_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(where: str) -> Lab:
        raise ServerUnreachable(where)

    memory.remember_places("lab:20408", [KnownPlace("rpi4", "usb")])
    monkeypatch.setattr(asking, "asked", silent)
    refresher._look_for_places()
    assert len(listed()) == 1
