"""Newer versions of Wireshark, in folders that were made for them; nothing is collected without such folders.

debootstrap --include=tshark,python3 trixie /srv/trixie
USBIP_CAPTURE_CHROOTS=/srv/trixie:/srv/sid python3 install.py --test -- tests/chroots
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs.extcap_launcher import ROOT
from usbip_capture.installation import placement

CHROOTS = [Path(folder) for folder in os.environ.get("USBIP_CAPTURE_CHROOTS", "").split(os.pathsep) if folder]
LIBRARY = "/opt/usbip-capture"
if not CHROOTS:
    collect_ignore_glob = ["test_*.py"]


class Chroot:
    """A system with a Wireshark of its own, and our plug-in in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        library = folder / LIBRARY.lstrip("/")
        shutil.rmtree(library, ignore_errors=True)
        shutil.copytree(ROOT / "usbip_capture", library / "usbip_capture", ignore=shutil.ignore_patterns("__pycache__"))
        pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(library)]
        subprocess.run([*pip, "pyusb>=1.3.1,<2", "python-pcapng>=2.1.1,<3"], check=True)
        launcher = placement.launcher("/usr/bin/python3", Path(LIBRARY))
        placement.place(folder / "root/.local/lib/wireshark/extcap", launcher)

    def tshark(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run its tshark."""
        variables = ["HOME=/root", "PATH=/usr/bin:/bin", "USBIP_CAPTURE_DISCOVERY=off"]
        command = ["chroot", str(self.folder), "/usr/bin/env", "-i", *variables, "tshark", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="session", params=CHROOTS, ids=[folder.name for folder in CHROOTS])
def chroot(request: pytest.FixtureRequest) -> Chroot:
    return Chroot(request.param)
