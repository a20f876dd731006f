"""Captures of labgrid's tests: which file is whose, and what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from labgrid import Target
from labgrid.step import step

from tests.oracles.pcapng_reader import read_capture
from usbip_capture.demo.device import INFO, DemoDevice
from usbip_capture.errors import CaptureError
from usbip_capture.labgrid import NetworkUsbipDevice, UsbipDriver, UsbipSerialDriver, captures
from usbip_capture.server import Server


class Lab:
    """A target with the demo device, and drivers for it."""

    def __init__(self) -> None:
        self.target = Target("main")
        NetworkUsbipDevice(self.target, None, host="demo", busid="1-1")

    def driver(self, kind: type[Any] = UsbipDriver, **settings: Any) -> Any:
        """One that is active."""
        made = kind(self.target, None, **settings)
        self.target.activate(made)
        return made


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setattr(captures, "_current_test", str)  # as in a script
    made = Lab()
    yield made
    made.target.cleanup()


def sent(path: Path, endpoint: int) -> list[bytes]:
    """What went out at this endpoint."""
    return [r.usb.data for r in read_capture(path) if r.usb and r.usb.epnum == endpoint and r.usb.data]


def comments(path: Path) -> list[str]:
    return [text for record in read_capture(path) for text in record.comments if text.startswith("labgrid: ")]


@pytest.mark.parametrize(
    ("test", "name"),
    [
        ("tests/test_boot.py::test_console[main]", "tests-test_boot.py-test_console-main"),
        ("../../etc/passwd", "etc-passwd"),
        ("::", "capture"),
        ("x" * 500, "x" * 150),
    ],
)
def test_names(test: str, name: str) -> None:
    assert captures.file_name(test) == name


def test_each_test_has_its_own(lab: Lab, tmp_path: Path) -> None:
    driver = lab.driver(pcap=str(tmp_path / "captures"))
    device = driver.find()
    for name in ("first", "second"):
        captures.test_begins(f"test_x.py::{name}")
        device.write(0x04, name.encode())
    lab.target.deactivate(driver)
    files = {path.name: path for path in (tmp_path / "captures").iterdir()}
    assert sorted(files) == ["main.pcapng", "test_x.py-first.pcapng", "test_x.py-second.pcapng"]
    for name in ("first", "second"):
        path = files[f"test_x.py-{name}.pcapng"]
        written = sent(path, 0x04)
        assert written == [name.encode()]
        assert comments(path) == [f"labgrid: test test_x.py::{name} begins"]
        assert any("seen by the program before" in text for record in read_capture(path) for text in record.comments)


def test_one_file_for_all_and_a_driver_that_comes_again(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "all.pcapng"
    driver = lab.driver(pcap=str(path))
    captures.test_begins("test_x.py::first")
    driver.find().write(0x04, b"one")
    captures.test_begins("test_x.py::second")
    driver.find().write(0x04, b"two")
    lab.target.deactivate(driver)
    lab.target.activate(driver)
    driver.find().write(0x04, b"three")
    lab.target.deactivate(driver)
    written = sent(path, 0x04)
    assert written == [b"one", b"two", b"three"]
    begun = [text for text in comments(path) if text.endswith("begins")]
    assert begun == [f"labgrid: test test_x.py::{name} begins" for name in ("first", "second")]


def test_steps_and_failures_are_marked(lab: Lab, tmp_path: Path) -> None:
    class Board:
        @step(args=["state"])
        def transition(self, state: str) -> None:
            raise ValueError(f"not {state}\x1b")

    path = tmp_path / "all.pcapng"
    driver = lab.driver(pcap=str(path))
    with pytest.raises(ValueError, match="not"):
        Board().transition("on\x1b")
    driver.find()
    lab.target.deactivate(driver)
    assert comments(path) == [
        r"labgrid: step Board.transition(state='on\x1b')",
        r"labgrid: step Board.transition failed: not on\x1b\x1b",
        "labgrid: step UsbipDriver.find()",
    ]


def test_a_console_and_what_it_is_captured_with(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "all.pcapng"
    console = lab.driver(UsbipSerialDriver, pcap=str(path), speed=9600)
    console.sendline("hello")
    assert console.expect("hel+o", timeout=30)[2][0] == b"hello"
    assert console.port.settings.baudrate == 9600
    lab.target.deactivate(console)
    assert b"hello\n" in sent(path, 0x02)
    assert comments(path) == ["labgrid: step UsbipSerialDriver.expect(pattern='hel+o')"]


def test_a_folder_that_cannot_be(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    driver = UsbipDriver(lab.target, None, pcap=str(tmp_path / "file/captures"))
    with pytest.raises(CaptureError, match=r"cannot be written: .*name another folder"):
        driver.on_activate()
    captures.mark("nobody captures any more")


def test_a_capture_that_cannot_be_written_fails_no_test(
    lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the next test has its capture again."""
    (tmp_path / "second.pcapng").mkdir()
    driver = lab.driver(pcap=str(tmp_path))
    device = driver.find()
    for name in ("first", "second", "third"):
        captures.test_begins(name)
        device.write(0x04, name.encode())
    lab.target.deactivate(driver)
    assert [sent(tmp_path / f"{name}.pcapng", 0x04) for name in ("first", "third")] == [[b"first"], [b"third"]]
    (record,) = [record for record in caplog.records if record.name.startswith("usbip_capture.labgrid")]
    assert str(tmp_path / "second.pcapng") in record.getMessage()


def test_what_another_driver_does_at_the_same_server_is_not_in_it(lab: Lab, tmp_path: Path) -> None:
    with closing(Server()) as server:
        for busid in ("1-1", "1-2"):
            info = replace(INFO, busid=busid)
            server.add(info, partial(DemoDevice, info))
        host, port = server.listen("127.0.0.1", 0)
        drivers = []
        for name in ("1-1", "1-2"):
            target = Target(name)
            NetworkUsbipDevice(target, None, host=host, port=port, busid=name)
            drivers.append(UsbipDriver(target, None, pcap=str(tmp_path / name)))
            target.activate(drivers[-1])
        for driver in drivers:
            driver.find().write(0x04, driver.target.name.encode())
        for driver in drivers:
            driver.target.cleanup()
    for name in ("1-1", "1-2"):
        assert sent(tmp_path / name / f"{name}.pcapng", 0x04) == [name.encode()]
