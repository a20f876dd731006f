"""`extcap.placement`: the folder by version, one file that is ours, and launchers that run."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from usbip_capture.errors import CaptureError
from usbip_capture.installation import placement

ROOT = Path(__file__).parents[3]

FOLDERS_4_0 = """\
Temp:                \t/tmp
Personal configuration:\t/home/u/.config/wireshark
Extcap path:         \t/usr/lib/x86_64-linux-gnu/wireshark/extcap
"""
FOLDERS_4_4 = """\
Personal configuration:\t/home/u/.config/wireshark
Personal Extcap path:\t/home/u/.local/lib/wireshark/extcap
Global Extcap path:  \t/usr/lib/x86_64-linux-gnu/wireshark/extcap
"""
FOLDERS_WINDOWS = "Personal Extcap path:\tC:\\Users\\u\\AppData\\Roaming\\Wireshark\\extcap\r\n"
FOLDERS_MACOS = "Personal Extcap path:\t/Users/u/.local/lib/wireshark/extcap\n"


@pytest.mark.parametrize(
    ("folders", "version", "expected"),
    [
        (FOLDERS_4_0, "TShark (Wireshark) 4.0.17 (Git v4.0.17).", "HOME/config/wireshark/extcap"),
        (FOLDERS_4_0, "TShark (Wireshark) 3.6.2 (Git v3.6.2)", "HOME/config/wireshark/extcap"),
        (FOLDERS_4_0, "TShark (Wireshark) 4.2.0.", "HOME/.local/lib/wireshark/extcap"),
        (FOLDERS_4_4, "TShark (Wireshark) 4.4.18.", "/home/u/.local/lib/wireshark/extcap"),
        (FOLDERS_MACOS, "TShark (Wireshark) 4.6.0.", "/Users/u/.local/lib/wireshark/extcap"),
        (FOLDERS_WINDOWS, "TShark (Wireshark) 4.4.1.", "C:\\Users\\u\\AppData\\Roaming\\Wireshark\\extcap"),
        ("", "", "HOME/.local/lib/wireshark/extcap"),
    ],
    ids=["4.0", "3.6", "4.2", "4.4", "macOS", "Windows", "silent"],
)
def test_folder_by_version(
    folders: str, version: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert str(placement.personal_folder(folders, version)) == expected.replace("HOME", str(tmp_path))


def place(folder: Path, python: str = sys.executable) -> Path:
    return placement.place(folder, placement.launcher(python, ROOT))


def test_the_placed_file_answers_wireshark(tmp_path: Path) -> None:
    path = place(tmp_path / "deep" / "extcap")
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    placement.check(path)
    assert [p.name for p in path.parent.iterdir()] == ["usbip-extcap"]


def test_placing_again_replaces_ours(tmp_path: Path) -> None:
    place(tmp_path).write_text(f"old {placement.MARK}")
    placement.check(place(tmp_path))


@pytest.mark.parametrize("foreign", ["#!/bin/sh\necho mine\n", ""])
def test_a_file_that_is_not_ours_stays(tmp_path: Path, foreign: str) -> None:
    path = tmp_path / "usbip-extcap"
    path.write_text(foreign)
    with pytest.raises(CaptureError, match="not ours"):
        place(tmp_path)
    assert placement.remove(tmp_path) is None
    assert path.read_text() == foreign


def test_a_link_to_elsewhere_stays(tmp_path: Path) -> None:
    (tmp_path / "usbip-extcap").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CaptureError, match="not ours"):
        place(tmp_path)


def test_remove_takes_ours_only_once(tmp_path: Path) -> None:
    path = place(tmp_path)
    assert placement.remove(tmp_path) == path
    assert placement.remove(tmp_path) is None


@pytest.mark.parametrize("name", ["with blank", "x" * 140, "it's"], ids=["blank", "long", "quote"])
def test_interpreters_that_no_first_line_can_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    python = folder / "python"
    python.symlink_to(sys.executable)
    placement.check(place(tmp_path / "extcap", str(python)))


def test_a_launcher_that_does_not_answer_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "usbip-extcap"
    path.write_text("#!/bin/sh\necho broken >&2; exit 1\n")
    path.chmod(0o755)
    with pytest.raises(CaptureError, match="broken"):
        placement.check(path)


def test_install_and_uninstall_as_a_user_does(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / ".config")}
    environment["PYTHONPATH"] = str(ROOT)

    def run(option: str) -> subprocess.CompletedProcess[str]:
        code = f"import sys; from usbip_capture.extcap.main import main; sys.exit(main([{option!r}]))"
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    done = run("--install")
    assert (done.returncode, done.stderr) == (0, "")
    (path,) = tmp_path.rglob("usbip-extcap")
    assert str(path) in done.stdout
    if shutil.which("tshark"):
        shown = subprocess.run(["tshark", "-D"], env=environment, capture_output=True, text=True, check=False).stdout
        assert "usbip-remote (USB/IP remote)" in shown
    assert run("--uninstall").returncode == 0
    assert list(tmp_path.rglob("usbip-extcap")) == []
    assert "Nothing of ours" in run("--uninstall").stdout
