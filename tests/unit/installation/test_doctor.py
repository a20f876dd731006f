"""`usbip-extcap --doctor` on machines that are broken in every way users reported: a finding and its remedy each."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.installation.fake_wireshark import HANGS, LISTED, Machine, echo, place, program
from usbip_capture.installation import doctor, health, launcher_check, placement, wiresharks
from usbip_capture.installation.health import FAILURE, OK, WARNING
from usbip_capture.servers.configuration import configuration_path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def diagnosis(capsys: pytest.CaptureFixture[str], host: str = "", port: int = 3240) -> tuple[int, str]:
    """The exit code, and what was printed."""
    code = doctor.run(host, port)
    printed = capsys.readouterr()
    assert printed.err == ""
    return code, printed.out


def remedied(text: str, mark: str) -> list[str]:
    """Findings of this mark with their remedies; each must have one."""
    lines = text.splitlines()
    found = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith(mark):
            assert following.startswith("         -> "), line
            found.append(f"{line[9:]}\n{following[12:]}")
    return found


def only_failure(capsys: pytest.CaptureFixture[str]) -> str:
    code, text = diagnosis(capsys)
    assert code == 1, text
    (failure,) = remedied(text, FAILURE)
    return failure


@pytest.mark.parametrize("kind", ["4.0", "4.4", "4.6"])
def test_all_is_well(kind: str, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark(kind)
    path = place(machine.old_folder if kind == "4.0" else machine.new_folder)
    code, text = diagnosis(capsys)
    assert (code, remedied(text, FAILURE), remedied(text, WARNING)) == (0, [], []), text
    assert f"ok       the launcher is {path}\n" in text
    for name, _, _ in launcher_check.QUERIES:
        assert f"ok       {name}: answered in " in text
    assert "lists usbip-remote" in text
    assert text.endswith("\nAll is well.\n")


def test_no_wireshark(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert "install Wireshark" in only_failure(capsys)


def test_not_installed(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark("4.4")
    failure = only_failure(capsys)
    assert str(machine.new_folder) in failure
    assert "usbip-extcap --install" in failure


@pytest.mark.parametrize("kind", ["4.0", "4.4"])
def test_in_the_folder_of_another_version(kind: str, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark(kind)
    wrong, right = machine.new_folder, machine.old_folder
    if kind == "4.4":
        wrong, right = right, wrong
    place(wrong)
    failure = only_failure(capsys)
    assert f"lies in {wrong}, but Wireshark {kind}" in failure
    assert f"looks in {right}" in failure
    assert "usbip-extcap --install" in failure
    assert placement.install() == 0
    capsys.readouterr()
    assert diagnosis(capsys)[0] == 0


def test_two_versions_get_a_launcher_each(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.wireshark("4.4")
    machine.wireshark("4.0", machine.home / "old")
    monkeypatch.setenv("PATH", os.pathsep.join([str(machine.bin), str(machine.home / "old")]))
    place(machine.new_folder)
    assert str(machine.old_folder) in only_failure(capsys)
    assert placement.install() == 0
    assert diagnosis(capsys)[0] == 0
    assert placement.uninstall() == 0
    assert list(machine.home.rglob("usbip-extcap")) == []


def test_two_of_one_version_are_reported_once(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.wireshark("4.0")
    machine.wireshark("4.0", machine.home / "other", {"folders": "exit 1"})
    monkeypatch.setenv("PATH", os.pathsep.join([str(machine.bin), str(machine.home / "other")]))
    assert str(machine.old_folder) in only_failure(capsys)


def test_not_executable(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark("4.0")
    path = place(machine.old_folder)
    path.chmod(0o644)
    assert f"chmod +x {path}" in only_failure(capsys)


def test_noexec(machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark("4.0")
    place(machine.old_folder)
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_flag=os.ST_NOEXEC))
    assert "mounted noexec" in only_failure(capsys)


@pytest.mark.parametrize("folder", ["plain", "with blank"])
def test_dead_interpreter(folder: str, machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark("4.0")
    place(machine.old_folder, str(tmp_path / folder / "python"))
    failure = only_failure(capsys)
    assert f"interpreter {tmp_path / folder / 'python'} cannot be started (No such file" in failure
    assert "--install" in failure


@pytest.mark.parametrize("script", ["exit 1", "echo hello", "echo 3 x y"])
def test_an_interpreter_that_is_no_python(
    script: str, machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.wireshark("4.0")
    place(machine.old_folder, str(program(tmp_path / "python", script)))
    assert f"interpreter {tmp_path / 'python'} " in only_failure(capsys)


def test_an_interpreter_that_is_too_old(machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark("4.0")
    place(machine.old_folder, str(program(tmp_path / "python", "echo 3 8 10")))
    assert "Python 3.8.10, too old" in only_failure(capsys)


def test_moved_library(machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark("4.0")
    place(machine.old_folder, library=tmp_path / "gone")
    assert f"there is no usbip_capture in {tmp_path / 'gone'}" in only_failure(capsys)


def library(base: Path, version: str, main: str) -> Path:
    """A package of our name that is not us."""
    package = base / "other" / "usbip_capture" / "extcap"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text(f"__version__ = {version!r}\n")
    (package / "__init__.py").write_text("")
    (package / "main.py").write_text(main)
    return base / "other"


def test_a_library_that_does_not_load(machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark("4.0")
    place(machine.old_folder, library=library(tmp_path, "0", "import nonsense_of_ours\n"))
    assert "does not load: ModuleNotFoundError: No module named 'nonsense_of_ours'" in only_failure(capsys)


def test_another_version_that_answers_nothing(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.wireshark("4.0")
    place(machine.old_folder, library=library(tmp_path, "0.0.1", "def main():\n    return 0\n"))
    code, text = diagnosis(capsys)
    assert code == 1
    assert "version 0.0.1" in remedied(text, WARNING)[0]
    assert "asked for its interfaces" in remedied(text, FAILURE)[0]


@pytest.mark.parametrize("content", [b"#!/bin/sh\necho mine\n", b"", bytes(range(256)) * 100])
def test_a_foreign_file(content: bytes, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark("4.0")
    machine.old_folder.mkdir(parents=True)
    (machine.old_folder / "usbip-extcap").write_bytes(content)
    assert "move it" in only_failure(capsys)
    assert (machine.old_folder / "usbip-extcap").read_bytes() == content


def test_a_folder_and_a_broken_link_in_its_place(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark("4.0")
    (machine.old_folder / "usbip-extcap").mkdir(parents=True)
    assert "cannot be read (Is a directory)" in only_failure(capsys)
    (machine.old_folder / "usbip-extcap").rmdir()
    (machine.old_folder / "usbip-extcap").symlink_to("nowhere")
    assert "cannot be read (No such file" in only_failure(capsys)


def test_ours_but_cut_off(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark("4.0")
    place(machine.old_folder).write_text(f"#!/usr/bin/python3\n# {placement.MARK}\n")
    assert "names no interpreter" in only_failure(capsys)


def test_slow_answers(machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark("4.0")
    place(machine.old_folder)
    monkeypatch.setattr(launcher_check, "SLOW", 0.0001)
    code, text = diagnosis(capsys)
    assert code == 0
    assert len(remedied(text, WARNING)) == len(launcher_check.QUERIES)


@pytest.mark.parametrize("asked", ["version", "folders", "listing"])
def test_a_tshark_that_hangs(
    asked: str, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(health, "LIMIT", 1.0)
    machine.wireshark("4.0", scripts={asked: HANGS})
    place(machine.old_folder)
    code, text = diagnosis(capsys)
    # Without its folders, the rules for its version decide where the launcher belongs.
    assert code == (0 if asked == "folders" else 1), text
    if code:
        assert "does not end within 1 s" in text


@pytest.mark.parametrize("asked", ["version", "folders", "listing"])
@pytest.mark.parametrize("answer", ["printf '\\377\\000\\012\\033x'", "exit 7", "kill -9 $$", "echo oh no >&2; exit 1"])
def test_a_tshark_that_talks_nonsense(
    asked: str, answer: str, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.wireshark("4.0", scripts={asked: answer})
    place(machine.old_folder)
    code, text = diagnosis(capsys)
    assert code == (0 if asked == "folders" else 1), text
    assert "doctor failed" not in text


def test_endless_output_is_cut(tmp_path: Path) -> None:
    answer = health.ask(str(program(tmp_path / "p", "exec /usr/bin/yes")), limit=5)
    assert answer.problem
    assert 1 << 20 < len(answer.out) < 8 << 20


def test_an_output_that_a_child_holds_open_is_not_waited_for(tmp_path: Path) -> None:
    answer = health.ask(str(program(tmp_path / "p", "echo said; /bin/sleep 1000 &")), limit=0.5)
    assert answer.problem == "does not end within 0.5 s"
    assert answer.out == "said\n"


def test_not_listed(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark("4.0", scripts={"listing": echo("1. eth0")})
    place(machine.old_folder)
    assert "does not list usbip-remote" in only_failure(capsys)


def test_dumpcap_that_may_not_be_run(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark("4.0")
    place(machine.old_folder)
    (machine.bin / "dumpcap").chmod(0o644)
    assert "sudo usermod -aG wireshark $USER" in only_failure(capsys)
    (machine.bin / "dumpcap").unlink()
    assert "has no dumpcap" in only_failure(capsys)


def test_flatpak(machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark("4.0")
    place(machine.old_folder)
    assert "Flatpak" not in diagnosis(capsys)[1]
    (tmp_path / "flatpak").mkdir()
    code, text = diagnosis(capsys)
    (warning,) = remedied(text, WARNING)
    assert code == 0
    assert "cannot capture with extcaps" in warning
    assert "distribution's package" in warning
    assert wiresharks.sandboxed() == ["Flatpak"]


def test_other_extcap_folder_is_noted(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WIRESHARK_EXTCAP_DIR", "/somewhere")
    machine.wireshark("4.0")
    assert "WIRESHARK_EXTCAP_DIR is set, /somewhere is read" in diagnosis(capsys)[1]


def test_a_missing_package(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.wireshark("4.0")
    place(machine.old_folder)
    monkeypatch.setattr(doctor, "PACKAGES", ("pyusb", "no-such-package-of-ours"))
    assert "no-such-package-of-ours is not installed" in only_failure(capsys)


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_servers(
    closed_port: int, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.wireshark("4.0")
    place(machine.old_folder)
    monkeypatch.setenv("USBIP_CAPTURE_SERVERS", f"demo, 127.0.0.1:{closed_port},,demo")
    code, text = diagnosis(capsys)
    assert code == 0
    assert text.count("ok       server demo exports 1 device\n") == 1
    (warning,) = remedied(text, WARNING)
    assert f"nothing listens on 127.0.0.1 port {closed_port}" in warning


def test_a_known_server_that_was_named_is_reported_once(
    closed_port: int, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.wireshark("4.0")
    place(machine.old_folder)
    monkeypatch.setenv("USBIP_CAPTURE_SERVERS", f"demo, 127.0.0.1:{closed_port}")
    code, text = diagnosis(capsys, "127.0.0.1", closed_port)
    assert (code, text.count(f"server 127.0.0.1:{closed_port}:"), len(remedied(text, WARNING))) == (1, 1, 0)
    assert text.count("server demo exports") == 1


def test_the_server_that_was_named_is_looked_at(
    closed_port: int, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.wireshark("4.0")
    place(machine.old_folder)
    code, text = diagnosis(capsys, "127.0.0.1", closed_port)
    (failure,) = remedied(text, FAILURE)
    assert (code, f"nothing listens on 127.0.0.1 port {closed_port}" in failure) == (1, True)
    code, text = diagnosis(capsys, "demo")
    assert (code, "ok       server demo exports 1 device\n" in text) == (0, True)
    code, text = diagnosis(capsys, "no such host")
    assert (code, len(remedied(text, FAILURE))) == (1, 1)


def test_host_and_port_of_the_command_line_are_used(closed_port: int, tmp_path: Path) -> None:
    code = "import sys; from usbip_capture.extcap.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--doctor", "--host", "127.0.0.1"]
    env = {**os.environ, "HOME": str(tmp_path), "PATH": str(tmp_path)}
    done = subprocess.run([*command, "--port", str(closed_port)], env=env, capture_output=True, text=True, check=False)
    assert f"nothing listens on 127.0.0.1 port {closed_port}" in done.stdout
    done = subprocess.run([*command, "--port", "99999"], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, "99999" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("prefix", "command"),
    [
        ("/home/me/.local/pipx/venvs/usbip-capture", "pipx inject usbip-capture pyserial"),
        ("/usr", "pip install pyserial"),
    ],
    ids=["pipx", "pip"],
)
def test_missing_pyserial_is_reported_with_the_command_that_installs_it(
    prefix: str, command: str, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.metadata.version

    def version(package: str) -> str:
        if package == "pyserial":
            raise importlib.metadata.PackageNotFoundError
        return found(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(sys, "prefix", prefix)
    (warning,) = remedied(diagnosis(capsys)[1], WARNING)
    assert "no serial ports" in warning
    assert command in warning


def test_a_silent_server(machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "_SERVER_LIMIT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("USBIP_CAPTURE_SERVERS", f"127.0.0.1:{server.getsockname()[1]}")
        assert "does not answer within 0.2 s" in diagnosis(capsys)[1]


def test_a_list_of_servers_that_cannot_be_read(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("USBIP_CAPTURE_SERVERS", "pi:none")
    (warning,) = remedied(diagnosis(capsys)[1], WARNING)
    assert "'pi:none' in USBIP_CAPTURE_SERVERS cannot be used: it is not an address" in warning
    Path(configuration_path()).mkdir(parents=True)
    warnings = remedied(diagnosis(capsys)[1], WARNING)
    assert any("config.toml cannot be read (Is a directory)" in warning for warning in warnings)


def test_a_check_that_fails_itself_is_reported(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> list[str]:
        raise ValueError("oops")

    monkeypatch.setattr(doctor, "sandboxed", broken)
    machine.wireshark("4.0")
    place(machine.old_folder)
    assert "ValueError: oops" in only_failure(capsys)


def test_the_same_program_under_two_names_counts_once(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.wireshark("4.0")
    (machine.home / "link").symlink_to(machine.bin)
    monkeypatch.setenv("PATH", f"{machine.bin}:{machine.home / 'link'}:{machine.bin}")
    assert [str(each) for each in wiresharks.installations()] == ["Wireshark 4.0.17"]


def test_a_launcher_as_windows_has_it_is_read(tmp_path: Path) -> None:
    script = tmp_path / "usbip-extcap-launcher.py"
    script.write_text('#!C:\\Python\\python.exe -IS\nLIBRARY = r"C:\\lib"\n')
    batch = tmp_path / "usbip-extcap.bat"
    batch.write_text(f'@echo off\nrem {placement.MARK}\n"C:\\Program Files\\python.exe" -IS "{script}" %*\n')
    assert launcher_check.read(batch) == launcher_check.Launcher("C:\\Program Files\\python.exe", "C:\\lib")


def test_who_reads_may_leave_early(machine: Machine) -> None:
    machine.wireshark("4.0", scripts={"listing": echo(LISTED)})
    shell = shutil.which("sh", path="/bin") or "/bin/sh"
    code = "import sys; from usbip_capture.extcap.main import main; sys.exit(main(['--doctor']))"
    command = f"'{sys.executable}' -c \"{code}\" | /usr/bin/head -1"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([shell, "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_marks() -> None:
    assert health.Finding(OK, "all", "").lines() == "ok       all"


def test_libusb_may_be_missing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usb1", None)
    (finding,) = doctor._libusb()
    assert finding.mark == OK
    assert "note: devices of this machine need the package libusb1: pip install" in finding.lines()
    monkeypatch.setitem(sys.modules, "usb1", SimpleNamespace(loadLibrary=lambda library: True))
    (finding,) = doctor._libusb()
    assert "libusb is there" in finding.lines()
