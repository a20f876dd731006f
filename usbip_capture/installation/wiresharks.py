"""Every Wireshark on this machine, with its programs, version and folders, and those that cannot use an extcap."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from usbip_capture.installation import placement
from usbip_capture.installation.health import ask, first_line

#: Where a Flatpak or a snap of Wireshark leaves its traces; `~` is the user's home.
SANDBOXES = {
    "Flatpak": ("/var/lib/flatpak/app/org.wireshark.Wireshark", "~/.local/share/flatpak/app/org.wireshark.Wireshark"),
    "snap": ("/snap/wireshark", "/var/lib/snapd/snap/wireshark"),
}


@dataclass(slots=True, frozen=True)
class Installation:
    """One Wireshark: the programs of a folder, and what they report of themselves.

    programs: paths by name (tshark, wireshark, dumpcap).
    version: such as 4.0.17; empty when unknown, then `problem` has the reason.
    personal, shared: extcap folders; `shared` is None when unknown.
    configuration: the user's configuration folder.
    """

    programs: dict[str, str]
    version: str
    problem: str
    personal: Path
    shared: Path | None
    configuration: Path

    def __str__(self) -> str:
        return f"Wireshark {self.version or 'of unknown version'}"

    @property
    def asked(self) -> str:
        """The program that answers for all of them."""
        return self.programs.get("tshark") or self.programs["wireshark"]

    @property
    def extcap_folders(self) -> list[Path]:
        """Where it looks for extcaps; the first one wins."""
        return [self.personal] if self.shared is None else [self.personal, self.shared]


def installations() -> list[Installation]:
    """All that are found, in the order of PATH, then of the usual places."""
    folders = placement.search_path()
    dumpcap = _first_file(folders, "dumpcap")
    found = []
    for programs in placement.by_folder(folders):
        here = Path(next(iter(programs.values()))).parent
        own = _first_file([here], "dumpcap") or dumpcap
        found.append(_describe({**programs, "dumpcap": own} if own else programs))
    return found


def sandboxed() -> list[str]:
    """`Flatpak` and `snap`, when such a Wireshark is installed."""
    return [kind for kind, traces in SANDBOXES.items() if any(os.path.exists(os.path.expanduser(t)) for t in traces)]


def configuration_folder(folders: str) -> Path:
    """The personal configuration folder, from what `tshark -G folders` prints, else by the platform's rule."""
    named = re.search(r"^Personal configuration:\s*(.+)$", folders, re.MULTILINE)
    if named:
        return Path(named[1].strip())
    # The extcap folder of old versions lies in the configuration folder, on every platform.
    return placement.candidates()[1].parent


def has_display() -> bool:
    """Whether a window can be opened from here."""
    if os.name == "nt" or sys.platform == "darwin":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _describe(programs: dict[str, str]) -> Installation:
    asked = programs.get("tshark") or programs["wireshark"]
    version = ask(asked, "--version")
    number = re.search(r"Wireshark\)? (\d+\.\d+\.\d+)", version.out)
    problem = version.problem
    if not number and not problem:
        line = first_line(version.out)
        problem = f"does not report its version but {line!r}" if line else "does not report its version"
    # One that hangs is not asked again.
    folders = "" if problem else ask(asked, "-G", "folders").out
    shared = re.search(r"^(?:Global )?Extcap path:\s*(.+)$", folders, re.MULTILINE)
    return Installation(
        programs,
        number[1] if number else "",
        problem,
        placement.personal_folder(folders, version.out),
        Path(shared[1].strip()) if shared else None,
        configuration_folder(folders),
    )


def _first_file(folders: list[Path], name: str) -> str:
    """Also one that this user may not run: that is what the doctor is to find out."""
    for folder in folders:
        for path in (folder / name, folder / f"{name}.exe"):
            if path.is_file():
                return str(path)
    return ""
