"""Takes the pictures of these pages from the real window, on a virtual screen.

python docs/take_pictures.py [FOLDER]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.programs import wireshark_window as places
from tests.programs.extcap_launcher import render_launcher
from tests.programs.wireshark_window import Window, wireshark
from tests.waiting import wait_until
from usbip_capture.demo.device import DemoServer
from usbip_capture.installation import profile
from usbip_capture.servers import memory
from usbip_capture.servers.known import KnownDevice

SERVER = {"USBIP_CAPTURE_SERVERS": "bench-pi=127.0.0.1"}
HOST = ["-o", "extcap.usbip_remote.host:127.0.0.1", "-o", "extcap.usbip_remote.device:1-1"]
LOG = ["-o", "extcap.usbip_remote.syslog:connect"]


def take(window: Window, target: Path, width: int = 960, height: int = 768, x: int = 0, y: int = 0) -> None:
    """Write a part of the screen into a file, with few colours: it is a picture of a program."""
    time.sleep(1)  # for the window to be drawn
    window.picture(target, f"{width}x{height}+{x}+{y}")
    print(target)


def dialog(folder: Path, home: Path) -> None:
    """The options, with four equal boards of which two are checked."""
    os.environ["XDG_CACHE_HOME"] = str(home / ".cache")
    boards = [KnownDevice(f"1-1.{n}", "303a:4004", "Bench board", serial=f"A00{n}") for n in (1, 2, 3, 4)]
    memory.remember_server("bench-pi", 3240)
    memory.remember_devices("bench-pi", 3240, boards)
    settings = home / ".config/wireshark"
    settings.mkdir(parents=True)
    chosen = {"host": "bench-pi", "devices": "1-1.2,1-1.3"}
    lines = [f"extcap.usbip_remote.{name}: {value}\n" for name, value in chosen.items()]
    (settings / "preferences").write_text("".join(lines))
    with wireshark(home, "-i", "usbip-remote") as window:
        x, y = window.open_dialog()
        take(window, folder / "dialog.png", 600, 380, x, y)
    del os.environ["XDG_CACHE_HOME"]


def log_tab(folder: Path, home: Path) -> None:
    """The options of the device's log."""
    with wireshark(home, "-i", "usbip-remote", *HOST, **SERVER) as window:
        x, y = window.open_dialog()
        window.click((x + places.LOG_TAB[0], y + places.LOG_TAB[1]))
        take(window, folder / "log-tab.png", 600, 380, x, y)


def interfaces(folder: Path, home: Path) -> None:
    """The list of interfaces, with a filter that is right."""
    with wireshark(home, "-i", "usbip-bench-pi", **SERVER) as window:
        window.selected_row()
        window.enter(places.CAPTURE_FILTER, "not control and status != 0")
        take(window, folder / "interfaces.png")


def toolbar(folder: Path, home: Path) -> None:
    """A capture with its toolbar, and the log window with lines of the device's log."""
    with wireshark(home, "-k", "-i", "usbip-remote", *HOST, *LOG) as window:
        wait_until("packets", lambda: window.captures() and window.captures()[-1].stat().st_size > 12000, 60)
        window.click(places.MARK)
        take(window, folder / "toolbar.png")
        window.click(places.LOG)
        time.sleep(3)
        window.click(places.MARK)
        take(window, folder / "log.png")


def decoded(folder: Path, home: Path) -> None:
    """A keyboard report, decoded, in our profile."""
    capture = home / "capture.pcapng"
    extcap = render_launcher(home / "extcap")
    profile.install(home / ".config/wireshark/profiles" / profile.NAME)
    options = ["--host", "demo", "--duration", "2", "--fifo", str(capture)]
    subprocess.run([str(extcap), "--capture", "--extcap-interface", "usbip-remote", *options], check=True)
    with wireshark(home, "-C", "USB-IP", "-r", str(capture), "-g", "49", screen="1800x1000") as window:
        main_window = window.find("capture.pcapng")
        time.sleep(2)
        window.key("ctrl+Right", main_window)
        window.click((300, 700))  # in the packet's details, whose end shows which key it is
        window.xdotool("key", "End")
        take(window, folder / "decoded.png", 1270, 790, 20, 20)


def main() -> None:
    """Take them all."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/pictures"
    server = DemoServer()
    server.listen("127.0.0.1", 3240)
    server.listen_log("127.0.0.1", 1514)
    for picture in (interfaces, dialog, log_tab, toolbar, decoded):
        with tempfile.TemporaryDirectory() as home:
            picture(folder, Path(home))
    server.close()


if __name__ == "__main__":
    main()
