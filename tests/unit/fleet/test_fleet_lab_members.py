"""Servers of labgrid's places in a fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from usbip_capture.coordinator.places import Lab, LabDevice, LabPlace
from usbip_capture.fleet.lab_members import lab_members


def device(name: str, **more: Any) -> LabDevice:
    return LabDevice(f"lab/{name}/NetworkUsbipDevice/usb", "usb", **{"host": "pi", "port": 40001, **more})


def test_what_is_lent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "usbip-capture/config.toml"
    path.parent.mkdir()
    path.write_text('[tokens]\n"http://pi:8080" = "t"\n')
    path.chmod(0o600)
    lab = Lab(
        (
            LabPlace("a", "pc/ann", False, (device("a", dashboard="http://pi:8080"),)),
            LabPlace("b", "", False, (device("b", port=None),)),
            LabPlace("c", "", False, (device("c", host="rack", port=3240, dashboard="http://rack:8080"),)),
            LabPlace("d", "", False, (device("d", host="rack", port=3240),)),
            LabPlace("e", "", False, (device("e", host="tls://x y"),)),
        ),
        (device("f", host="127.0.0.1", proxy="bench-pc", port=40002),),
    )
    members, idle = lab_members(lab, 2.0)
    assert idle == 1
    assert [(one.name, one.address, one.key, one.dashboard is not None) for one in members] == [
        ("a", "pi:40001", "labgrid lab/a/NetworkUsbipDevice/usb", True),
        ("c", "rack", "rack", False),
        ("e", "e", "labgrid lab/e/NetworkUsbipDevice/usb", False),
        ("lab/f", "ssh://bench-pc/40002", "labgrid lab/f/NetworkUsbipDevice/usb", False),
    ]
    assert [bool(one.problem) for one in members] == [False, False, True, False]
