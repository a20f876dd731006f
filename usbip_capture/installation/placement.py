"""Puts the launcher where this machine's Wireshark looks for extcaps, and removes it again.

One file is placed. It is recognised by a line of its own: a file without that line is somebody else's and stays.

Ref: Wireshark User's Guide, appendix B (files and folders); release notes of 4.2 (personal extcap folder) and 4.6
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import usbip_capture
from usbip_capture.errors import CaptureError
from usbip_capture.installation.health import ask

#: In every file that we place.
MARK = "Written by usbip-extcap --install"
#: Where Wireshark's programs are when they are not in PATH.
_ELSEWHERE = (
    "/Applications/Wireshark.app/Contents/MacOS",
    os.path.expandvars(r"%ProgramFiles%\Wireshark"),
    "/usr/local/bin",
    "/opt/homebrew/bin",
)
#: The first version whose personal folder is ~/.local/lib/wireshark/extcap.
_LOCAL_LIB_SINCE = (4, 2)
#: What a kernel takes as the first line of a script.
_LONGEST_SHEBANG = 127
_QUERY_TIMEOUT = 60


def install() -> int:
    """Place the launcher and report what was done. Returns the exit code."""
    folders = find_folders()
    for folder, wireshark in folders.items():
        try:
            path = place(folder, launcher(sys.executable, Path(usbip_capture.__file__).parents[1]))
            check(path)
        except CaptureError as error:
            print(f"usbip-extcap: {error}", file=sys.stderr)
            return 1
        except OSError as error:
            where = error.filename or folder
            print(f"usbip-extcap: {where} cannot be written ({error.strerror}): make it writable", file=sys.stderr)
            return 1
        print(f"Placed {path} for {wireshark or 'Wireshark 4.2 or later, of which none was found here'}.")
    if not any(folders.values()):
        print("Once there is a Wireshark, 'usbip-extcap --install' again makes sure that it finds this.")
        return 0
    print('Start Wireshark anew, or press F5 in it: the interface is called "USB/IP remote".')
    return 0


def uninstall() -> int:
    """Remove the launcher from every folder where a version of Wireshark would look. Returns the exit code."""
    try:
        folders = [*candidates(), *find_folders()]
        removed = [path for folder in dict.fromkeys(folders) if (path := remove(folder)) is not None]
    except OSError as error:
        print(f"usbip-extcap: cannot remove {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    for path in removed:
        print(f"Removed {path}.")
    if not removed:
        print("Nothing of ours is in Wireshark's extcap folders.")
    return 0


def find_folders() -> dict[Path, str]:
    """The personal extcap folder of each Wireshark on this machine, and what that one calls itself (empty: none)."""
    found: dict[Path, list[str]] = {}
    for programs in by_folder(search_path()):
        program = programs.get("tshark") or programs["wireshark"]
        version = ask(program, "--version").out
        folder = personal_folder(ask(program, "-G", "folders").out, version)
        found.setdefault(folder, []).append(_name(version))
    return {folder: " and ".join(dict.fromkeys(names)) for folder, names in found.items()} or {candidates()[0]: ""}


def search_path() -> list[Path]:
    """Every folder where a Wireshark may be."""
    return [Path(folder) for folder in [*os.environ.get("PATH", "").split(os.pathsep), *_ELSEWHERE] if folder]


def by_folder(folders: list[Path]) -> list[dict[str, str]]:
    """The programs tshark and wireshark of each folder that has one; the same file under two names counts once."""
    seen: set[str] = set()
    found = []
    for folder in folders:
        if folder.parts[:2] == ("/", "snap"):  # confined: it sees no extcap of ours, and starting it takes seconds
            continue
        here = {name: path for name in ("tshark", "wireshark") if (path := shutil.which(name, path=str(folder)))}
        new = {name: path for name, path in here.items() if os.path.realpath(path) not in seen}
        seen.update(map(os.path.realpath, new.values()))
        if new:
            found.append(new)
    return found


def personal_folder(folders: str, version: str) -> Path:
    """From what `tshark -G folders` and `tshark --version` print. Versions before 4.4 do not name the folder."""
    named = re.search(r"^Personal Extcap path:\s*(.+)$", folders, re.MULTILINE)
    if named:
        return Path(named[1].strip())
    local_lib, config = candidates()
    number = re.search(r"\b(\d+)\.(\d+)\.\d+", version)
    if number and (int(number[1]), int(number[2])) < _LOCAL_LIB_SINCE:
        return config
    return local_lib


def candidates() -> list[Path]:
    """Personal folders by the rules: of 4.2 and later, then of what was before."""
    if os.name == "nt":
        folder = Path(os.environ.get("APPDATA", Path.home()), "Wireshark", "extcap")
        return [folder, folder]
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return [Path.home() / ".local/lib/wireshark/extcap", Path(config, "wireshark", "extcap")]


def launcher(python: str, library: Path) -> str:
    """The launcher for this interpreter and the folder that holds the package."""
    template = _template().read_text("utf-8")
    first, rest = template.split("\n", 1)
    rest = rest.replace("@LIBRARY@", str(library))
    shebang = first.replace("@PYTHON@", python)
    if " " in python or len(shebang.encode()) > _LONGEST_SHEBANG:
        # A shell reads lines 2 and 3, to Python they are a string.
        quoted = python.replace("'", "'\\''")
        shebang = f"#!/bin/sh\n'''exec' '{quoted}' -IS \"$0\" \"$@\"\n' '''"
    return f"{shebang}\n{rest}"


def place(folder: Path, text: str) -> Path:
    """Write the launcher into `folder`, whole or not at all. Raises CaptureError if a file there is not ours."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name()
    _refuse_foreign(path)
    if os.name == "nt":
        # Windows starts no .py file: the batch file starts the launcher, which lies beside the package.
        script = Path(__file__).with_name("usbip-extcap-launcher.py")
        script.write_text(text, "utf-8")
        text = f'@echo off\r\nrem {MARK}\r\n"{sys.executable}" -IS "{script}" %*\r\n'
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".usbip-extcap-")
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.chmod(temporary, 0o755)  # noqa: S103  a program
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def remove(folder: Path) -> Path | None:
    """Remove the launcher from `folder`; None if there is none of ours."""
    path = folder / file_name()
    if not path.is_file() or not is_ours(path):
        return None
    path.unlink()
    try:
        folder.rmdir()
    except OSError:  # others have extcaps there
        pass
    return path


def check(path: Path) -> None:
    """Ask the placed file what Wireshark will ask it. Raises CaptureError if it does not answer."""
    command = [str(path), "--extcap-interfaces"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_TIMEOUT, check=False)
    if done.returncode or "{value=usbip-remote}" not in done.stdout:
        raise CaptureError(f"{path} was placed but does not answer: {done.stderr.strip() or done.stdout.strip()}")


def _refuse_foreign(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not is_ours(path)):
        raise CaptureError(f"{path} is there already and not ours: move it, then install again")


def is_ours(path: Path) -> bool:
    """Whether we have written this file."""
    try:
        return MARK in path.read_text("utf-8", errors="replace")[:4096]
    except OSError:
        return False


def file_name() -> str:
    """What the launcher is called in Wireshark's folder."""
    return "usbip-extcap.bat" if os.name == "nt" else "usbip-extcap"


def _template() -> Path:
    """In an installed package beside this file, in a checkout in the folder `extcap`."""
    installed = Path(__file__).with_name("usbip-extcap.in")
    return installed if installed.exists() else Path(__file__).parents[2] / "extcap" / "usbip-extcap.in"


def _name(version: str) -> str:
    found = re.search(r"Wireshark\)? (\d+\.\d+\.\d+)", version)
    return f"Wireshark {found[1]}" if found else "Wireshark"
