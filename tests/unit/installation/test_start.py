"""`usbip-extcap --wireshark HOST [DEVICE]`: the command that is run, and one sentence for what is in the way."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.unit.installation.fake_wireshark import Machine, place, program
from tests.waiting import wait_until
from usbip_capture.extcap.main import main
from usbip_capture.installation import start


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """With a Wireshark of 4.0 that writes down how it was started, and our launcher for it."""
    machine = Machine(tmp_path, monkeypatch)
    machine.wireshark("4.0")
    program(
        machine.bin / "wireshark",
        f'for each; do echo "$each"; done > {machine.home}/new\n/bin/mv {machine.home}/new {machine.home}/started',
    )
    place(machine.old_folder)
    monkeypatch.setenv("DISPLAY", ":7")
    return machine


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["pi"], ["host:pi"]),
        (["pi", "1-1.2"], ["host:pi", "device:1-1.2", "devices:"]),
        (["pi:3241", "303a:4004"], ["host:pi", "port:3241", "device:303a:4004", "devices:"]),
        (["[fe80::1%eth0]:99"], ["host:fe80::1%eth0", "port:99"]),
        (["2001:db8::1"], ["host:2001:db8::1"]),
    ],
)
def test_the_command(
    words: list[str], options: list[str], machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--wireshark", *words]) == 0
    started = machine.home / "started"
    wait_until("the program ran", started.exists)
    expected = ["-k", "-i", "usbip-remote"]
    for option in options:
        expected += ["-o", f"extcap.usbip_remote.{option}"]
    assert started.read_text().splitlines() == expected
    assert "Wireshark is starting" in capsys.readouterr().out


def test_our_profile_is_used_where_it_is_installed(machine: Machine) -> None:
    assert main(["--profile"]) == 0
    assert main(["--wireshark", "pi"]) == 0
    started = machine.home / "started"
    wait_until("the program ran", started.exists)
    assert started.read_text().splitlines()[:3] == ["-C", "USB-IP", "-k"]


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (["pi:none"], "is not an address"),
        (["a", "b", "c"], "--wireshark pi 1-1.2"),
        ([], "--wireshark needs a value"),
        (["pi", "no device {}"], "--device cannot be"),
    ],
)
def test_wrong_words(words: list[str], output: str, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--wireshark", *words]) in (1, 2)
    assert output in capsys.readouterr().err
    assert not (machine.home / "started").exists()


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["--wireshark", "pi"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


def test_not_installed(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    (machine.old_folder / "usbip-extcap").unlink()
    assert "run 'usbip-extcap --install'" in refused(capsys)


def test_not_executable(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    (machine.old_folder / "usbip-extcap").chmod(0o644)
    assert "chmod +x" in refused(capsys)


def test_no_wireshark(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    (machine.bin / "wireshark").unlink()
    assert "no program wireshark" in refused(capsys)


def test_no_display(machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert "no display" in refused(capsys)


def test_it_ends_at_once(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    program(machine.bin / "wireshark", "echo could not connect to display :7 >&2; exit 1")
    assert "could not connect to display :7" in refused(capsys)


def test_it_runs_on_in_a_session_of_its_own(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_PATIENCE", 0.1)
    process = start.start([str(program(machine.bin / "wireshark", "exec /bin/sleep 1000"))])
    try:
        assert os.getsid(process) == process
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
