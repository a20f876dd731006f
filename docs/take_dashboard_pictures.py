"""Takes the pictures of the dashboard from the real pages, in a browser, with simulated devices and clients of them.

python docs/take_dashboard_pictures.py [FOLDER]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Browser, Page

from tests.web.browsing import PHONE, chromium, opened, part
from tests.web.lab import Lab, lab

#: Milliseconds until the chart has something to show.
_LIVELY = 20_000
_SIZE = {"width": 1120, "height": 760}
_BUSY = ("1-1.4", "1-1.2")


def take(page: Page, target: Path) -> None:
    """Write what is shown into a file, with few colours: it is a picture of a program."""
    page.screenshot(path=target)
    subprocess.run(["convert", str(target), "-colors", "64", "-strip", f"PNG8:{target}"], check=True)
    print(target)


def overview(browser: Browser, made: Lab, folder: Path) -> None:
    """What the server does now."""
    with opened(browser, made.made, viewport=_SIZE) as page:
        page.wait_for_timeout(_LIVELY)
        take(page, folder / "dashboard.png")


def device(browser: Browser, made: Lab, folder: Path) -> None:
    """One device, with its endpoints."""
    with opened(browser, made.made, f"devices/{_BUSY[0]}", viewport=_SIZE) as page:
        page.wait_for_timeout(3000)
        take(page, folder / "dashboard-device.png")


def captures(browser: Browser, made: Lab, folder: Path) -> None:
    """A capture that runs, with its live view."""
    with opened(browser, made.made, "captures", viewport=_SIZE) as page:
        part(page, "start").click()
        page.wait_for_timeout(3000)
        take(page, folder / "dashboard-captures.png")


def phone(browser: Browser, made: Lab, folder: Path) -> None:
    """The devices on a telephone, at night."""
    with opened(browser, made.made, "devices", viewport=PHONE, color_scheme="dark", device_scale_factor=2) as page:
        page.wait_for_timeout(1000)
        take(page, folder / "dashboard-phone.png")


def main() -> None:
    """Take them all."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/pictures"
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("CONFIG", "CACHE", "STATE", "DATA"):
            os.environ[f"XDG_{name}_HOME"] = str(home / name)
        made = stack.enter_context(lab(home / "machine", name="bench-pi"))
        for busid in _BUSY:
            stack.enter_context(made.client(busid))
        browser = stack.enter_context(chromium())
        for picture in (overview, device, captures, phone):
            picture(browser, made, folder)


if __name__ == "__main__":
    main()
