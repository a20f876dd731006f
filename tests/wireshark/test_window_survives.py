"""An extcap that dies at any stage leaves the window alive: it can still be asked to quit."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.programs.extcap_launcher import ROOT, render_launcher
from tests.programs.wireshark_window import Window, wireshark
from tests.waiting import wait_until

pytestmark = pytest.mark.wireshark

OPTIONS = ["-i", "usbip-remote", "-o", "extcap.usbip_remote.host:demo", "-o", "gui.ask_unsaved:FALSE"]

# File of the library that is broken -> when that is met.
BROKEN = {
    "extcap/guard.py": "before the control pipe is opened",
    "extcap/capture.py": "before the fifo is opened",
}


def quits(window: Window) -> None:
    """Close the box with the error, if there is one, then quit: a window that hangs does neither."""

    def asked() -> bool:
        for key in ("Return", "ctrl+q"):
            for found in window.xdotool("search", "--onlyvisible", "--class", "ireshark").split():
                window.key(key, found)
        return window.process.poll() is not None

    wait_until("Wireshark quits", asked, 60)


@pytest.mark.parametrize("file", BROKEN, ids=BROKEN.values())
def test_a_library_that_does_not_load(file: str, tmp_path: Path) -> None:
    library = tmp_path / "library"
    shutil.copytree(ROOT / "usbip_capture", library / "usbip_capture")
    (library / "usbip_capture" / file).write_text("syntax error(\n")
    with wireshark(tmp_path, *OPTIONS) as window:
        window.selected_row()
        for folder in (".config/wireshark/extcap", ".local/lib/wireshark/extcap"):
            render_launcher(tmp_path / folder, library)
        window.start_selected()
        wait_until("the extcap has ended", lambda: not window.extcaps(), 40)
        quits(window)


def test_an_extcap_that_is_killed(tmp_path: Path) -> None:
    with wireshark(tmp_path, "-k", *OPTIONS) as window:
        wait_until("packets", lambda: window.captures() and window.captures()[-1].stat().st_size > 8000, 60)
        (extcap,) = window.extcaps()
        os.kill(extcap, signal.SIGKILL)
        wait_until("the extcap has ended", lambda: not window.extcaps(), 40)
        quits(window)
