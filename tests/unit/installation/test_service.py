"""`serve --service`: the unit as systemd reads it, and what is done to have it run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from usbip_capture.cli import service as command
from usbip_capture.cli.main import main
from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.installation import service
from usbip_capture.installation.service import SYSTEM, USER, install, remove, unit_path, unit_text
from usbip_capture.servers.configuration import configuration_path

ODD = ["--all", '--name=A "b" $x ${y} 100% %h \\ \u00fc', "--pcap=/var/log/x y/z.pcapng"]
SCOPES = pytest.mark.parametrize("scope", [SYSTEM, USER])
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where units are written, as root may do; systemd runs."""
    monkeypatch.setattr(service, "_SYSTEM_UNITS", str(tmp_path / "system"))
    monkeypatch.setattr(service, "_BOOTED", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


class Systemctl:
    """Records what it is asked for; fails at `failing`."""

    def __init__(self, failing: str = "") -> None:
        self.asked: list[str] = []
        self._failing = failing

    def __call__(self, scope: str, *arguments: str) -> str:
        self.asked.append(" ".join((scope, *arguments)))
        if arguments[0] == self._failing:
            raise UsbipError("it failed")
        return ""


@needs_systemd
@SCOPES
def test_systemd_takes_the_unit(scope: str, tmp_path: Path) -> None:
    path = tmp_path / service.UNIT
    path.write_text(unit_text(scope, ODD, ["/var/log/x y"]))
    user = ["--user"] if scope == USER else []
    (tmp_path / "runtime").mkdir()
    done = subprocess.run(
        ["systemd-analyze", *user, "verify", "--man=no", str(path)],
        check=False, capture_output=True, text=True, timeout=60,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "runtime")},
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
def test_the_unit_of_the_system_has_little(tmp_path: Path) -> None:
    path = tmp_path / service.UNIT
    path.write_text(unit_text(SYSTEM, ["--all"]))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", str(path)],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@SCOPES
def test_what_the_unit_says(scope: str) -> None:
    text = unit_text(scope, ["--all"])
    keys = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z]\w+=", line))
    assert keys["ExecStart"] == f"{sys.executable} -m usbip_capture serve --all"
    assert (keys["Type"], keys["NotifyAccess"], keys["WatchdogSec"]) == ("notify", "main", "10")
    assert keys["NoNewPrivileges"] == "yes"
    assert keys["WantedBy"] == ("multi-user.target" if scope == SYSTEM else "default.target")
    assert keys.get("DeviceAllow") == ("char-usb_device rw" if scope == SYSTEM else None)
    assert keys.get("ProtectSystem") == ("strict" if scope == SYSTEM else None)


def test_words_of_the_command_stay_words() -> None:
    line = next(line for line in unit_text(USER, ODD).splitlines() if line.startswith("ExecStart="))
    # As systemd unquotes it, then replaces $$ and %%. Ref: systemd.syntax(7), systemd.service(5)
    words = [word.replace("$$", "$").replace("%%", "%") for word in shlex.split(line.partition("=")[2])]
    assert words[4:] == ODD
    with pytest.raises(LocalProtocolError, match="it has a line break"):
        unit_text(USER, ["--name=a\nExecStartPre=/bin/false"])


def test_a_program_below_somebodys_home_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_is_private", lambda path: True)
    assert "\nCapabilityBoundingSet=CAP_DAC_READ_SEARCH\n" in unit_text(SYSTEM, [])
    monkeypatch.setattr(service, "_is_private", lambda path: False)
    assert "\nCapabilityBoundingSet=\n" in unit_text(SYSTEM, [])


def test_files_for_all_are_not_put_where_nobody_sees_them() -> None:
    assert "\nPrivateTmp=yes\n" in unit_text(SYSTEM, [], ["/var/log"])
    assert "\nPrivateTmp=no\n" in unit_text(SYSTEM, [], ["/tmp/x"])


@SCOPES
def test_it_is_installed_and_removed(scope: str, units: Path) -> None:
    systemctl = Systemctl()
    said = install(scope, "the unit", systemctl)
    path = unit_path(scope)
    assert path.read_text() == "the unit"
    assert stat.S_IMODE(path.stat().st_mode) & 0o444
    assert str(path) in said
    assert systemctl.asked == [
        f"{scope} {words}" for words in ("daemon-reload", f"enable {service.UNIT}", f"restart {service.UNIT}")
    ]
    systemctl = Systemctl()
    assert "its configuration stays in" in remove(scope, systemctl)
    assert not path.exists()
    assert systemctl.asked == [f"{scope} disable --now {service.UNIT}", f"{scope} daemon-reload"]
    with pytest.raises(UsbipError, match="no such service is installed"):
        remove(scope, systemctl)


def test_one_that_does_not_start_says_where_to_look(units: Path) -> None:
    with pytest.raises(
        UsbipError, match=r"does not start: it failed; see `journalctl --user -u usbip-capture\.service"
    ):
        install(USER, "the unit", Systemctl("restart"))


def test_the_system_is_for_root(units: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UsbipError, match="for root to install: use sudo, or --service install user"):
        install(SYSTEM, "", Systemctl())
    with pytest.raises(UsbipError, match="for root to install"):
        remove(SYSTEM, Systemctl())


def test_without_systemd_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_BOOTED", "/not/there")
    with pytest.raises(UsbipError, match="needs systemd, which does not run here"):
        install(USER, "", Systemctl())


def test_what_systemctl_says_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "systemctl"
    program.write_text('#!/bin/sh\necho "$@" >&2; exit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsbipError, match=r"`systemctl --user daemon-reload` failed: --user daemon-reload"):
        service._systemctl(USER, "daemon-reload")
    program.unlink()
    with pytest.raises(UsbipError, match="does not work"):
        service._systemctl(USER, "daemon-reload")


# -- the command


@pytest.fixture
def installed(units: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    done: list[tuple[str, str]] = []

    def fake(scope: str, text: str, run: Callable[..., str] | None = None) -> str:
        done.append((scope, text))
        return "installed"

    monkeypatch.setattr(service, "install", fake)
    monkeypatch.setattr(service, "configuration_of", lambda scope: str(units / f"{scope}.toml"))
    return done


def test_options_become_those_of_the_service(installed: list[tuple[str, str]], units: Path) -> None:
    options = ["--device=1-1.4", "--device=303a:4001:A B", "--class=03", "--no-reset", "--listen=0.0.0.0",
               "--allow=192.0.2.0/24", "--max-clients=3", "--no-announce", "--force"]  # fmt: skip
    assert main(["serve", *options, "--no-live", "--pcap", "x.pcapng", "--service", "install", "user"]) == 0
    ((scope, text),) = installed
    assert scope == USER
    line = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    assert sorted(shlex.split(line.partition("=")[2])[4:]) == sorted(
        [*options, f"--pcap={os.path.abspath('x.pcapng')}"]
    )
    assert not (units / "user.toml").exists()


def test_the_audit_of_a_service(installed: list[tuple[str, str]], tmp_path: Path) -> None:
    options = ["serve", "--all", "--audit-syslog", "/dev/log", "--service", "install", "system", "--audit"]
    assert main([*options, f"{tmp_path}/audit"]) == 0
    assert main([*options, "-"]) == 0
    (_, file), (_, output) = installed
    assert f"--audit={tmp_path}/audit" in file
    assert "--audit-syslog=/dev/log" in file
    assert f"ReadWritePaths={tmp_path}\n" in file
    assert "--audit=-" in output
    assert f"ReadWritePaths={os.getcwd()}\n" not in output


def test_without_rules_the_configuration_says_what(
    installed: list[tuple[str, str]], units: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--service", "install"]) == 0
    assert installed[0][0] == SYSTEM  # for we are root here
    assert (units / "system.toml").read_text() == "[server]\nexports = []\n"
    assert "`usbip-capture bind` adds to it" in capsys.readouterr().out
    (units / "system.toml").write_text("[server]\nexports = ['1-1']\n")
    assert main(["serve", "--service", "install"]) == 0
    assert (units / "system.toml").read_text() == "[server]\nexports = ['1-1']\n"


def test_the_unit_is_shown(units: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--all", "--service", "show", "user"]) == 0
    assert capsys.readouterr().out == unit_text(USER, ["--all"])


def test_the_unit_without_a_rule_needs_the_configuration(units: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which `install` writes."""
    assert main(["serve", "--service", "show", "user"]) == 0
    shown = capsys.readouterr()
    assert shown.out == unit_text(USER, [])
    assert shown.err == (
        f"usbip-capture: without a rule, it needs exports = [...] under [server] in {configuration_path()}; "
        "`--service install` writes that\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["x"],
        ["install", "x"],
        ["user"],
        ["install", "user", "system"],
        ["remove", "user", "--all"],
        ["install", "--restore"],
    ],
)
def test_what_is_misunderstood(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--service", *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_usual_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    for uid, scope in ((0, SYSTEM), (1000, USER)):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        assert command._parsed(["show"]) == ("show", scope)
