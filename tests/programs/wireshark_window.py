"""Wireshark's window on a virtual screen, worked with mouse and keyboard as a person does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.programs.extcap_launcher import wireshark_environment
from tests.programs.virtual_screen import virtual_screen
from tests.waiting import wait_until

PROGRAMS = ("wireshark", "Xvfb", "xdotool", "tshark", "import")

# The colour of the selected row, and of text boxes whose text is right or wrong.
SELECTED = (48, 140, 198)
RIGHT, WRONG = (175, 255, 175), (255, 175, 175)

# Places in the main window, with the toolbar shown and the interface usbip-remote in it.
CAPTURE_FILTER = (460, 234)
LISTEN, LOG, MARK, DROP = (360, 106), (605, 106), (767, 106), (853, 106)
_GEAR_X, _ROW_X = 137, 650
# Places in the options dialog, from its corner.
HOST, DEVICE, RELOAD, SAVE = (310, 61), (310, 123), (503, 123), (376, 357)
# The check boxes of several devices there, and how far apart they are.
FIRST_CHECK, CHECK_HEIGHT = (162, 152), 17
# On its tab Log.
LOG_TAB, FIRST_CHOICE = (242, 26), (345, 61)
# In the toolbar's log window, from its corner, and the colour of what its text box has found.
HIGHLIGHT, HIGHLIGHTED = (330, 395), (255, 255, 0)


class Window:
    """A running Wireshark. `folder` is its home; captures are kept there."""

    def __init__(self, process: subprocess.Popen[bytes], environment: dict[str, str], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self._environment = environment

    def xdotool(self, *arguments: object) -> str:
        """Run xdotool; what it prints."""
        command = ["xdotool", *map(str, arguments)]
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=False, timeout=30
        ).stdout

    def click(self, place: tuple[int, int], times: int = 1) -> None:
        """Click at a place of the screen."""
        self.xdotool("mousemove", *place, "click", "--repeat", times, "--delay", 80, 1)

    def enter(self, place: tuple[int, int], text: str, *, confirm: bool = False) -> None:
        """Replace the text of a box."""
        self.click(place, 3)
        self.xdotool("key", "ctrl+a", "type", "--delay", 30, text)
        if confirm:
            self.xdotool("key", "Return")

    def key(self, name: str, window: str) -> None:
        """Press a key in a window."""
        self.xdotool("windowfocus", "--sync", window, "key", "--window", window, name)

    def find(self, title: str, timeout: float = 40) -> str:
        """The window with a title; waits for it."""
        return wait_until(
            f"a window {title!r}", lambda: self.xdotool("search", "--onlyvisible", "--name", title).split(), timeout
        )[0]

    def corner(self, window: str) -> tuple[int, int]:
        """Where a window is."""
        values = dict(
            line.split("=") for line in self.xdotool("getwindowgeometry", "--shell", window).splitlines() if "=" in line
        )
        return int(values["X"]), int(values["Y"])

    def pixels(self, x: int, y: int, width: int = 1, height: int = 1) -> list[tuple[int, int, int]]:
        """Colours of a part of the screen, row by row."""
        part = f"{width}x{height}+{x}+{y}"
        command = ["import", "-window", "root", "-crop", part, "-depth", "8", "rgb:-"]
        raw = subprocess.run(command, env=self._environment, capture_output=True, check=True, timeout=30).stdout
        return [(raw[at], raw[at + 1], raw[at + 2]) for at in range(0, len(raw), 3)]

    def picture(self, target: Path, part: str) -> None:
        """A part of the screen (WIDTHxHEIGHT+X+Y) as a PNG file."""
        command = ["import", "-window", "root", "-crop", part, "+repage", "-colors", "128", f"png8:{target}"]
        subprocess.run(command, env=self._environment, check=True, timeout=60)

    def selected_row(self) -> int:
        """The height at which the selected interface is in the list."""

        def look() -> int:
            column = self.pixels(_ROW_X, 0, 1, 760)
            rows = [y for y, colour in enumerate(column) if _near(colour, SELECTED)]
            return rows[len(rows) // 2] if rows else 0

        return wait_until("the selected interface", look, 120)

    def open_dialog(self) -> tuple[int, int]:
        """Open the options of the selected interface; the corner of the dialog."""
        self.click((_GEAR_X, self.selected_row()))
        return self.corner(self.find("Interface Options"))

    def save_dialog(self, corner: tuple[int, int]) -> None:
        """Click on Save until the dialog is closed: one click more would be into the list of interfaces."""
        x, y = corner

        def closed() -> bool:
            self.click((x + SAVE[0], y + SAVE[1]))
            try:
                return wait_until("the dialog is closed", lambda: not self._dialogs(), 5)
            except AssertionError:
                return False

        wait_until("the dialog is saved", closed, 120)

    def _dialogs(self) -> list[str]:
        return self.xdotool("search", "--onlyvisible", "--name", "Interface Options").split()

    def start_selected(self) -> None:
        """Double-click the selected interface; a busy machine loses clicks, so again until its extcap runs."""
        place = 300, self.selected_row()

        def started() -> bool:
            self.click(place, 2)
            try:
                return bool(wait_until("the extcap runs", self.extcaps, 5))
            except AssertionError:
                return False

        wait_until("a capture has been started", started, 120)

    def captures(self) -> list[Path]:
        """Capture files, the newest last."""
        return sorted(self.folder.glob("wireshark_*.pcapng"), key=lambda path: path.stat().st_mtime)

    def extcaps(self) -> list[int]:
        """Processes of our extcap that capture for this Wireshark."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes().split(b"\0")
                    above = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except (OSError, ValueError):
                    continue
                if above == self.process.pid and b"--capture" in line:
                    found.append(int(entry.name))
        return found

    def has_colour(self, place: tuple[int, int], colour: tuple[int, int, int]) -> bool:
        """Whether a text box has this colour, somewhere on a line through its middle."""
        x, y = place
        return sum(_near(found, colour) for found in self.pixels(x, y - 8, 100, 2)) > 50


def _near(found: tuple[int, int, int], wanted: tuple[int, int, int]) -> bool:
    return all(abs(a - b) < 20 for a, b in zip(found, wanted, strict=True))


@contextmanager
def wireshark(folder: Path, *arguments: str, screen: str = "1280x900", **variables: str) -> Iterator[Window]:
    """Run Wireshark with its home in `folder`, the toolbar shown; skips where there is none."""
    for program in PROGRAMS:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with virtual_screen(screen) as display:
        environment = {**wireshark_environment(folder), "DISPLAY": display, "QT_QPA_PLATFORM": "xcb", **variables}
        environment.update(XDG_RUNTIME_DIR=str(folder), TMPDIR=str(folder), XDG_CACHE_HOME=str(folder / ".cache"))
        settings = folder / ".config/wireshark"
        settings.mkdir(parents=True, exist_ok=True)
        (settings / "recent").write_text('gui.interface_toolbar_show: "USB/IP"\n')
        # So large that Wireshark chooses its own place and size: the same ones each time.
        (settings / "recent_common").write_text("gui.geometry_main_width: 1270\ngui.geometry_main_height: 880\n")
        command = ["wireshark", *arguments, "-o", "gui.update.enabled:FALSE"]
        nothing = subprocess.DEVNULL
        with subprocess.Popen(command, env=environment, stdin=nothing, stdout=nothing, stderr=nothing) as process:
            try:
                yield Window(process, environment, folder)
            finally:
                process.send_signal(signal.SIGKILL)
                for orphan in Path("/proc").iterdir():
                    _kill_if_in(orphan, folder)


def _kill_if_in(entry: Path, folder: Path) -> None:
    """End what Wireshark has left: dumpcap and extcaps whose files are in `folder`."""
    try:
        if entry.name.isdigit() and str(folder).encode() in (entry / "cmdline").read_bytes():
            os.kill(int(entry.name), signal.SIGKILL)
    except OSError:
        pass
