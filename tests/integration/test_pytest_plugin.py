"""The fixture `usb_recording`, as a project uses it: recorded once from a server, replayed without one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from usbip_capture.demo.device import DemoServer

_TESTS = """
import usb.core

def test_identity(usb_recording):
    device = usb.core.find(backend=usb_recording("identity", "1-1").backend)
    assert (device.product, device.serial_number) == ("Demo device", "DEMO0001")

def test_stores(usb_recording):
    device = usb.core.find(backend=usb_recording("stores", mask=[b"secret"]).backend)
    device.set_configuration()
    device.ctrl_transfer(0x40, 0x10, 1, 0, b"my secret!")
    assert bytes(device.ctrl_transfer(0xC0, 0x10, 1, 0, 64)) in (b"my secret!", b"my ******!")

def test_echo(usb_recording):
    with usb_recording("echo", "1-1", unused="error").serial(baudrate=115200, timeout=20) as port:
        port.write(b"hello\\n")
        assert b"hello" in port.read_until(b"hello")
"""


@pytest.fixture
def server() -> Iterator[str]:
    made = DemoServer()
    try:
        host, port = made.listen("127.0.0.1", 0)
        yield f"{host}:{port}"
    finally:
        made.close()


def run(folder: Path, *options: str, found: bool = False) -> subprocess.CompletedProcess[str]:
    """found: as pytest finds it, with all others that happen to be installed, which take longer than the tests."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *options]
    environment = dict(os.environ)
    if not found:
        command += ["-p", "usbip_capture.pytest_plugin"]
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_recorded_once_and_replayed(tmp_path: Path, server: str) -> None:
    (tmp_path / "test_it.py").write_text(_TESTS)
    done = run(tmp_path, found=True)
    assert done.returncode == 1
    assert "make it with pytest --usb-record=HOST" in done.stdout
    done = run(tmp_path, f"--usb-record={server}")
    assert done.returncode == 0, done.stdout
    kept = sorted(path.name for path in (tmp_path / "recordings").iterdir())
    assert kept == ["echo.pcapng", "identity.pcapng", "stores.pcapng"]
    assert b"secret" not in (tmp_path / "recordings" / "stores.pcapng").read_bytes()
    assert b"my ******!" in (tmp_path / "recordings" / "stores.pcapng").read_bytes()
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_what_differs_is_shown(tmp_path: Path, server: str) -> None:
    (tmp_path / "test_it.py").write_text(_TESTS)
    assert run(tmp_path, f"--usb-record={server}").returncode == 0
    (tmp_path / "test_it.py").write_text(_TESTS.replace("my secret!", "my secret?").replace("hello", "hallo"))
    done = run(tmp_path)
    assert done.returncode == 1
    assert "asked, and not in stores.pcapng" in done.stdout
    assert "asked: control 0x40 0x10 wValue 0x0001 wIndex 0x0000 wLength 10, 10 bytes: 6d 79 20 2a" in done.stdout
    assert "expected: control 0x40 0x10" in done.stdout
    assert "(packet " in done.stdout


def test_what_was_never_asked_can_fail_a_test(tmp_path: Path, server: str) -> None:
    (tmp_path / "test_it.py").write_text(_TESTS)
    assert run(tmp_path, f"--usb-record={server}").returncode == 0
    fewer = (
        "def test_echo(usb_recording):\n"
        "    usb_recording('echo', '1-1', unused='error').serial(baudrate=115200).close()\n"
    )
    (tmp_path / "test_it.py").write_text(fewer)
    done = run(tmp_path)
    assert done.returncode == 1
    assert "never asked: packet " in done.stdout


def test_a_test_that_fails_leaves_the_recording_as_it_was(tmp_path: Path, server: str) -> None:
    (tmp_path / "test_it.py").write_text(
        "def test_it(usb_recording):\n    usb_recording('it').backend\n    assert False\n"
    )
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "it.pcapng").write_bytes(b"as it was")
    assert run(tmp_path, f"--usb-record={server}").returncode == 1
    assert [path.read_bytes() for path in (tmp_path / "recordings").iterdir()] == [b"as it was"]
