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
    """found: as pytest finds it, beside others; those that take longer than the tests are left out."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *options]
    environment = dict(os.environ)
    if found:
        command += [f"-pno:{name}" for name in ("schemathesis", "hypothesispytest", "playwright")]
    else:
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
    other = _TESTS.replace("my secret!", "my secret?").replace("hello", "hallo").replace("timeout=20", "timeout=0.5")
    (tmp_path / "test_it.py").write_text(other)
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


@pytest.mark.parametrize("ends", ["assert False", "pytest.skip('not here')", "pass"])
def test_only_what_passed_is_kept(ends: str, tmp_path: Path, server: str) -> None:
    """A test that opens nothing leaves the recording as it was, too."""
    use = "list(usb.core.find(find_all=True, backend=made.backend))" if ends != "pass" else "made"
    lines = ["import pytest, usb.core", "def test_it(usb_recording):", "    made = usb_recording('it')"]
    (tmp_path / "test_it.py").write_text("\n".join([*lines, f"    {use}", f"    {ends}", ""]))
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "it.pcapng").write_bytes(b"as it was")
    assert run(tmp_path, f"--usb-record={server}").returncode == (ends == "assert False")
    assert [path.read_bytes() for path in (tmp_path / "recordings").iterdir()] == [b"as it was"]


@pytest.mark.parametrize(
    ("used", "sentence"),
    [
        ("usb_recording('it', mask=[b'abc'])", "mask is for secrets of at least 4 bytes"),
        ("made = usb_recording('it', '1-1'); made.backend; made.serial()", "one backend or one port"),
    ],
)
def test_what_cannot_be_recorded_is_a_sentence(used: str, sentence: str, tmp_path: Path, server: str) -> None:
    (tmp_path / "test_it.py").write_text(f"def test_it(usb_recording):\n    {used}\n")
    done = run(tmp_path, f"--usb-record={server}")
    assert done.returncode == 1
    assert sentence in done.stdout


def test_recorded_by_a_name_that_is_built_in(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(_TESTS)
    done = run(tmp_path, "--usb-record=demo")
    assert done.returncode == 0, done.stdout
    assert run(tmp_path).returncode == 0
