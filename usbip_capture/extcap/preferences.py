"""What the user has stored in Wireshark for an interface: a list in a dialog must offer it, or it is lost."""

from __future__ import annotations

import os

_FILES = ("preferences", "extcap.cfg")
_MAX_BYTES = 4 << 20


def stored(interface: str, preferences: tuple[str, ...]) -> dict[str, list[str]]:
    """Each value of some preferences, the default profile's first. Never raises."""
    module = "".join(c if c.isalnum() else "_" for c in interface.lower())
    keys = {preference: f"\nextcap.{module}.{preference}:".encode() for preference in preferences}
    found: dict[str, list[str]] = {preference: [] for preference in preferences}
    for folder in _profiles():
        for name in _FILES:
            try:
                with open(os.path.join(folder, name), "rb") as file:
                    text = b"\n" + file.read(_MAX_BYTES)
            except OSError:
                continue
            for preference, key in keys.items():
                for part in text.split(key)[1:]:
                    value = part.partition(b"\n")[0].decode("utf-8", "replace").strip()
                    if value and value not in found[preference]:
                        found[preference].append(value)
    return found


def _profiles() -> list[str]:
    if os.name == "nt":
        folder = os.path.join(os.environ.get("APPDATA", ""), "Wireshark")
    else:
        base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        folder = os.path.join(base, "wireshark")
    profiles = os.path.join(folder, "profiles")
    try:
        names = sorted(os.listdir(profiles))
    except OSError:
        names = []
    return [folder, *(os.path.join(profiles, name) for name in names)]
