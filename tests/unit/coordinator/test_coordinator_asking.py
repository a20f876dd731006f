"""labgrid's coordinator, asked by a process of its own: what it has, and each reason why there is no answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from usbip_capture.coordinator import asking
from usbip_capture.coordinator.asking import LabgridMissing, asked
from usbip_capture.coordinator.places import Lab
from usbip_capture.errors import RemoteProtocolError, ServerUnreachable, UsbipError
from usbip_capture.installation import lab_check

DEVICE = {"path": "lab/bench/NetworkUsbipDevice/usb", "name": "usb", "host": "lab", "port": 40001, "busid": "1-1"}


def place(name: str, *devices: dict[str, Any], holder: str = "") -> dict[str, Any]:
    return {"name": name, "holder": holder, "is_ours": False, "devices": list(devices)}


def test_places_without_such_devices_are_left_out() -> None:
    answer = {"places": [place("b", DEVICE), place("a", DEVICE, {**DEVICE, "name": "uart"}), place("c")], "others": []}
    lab = Lab.parse(answer)
    assert [one.name for one in lab.places] == ["a", "b"]
    assert [one.label(device) for one in lab.places for device in one.devices] == ["a, uart", "a, usb", "b"]


@pytest.mark.parametrize("wrong", [{"port": 0}, {"port": True}, {"port": "3240"}, {"host": ""}, {"host": None}])
def test_what_anybody_may_have_written(wrong: dict[str, Any]) -> None:
    assert Lab.parse({"places": [place("a", {**DEVICE, **wrong})], "others": [{**DEVICE, **wrong}]}) == Lab(())


@pytest.mark.parametrize(
    ("device", "host"),
    [
        ({"host": "127.0.0.1", "proxy": "bench-pc"}, "ssh://bench-pc"),
        ({"host": "tls://lab", "proxy": "bench-pc"}, "tls://lab"),
        ({"host": "lab", "proxy": None}, "lab"),
    ],
)
def test_how_a_server_is_reached(device: dict[str, Any], host: str) -> None:
    (found,) = Lab.parse({"places": [], "others": [{**DEVICE, **device}]}).others
    assert found.server_host == host


def without_labgrid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "site-packages" not in path])


def test_without_labgrid(monkeypatch: pytest.MonkeyPatch) -> None:
    without_labgrid(monkeypatch)
    with pytest.raises(
        LabgridMissing, match=r"labgrid, which is not installed: pip install 'usbip-capture\[labgrid\]'"
    ):
        asked("127.0.0.1:9")


def test_nobody_is_there() -> None:
    with pytest.raises(ServerUnreachable, match=r"labgrid's coordinator at 127.0.0.1:9 does not answer"):
        asked("127.0.0.1:9", 20)


def test_what_is_not_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(code: str) -> None:
        monkeypatch.setattr(asking, "_command", lambda *_: [sys.executable, "-c", code])

    for code, sentence in {
        "print('[]'); import sys; sys.exit('boom\\n!')": "cannot be asked: boom",
        "print('{}')": "cannot be asked: there was no answer",
        'print(\'{"error": "failed", "detail": "UNIMPLEMENTED"}\')': "cannot be asked: UNIMPLEMENTED",
    }.items():
        other(code)
        with pytest.raises(RemoteProtocolError, match=sentence):
            asked("lab")
    monkeypatch.setattr(asking, "_STARTING", 0.0)
    other("import threading; threading.Event().wait()")
    with pytest.raises(ServerUnreachable, match="does not answer"):
        asked("lab", 0.1)
    monkeypatch.setattr(asking, "_command", lambda *_: ["/nowhere/python"])
    with pytest.raises(UsbipError, match="no process can be started"):
        asked("lab")


# -- the doctor


def checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: Lab | UsbipError, *, written: bool) -> list[str]:
    """The lines of its findings."""

    def answered(*_: object) -> Lab:
        if isinstance(answer, UsbipError):
            raise answer
        return answer

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("USBIP_CAPTURE_DISCOVERY", "on")
    if written:
        (tmp_path / "usbip-capture").mkdir()
        (tmp_path / "usbip-capture/config.toml").write_text('[labgrid]\ncoordinator = "lab"\n')
    else:
        monkeypatch.setenv("LG_COORDINATOR", "lab")
    monkeypatch.setattr(lab_check, "asked", answered)
    return [finding.lines() for finding in lab_check.check()]


def test_the_doctor_has_nothing_to_look_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert list(lab_check.check()) == []


def test_the_doctor_lists_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    many = Lab.parse({"places": [place(f"p{n:02d}", DEVICE) for n in range(17)], "others": []})
    (line,) = checked(monkeypatch, tmp_path, many, written=True)
    assert line.startswith("ok       labgrid's coordinator at lab has places with USB/IP devices: p00, p01")
    assert line.endswith("p15 ...; Wireshark lists at most 16 of 17, others are typed as place:NAME")


def test_a_desktop_has_no_such_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, line = checked(monkeypatch, tmp_path, Lab(()), written=False)
    assert line.startswith("warning  a Wireshark that the desktop starts does not have LG_COORDINATOR\n")
    assert 'write coordinator = "lab" under [labgrid] in ' in line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            LabgridMissing(asking.LABGRID_MISSING),
            "warning  this needs labgrid, which is not installed: no place of lab is listed\n         -> pip install",
        ),
        (
            ServerUnreachable("labgrid's coordinator at lab does not answer: is it running?"),
            "warning  labgrid's coordinator at lab does not answer\n         -> start it, or name another one in /",
        ),
    ],
)
def test_why_no_place_is_listed(error: UsbipError, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (found,) = checked(monkeypatch, tmp_path, error, written=True)
    assert found.startswith(line)
