"""Debian's Chromium, which shows the pages of a dashboard to a test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Dialog, Locator, Page, sync_playwright

from usbip_capture.web.dashboard import Dashboard
from usbip_capture.web.roles import ADMINISTER

_CHROMIUM = "/usr/bin/chromium"
_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
]  # fmt: skip
#: What a browser reports of a request that the server has refused, which the page shows as a sentence.
_REFUSED = re.compile(r"the server responded with a status of (400|404|409|501|507)")
#: Milliseconds: a machine may be busy.
PATIENCE = 30_000

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}


@contextmanager
def chromium() -> Iterator[Browser]:
    """One for several tests: each has its own profile in it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, made: Dashboard, path: str = "", role: str = ADMINISTER, **options: Any) -> Iterator[Page]:
    """A page of this dashboard, for who has this role; what it reports as an error, or asks by `alert`, is one."""
    name = f"browser-{role}"
    if made.side.tokens.named(name) is not None:
        made.side.tokens.remove(name)
    token = made.side.tokens.add(name, role)
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    found: list[str] = []
    page.on("console", lambda message: found.extend(_errors(message)))
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("dialog", lambda dialog: _dismiss(dialog, found))
    try:
        page.goto(f"{made.urls[0]}?token={token}")
        part(page, "page-overview").wait_for()
        if path:
            page.goto(f"{made.urls[0]}#/{path}")
            part(page, f"page-{path.partition('/')[0]}").wait_for()
        yield page
    finally:
        context.close()
    assert not found, found


def part(page: Page | Locator, name: str) -> Locator:
    """What the pages call by this name for tests."""
    return page.locator(f'[data-test="{name}"]')


def say_yes(page: Page, times: int = 1) -> None:
    """To what the page asks before it does something."""
    for _ in range(times):
        part(page, "ask-yes").last.click()


def _dismiss(dialog: Dialog, found: list[str]) -> None:
    found.append(f"dialog: {dialog.message}")
    dialog.dismiss()


def _errors(message: ConsoleMessage) -> list[str]:
    refused = _REFUSED.search(message.text)
    return [message.text] if message.type in ("error", "warning") and not refused else []
