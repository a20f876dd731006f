"""Our extcap where the Wireshark of a test looks for it, and nowhere else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from usbip_capture.installation import placement

ROOT = Path(__file__).parents[2]


def render_launcher(folder: Path, library: Path = ROOT) -> Path:
    """The launcher as `--install` would write it, in `folder`."""
    return placement.place(folder, placement.launcher(sys.executable, library))


def wireshark_environment(home: Path) -> dict[str, str]:
    """Variables for a Wireshark whose personal folders lie in `home`, with our extcap in each that a version uses."""
    environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}
    environment.pop("WIRESHARK_EXTCAP_DIR", None)
    for folder in (home / ".config/wireshark/extcap", home / ".local/lib/wireshark/extcap"):
        render_launcher(folder)
    return environment
