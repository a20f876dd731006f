"""Shell scripts that answer as a tshark of some version does, and a machine on which they are all there is."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from usbip_capture.installation import launcher_check, placement, wiresharks

ROOT = Path(__file__).parents[3]
VERSIONS = {"4.0": "4.0.17", "4.4": "4.4.18", "4.6": "4.6.9"}
LISTED = "12. usbip-remote (USB/IP remote)"
HANGS = "exec /bin/sleep 1000"


class Machine:
    """A home, a folder of programs that is all of PATH, and nothing else to be found."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = base / "home"
        self.bin = base / "bin"
        self.home.mkdir()
        self.bin.mkdir()
        self.old_folder = self.home / ".config/wireshark/extcap"
        self.new_folder = self.home / ".local/lib/wireshark/extcap"
        monkeypatch.setenv("HOME", str(self.home))
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.setattr(sys, "argv", ["usbip-extcap"])
        for name in ("XDG_CONFIG_HOME", "WIRESHARK_EXTCAP_DIR", "USBIP_CAPTURE_SERVERS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(placement, "_ELSEWHERE", ())
        monkeypatch.setattr(launcher_check, "SLOW", 60.0)  # what a busy machine answers late is not what is tested
        monkeypatch.setattr(wiresharks, "SANDBOXES", {"Flatpak": (str(base / "flatpak"),)})

    def wireshark(self, kind: str, folder: Path | None = None, scripts: dict[str, str] | None = None) -> Path:
        """tshark and dumpcap of a version. scripts: shell by what is asked, `version`, `folders`, `listing`."""
        folder = folder or self.bin
        folder.mkdir(exist_ok=True)
        version = f"TShark (Wireshark) {VERSIONS[kind]} (Git v{VERSIONS[kind]})."
        answers = {"version": echo(version), "folders": echo(self.folders(kind)), "listing": echo(LISTED)}
        answers.update(scripts or {})
        program(
            folder / "tshark",
            'case "$*" in\n'
            f"--version) {answers['version']} ;;\n'-G folders') {answers['folders']} ;;\n-D) {answers['listing']} ;;\n"
            "*) exit 3 ;;\nesac",
        )
        program(folder / "dumpcap", echo("Dumpcap (Wireshark) " + VERSIONS[kind]))
        return folder / "tshark"

    def folders(self, kind: str) -> str:
        """What `tshark -G folders` prints, as seen with 4.0.17, 4.4.18 and 4.6.9."""
        lines = [f"Temp:                \t/tmp\nPersonal configuration:\t{self.home}/.config/wireshark"]
        shared = "/usr/libexec/wireshark/extcap" if kind == "4.6" else "/usr/lib/x86_64-linux-gnu/wireshark/extcap"
        if kind == "4.0":
            lines.append(f"Extcap path:         \t{shared}-none")
        else:
            lines.append(f"Personal Extcap path:\t{self.new_folder}\nGlobal Extcap path:  \t{shared}-none")
        return "\n".join(lines)


def echo(text: str) -> str:
    return f"printf '%s\\n' {shlex.quote(text)}"


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def place(folder: Path, python: str = sys.executable, library: Path = ROOT) -> Path:
    """Our launcher, as `--install` writes it."""
    return placement.place(folder, placement.launcher(python, library))
