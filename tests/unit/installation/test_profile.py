"""`usbip-extcap --profile`: written, written again, removed; what the user changed or made stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.installation.fake_wireshark import Machine, echo
from usbip_capture.errors import CaptureError
from usbip_capture.extcap.main import main
from usbip_capture.installation import placement, profile, wiresharks


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


@pytest.fixture
def folder(machine: Machine) -> Path:
    return machine.home / ".config/wireshark/profiles/USB-IP"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["4.0", "4.4", "4.6", "none"])
def test_there_and_back(kind: str, machine: Machine, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if kind != "none":
        machine.wireshark(kind)
    for _ in range(2):
        assert main(["--profile"]) == 0
        assert names(folder) == {*profile.FILES, profile.MARKS, "recent"}
        assert f"Wrote the profile {folder}." in capsys.readouterr().out
    assert main(["--profile", "remove"]) == 0
    assert capsys.readouterr().out == f"Removed the profile {folder}.\n"
    assert not folder.exists()
    assert main(["--profile", "remove"]) == 0
    assert "no profile USB-IP of ours" in capsys.readouterr().out


def test_the_folder_that_wireshark_names(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark("4.4", scripts={"folders": echo(f"Personal configuration:\t{machine.home}/its own\r")})
    assert main(["--profile"]) == 0
    assert (machine.home / "its own/profiles/USB-IP/preferences").is_file()


def test_uninstall_takes_it_too(machine: Machine, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine.wireshark("4.0")
    assert placement.install() == main(["--profile"]) == 0
    assert main(["--uninstall"]) == 0
    assert f"Removed the profile {folder}." in capsys.readouterr().out
    assert not folder.exists()
    assert list(machine.home.rglob("usbip-extcap")) == []


@pytest.mark.parametrize("made", ["preferences", profile.MARKS])
def test_a_profile_that_is_not_ours_stays(
    made: str, machine: Machine, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir(parents=True)
    (folder / made).write_text("mine\n")
    assert main(["--profile"]) == 1
    printed = capsys.readouterr()
    assert f"{folder} is there already and not ours" in printed.err
    assert main(["--profile", "remove"]) == 0
    assert main(["--uninstall"]) == 0
    assert names(folder) == {made}
    assert (folder / made).read_text() == "mine\n"


def test_a_link_and_a_file_of_that_name_stay(tmp_path: Path) -> None:
    profile.install(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("mine")
    for name in ("link", "file"):
        with pytest.raises(CaptureError, match="not ours"):
            profile.install(tmp_path / name)
        assert profile.remove(tmp_path / name) == []
    assert names(tmp_path / "real") == {*profile.FILES, profile.MARKS, "recent"}


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    profile.install(tmp_path)
    assert names(tmp_path) == {*profile.FILES, profile.MARKS, "recent"}


def test_changed_files_stay_and_are_reported(tmp_path: Path) -> None:
    folder = tmp_path / "USB-IP"
    profile.install(folder)
    (folder / "colorfilters").write_text("@mine@usb@[0,0,0][1,1,1]\n")
    (folder / "dfilter_buttons").unlink()
    (folder / "recent").write_text("Wireshark's own\n")
    (reported,) = [line for line in profile.install(folder) if "Kept" in line]
    assert "colorfilters" in reported
    assert (folder / "dfilter_buttons").stat().st_size > 100, "what the user removed comes back with --profile"
    (reported,) = profile.remove(folder)
    assert "colorfilters" in reported
    assert names(folder) == {"colorfilters", profile.MARKS}
    assert (folder / "colorfilters").read_text().startswith("@mine")
    profile.install(folder)
    assert (folder / "colorfilters").read_text().startswith("@mine")
    (folder / "colorfilters").unlink()
    assert profile.remove(folder) == [f"Removed the profile {folder}."]


def test_files_of_others_in_our_profile_stay(tmp_path: Path) -> None:
    profile.install(tmp_path)
    (tmp_path / "hosts").write_text("192.0.2.1 pi\n")
    assert "hosts" in profile.remove(tmp_path)[0]
    assert names(tmp_path) == {"hosts", profile.MARKS}


def test_a_second_removal_does_not_report_it_again(tmp_path: Path) -> None:
    profile.install(tmp_path)
    (tmp_path / "preferences").write_text("mine")
    (first,), (second,) = profile.remove(tmp_path), profile.remove(tmp_path)
    assert first.endswith("; the rest is removed.")
    assert second == f"Kept in {tmp_path} what you or Wireshark changed or added: preferences."


def test_a_folder_that_cannot_be_made(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    (machine.home / ".config").write_text("a file")
    assert main(["--profile"]) == 1
    assert "cannot be written: Not a directory" in capsys.readouterr().err


def test_a_wrong_word(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--profile", "nonsense"]) == 2
    assert "--profile: 'nonsense' is not a possible value: choose from install, remove" in capsys.readouterr().err


def test_by_the_rule_where_nothing_is_reported(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/xdg")
    assert wiresharks.configuration_folder("garbage") == Path("/xdg/wireshark")
