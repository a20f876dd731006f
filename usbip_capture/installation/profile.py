"""`usbip-extcap --profile`: a Wireshark profile for USB/IP in the user's configuration folder, and its removal.

A file of marks in the profile shows that it is ours, and which of its files are as we wrote them: what the user changed
stays, and a profile without the marks is somebody else's.

Ref: Wireshark User's Guide, appendix B (profiles; files colorfilters, dfilter_buttons, preferences)
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from usbip_capture.errors import CaptureError
from usbip_capture.installation import wiresharks

NAME = "USB-IP"
FILES = ("preferences", "colorfilters", "dfilter_buttons")
#: A line for each file: its SHA-256 when we wrote it, and its name.
MARKS = "usbip-capture.marks"
_FIRST_LINE = "Written by usbip-extcap --profile; usbip-extcap --profile remove takes it away."
#: What Wireshark writes by itself into the profile in use: widths of columns, which we begin, positions, last filters.
_PASSING = ("recent",)


def run(action: str) -> int:
    """`install` or `remove`, and report what was done. Returns the exit code."""
    try:
        if action == "remove":
            lines = [line for folder in _folders() for line in remove(folder)]
            lines = lines or [f"There is no profile {NAME} of ours."]
        else:
            lines = [line for folder in _folders() for line in install(folder)]
            lines.append(f"In Wireshark: Edit, Configuration Profiles, {NAME}. On a command line: wireshark -C {NAME}")
    except CaptureError as error:
        print(f"usbip-extcap: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        action = "written" if action == "install" else "removed"
        print(f"usbip-extcap: {error.filename} cannot be {action}: {error.strerror}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


def uninstall() -> int:
    """Remove the profile if there is one of ours, silently if not. Returns the exit code."""
    return run("remove") if any((folder / MARKS).is_file() for folder in _folders()) else 0


def install(folder: Path) -> list[str]:
    """Write the profile into `folder`; what was done, as sentences. Raises CaptureError if that is not ours."""
    marks = read_marks(folder)
    if marks is None and (folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir())))):
        raise CaptureError(f"{folder} is there already and not ours: rename that profile, then try again")
    folder.mkdir(parents=True, exist_ok=True)
    marks = marks or {}
    lines = []
    new = {}
    # First, so that a profile that is only half written is known as ours.
    _write_marks(folder, marks)
    for name in FILES:
        path = folder / name
        if path.exists() and _sum(path.read_bytes()) != marks.get(name):
            lines.append(f"Kept {path}, which you or Wireshark changed: remove it and try again to get ours.")
            new[name] = marks.get(name, "")
            continue
        data = _data(name)
        path.write_bytes(data)
        new[name] = _sum(data)
    for name in _PASSING:
        if not (folder / name).exists():
            (folder / name).write_bytes(_data(name))
    _write_marks(folder, new)
    return [f"Wrote the profile {folder}.", *lines]


def arguments(configuration: Path) -> list[str]:
    """What makes a Wireshark with this configuration folder use the profile; nothing where it is not installed."""
    return ["-C", NAME] if (configuration / "profiles" / NAME / "preferences").is_file() else []


def remove(folder: Path) -> list[str]:
    """Remove from `folder` what we wrote; what was done, as sentences; empty when there is nothing of ours."""
    marks = read_marks(folder)
    if marks is None:
        return []
    there = [name for name in FILES if (folder / name).exists()]
    changed = [name for name in there if _sum((folder / name).read_bytes()) != marks.get(name)]
    for name in (*FILES, *_PASSING):
        if name not in changed:
            (folder / name).unlink(missing_ok=True)
    removed = len(there) > len(changed)
    others = sorted(path.name for path in folder.iterdir() if path.name != MARKS)
    if not others:
        (folder / MARKS).unlink()
        folder.rmdir()
        return [f"Removed the profile {folder}."]
    # The marks stay with them, so that a new --profile is not refused.
    kept = f"Kept in {folder} what you or Wireshark changed or added: {', '.join(others)}"
    return [f"{kept}; the rest is removed." if removed else f"{kept}."]


def read_marks(folder: Path) -> dict[str, str] | None:
    """Sums by file name, from the file of marks; None if the folder has none of ours."""
    path = folder / MARKS
    if folder.is_symlink() or not path.is_file():
        return None
    first, *lines = path.read_text("utf-8", "replace").splitlines() or [""]
    if first != _FIRST_LINE:
        return None
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name in FILES}


def _folders() -> list[Path]:
    """Of this name in the configuration folder of each Wireshark here; where it would be when there is none."""
    configurations = [each.configuration for each in wiresharks.installations()]
    configurations = configurations or [wiresharks.configuration_folder("")]
    return [folder / "profiles" / NAME for folder in dict.fromkeys(configurations)]


def _write_marks(folder: Path, marks: dict[str, str]) -> None:
    text = "".join(f"{line}\n" for line in [_FIRST_LINE, *(f"{digest}  {name}" for name, digest in marks.items())])
    (folder / MARKS).write_text(text, "utf-8", newline="\n")


def _data(name: str) -> bytes:
    return Path(__file__).with_name("wireshark_profile").joinpath(name).read_bytes()


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
