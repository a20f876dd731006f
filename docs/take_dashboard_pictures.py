"""Takes the pictures of the dashboard from the real pages, in a browser, with simulated devices and clients of them.

python docs/take_dashboard_pictures.py [FOLDER]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import BrowserContext, Page, ViewportSize

from tests.web.browsing import PATIENCE, chromium, part
from tests.web.lab import lab

#: Milliseconds until the chart has something to show, and until a page is drawn.
_LIVELY, _DRAWN = 30_000, 2_500
_WINDOW: ViewportSize = {"width": 1120, "height": 760}
_PHONE: ViewportSize = {"width": 360, "height": 640}
_BUSY = ("1-1.4", "1-1.2")


def take(page: Page, target: Path, size: ViewportSize | None = None) -> None:
    """Write what is shown into a file, with few colours: it is a picture of a program."""
    if size is not None:
        page.set_viewport_size(size)
    page.wait_for_timeout(_DRAWN)
    page.screenshot(path=target)
    convert = shutil.which("convert")
    if convert is None:
        raise SystemExit("this needs ImageMagick's convert")
    subprocess.run([convert, str(target), "+dither", "-colors", "96", "-strip", f"PNG8:{target}"], check=True)
    print(target)


def overview(context: BrowserContext, url: str, folder: Path) -> None:
    """What the server does now."""
    page = context.new_page()
    page.goto(url)
    page.wait_for_timeout(_LIVELY)
    take(page, folder / "dashboard.png")


def device(context: BrowserContext, url: str, folder: Path) -> None:
    """One device, with its endpoints."""
    page = context.new_page()
    page.goto(f"{url}#/devices/{_BUSY[0]}")
    part(page, "endpoints").wait_for()
    take(page, folder / "dashboard-device.png", {"width": 1120, "height": 1000})


def live(context: BrowserContext, url: str, folder: Path) -> None:
    """What a running capture sees while it sees it."""
    page = context.new_page()
    page.goto(f"{url}#/captures")
    part(page, "start").click()
    page.get_by_role("link", name="Watch").click()
    part(page, "live-filter").fill("bulk")
    part(page, "live-filter").press("Enter")
    take(page, folder / "dashboard-live.png", {"width": 1400, "height": 700})


def phone(context: BrowserContext, url: str, folder: Path) -> None:
    """The devices on a telephone, at night."""
    page = context.new_page()
    page.goto(f"{url}#/devices")
    take(page, folder / "dashboard-phone.png")


def main() -> None:
    """Take them all."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/pictures"
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("CONFIG", "CACHE", "STATE", "DATA"):
            os.environ[f"XDG_{name}_HOME"] = str(home / name)
        os.environ["XDG_RUNTIME_DIR"] = str(home)  # no command for another server reaches this one
        made = stack.enter_context(lab(home / "machine", name="bench-pi"))
        for busid in _BUSY:
            stack.enter_context(made.client(busid))
        browser = stack.enter_context(chromium())
        context = browser.new_context(viewport=_WINDOW)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(made.made.link)
        part(page, "page-overview").wait_for()
        url = made.made.urls[0]
        for picture in (overview, device, live):
            picture(context, url, folder)
        small = browser.new_context(
            viewport=_PHONE, color_scheme="dark", is_mobile=True, storage_state=context.storage_state()
        )
        phone(small, url, folder)


if __name__ == "__main__":
    main()
