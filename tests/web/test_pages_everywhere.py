"""All pages: a screen reader reads them, they are as wide as a phone, and text stays text, whoever has sent it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types
from playwright.sync_api import Browser, Page, Route, expect

from tests.fakes.local_bus import FakeBus
from tests.web.browsing import DESKTOP, PATIENCE, PHONE, chromium, opened, part
from tests.web.dashboards import dashboard
from usbip_capture.net.listening import Peer
from usbip_capture.server.events import REFUSED
from usbip_capture.web.roles import LOOK

expect.set_options(timeout=PATIENCE)

PAGES = ["overview", "devices", "clients", "captures", "events", "access", "tokens", "settings", "system"]
HOSTILE = "<img src=x onerror=alert(1)>\"'&amp;\u202e{{1}}"
#: What may be in a name.
HOSTILE_NAME = HOSTILE.replace("\u202e", "")
LONG = "W" * 200


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


def hostile_bus() -> FakeBus:
    bus = FakeBus()
    plugged = bus.plug("1-1", serial=HOSTILE)
    plugged.product = plugged.manufacturer = HOSTILE
    long = bus.plug("1-2.3", serial=LONG)
    long.product = LONG
    bus.changed()
    return bus


def show(page: Page, url: str, name: str) -> None:
    """This page, with what it fetches; every page has a heading."""
    page.goto(f"{url}#/{name}")
    part(page, f"page-{name.partition('/')[0]}").wait_for()
    page.wait_for_load_state("networkidle")


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def test_nothing_keeps_people_out(browser: Browser, size: dict[str, int], scheme: Any) -> None:
    with dashboard(bus=hostile_bus()) as (server, made):
        server.access.set("closed", ["allow 192.0.2.0/24 1-1", f"deny {_pattern(HOSTILE_NAME)} all"])
        with opened(browser, made, viewport=size, color_scheme=scheme) as page:
            found = []
            for name in [*PAGES, "devices/1-1"]:
                show(page, made.urls[0], name)
                answer = Axe().run(page).response
                found += [
                    f"{name}: {one['impact']} {one['id']} {one['nodes'][0]['html']}" for one in answer["violations"]
                ]
                wide = page.evaluate("document.documentElement.scrollWidth")
                if wide > size["width"]:
                    found.append(f"{name} is {wide} pixels wide")
            assert not found


def _pattern(name: str) -> str:
    """Of a client that is paired under this name, as rules write it."""
    return json.dumps(f"paired:{name}", ensure_ascii=False)


def test_what_devices_and_strangers_send_stays_text(browser: Browser) -> None:
    with dashboard(bus=hostile_bus(), name="<b>lab</b>") as (server, made):
        server.access.set("closed", [f"deny {_pattern(HOSTILE_NAME)} all"])
        server.leases.reserve("1-1", 60.0, f"paired:{HOSTILE_NAME}")
        server.events.emit(REFUSED, peer=Peer("192.0.2.7", 1, identity=f"cert:{HOSTILE}"), text=HOSTILE, rule=HOSTILE)
        made.side.tokens.add("<img src=x onerror=alert(1)>", LOOK)
        assert server.captures is not None
        live = f"captures/{server.captures.start(name=HOSTILE, by=HOSTILE).id}"
        with opened(browser, made) as page:
            seen = {
                "overview": "page-overview", "devices": "page-devices", "events": "events", "access": "rules",
                "tokens": "tokens", "devices/1-1": "facts", "captures": "captures", live: "page-captures",
            }  # fmt: skip
            for name in [*PAGES, "devices/1-1", f"devices/{HOSTILE.replace('/', '')}", f"captures/{HOSTILE}", live]:
                show(page, made.urls[0], name)
                if name in seen:
                    expect(part(page, seen[name])).to_contain_text("<img src=x onerror=alert(1)>")
                assert page.locator("img, b b, #main script, #main iframe").count() == 0, name
            expect(page.locator("#server-name")).to_have_text("<b>lab</b>")


def test_pages_follow_what_is_plugged_in_and_out(browser: Browser) -> None:
    bus = FakeBus()
    with dashboard(bus=bus) as (_, made), opened(browser, made, "captures") as page:
        part(page, "all-devices").uncheck()
        expect(page.locator(".ticks input")).to_have_count(1)
        page.locator(".ticks input").check()
        bus.plug("1-2")
        expect(page.locator(".ticks input")).to_have_count(2)
        expect(page.locator(".ticks input").first).to_be_checked()
        bus.unplug("1-1")
        expect(page.locator(".ticks input")).to_have_count(1)
        expect(page.locator(".ticks input")).not_to_be_checked()


def test_what_changes_while_a_page_asks_is_shown(browser: Browser) -> None:
    bus = FakeBus()
    frames: list[str | bytes] = []
    with dashboard(bus=bus) as (_, made), opened(browser, made) as page:
        page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: frames.append(frame)))  # noqa: PLW0108
        page.reload()
        part(page, "page-overview").wait_for()

        def late(route: Route) -> None:
            """An answer that is out of date when it comes."""
            if "1-2" in bus.plugged:
                route.continue_()
                return
            answer = route.fetch()
            bus.plug("1-2")
            seen = len(frames)
            while len(frames) < seen + 4:  # two seconds of figures, one of which has it
                page.wait_for_timeout(100)
            route.fulfill(response=answer)

        page.route("**/api/v1/exports", late)
        part(page, "nav-access").click()
        expect(part(page, "exports")).to_contain_text("1-1, 1-2")


def test_a_page_comes_back_with_its_server(browser: Browser) -> None:
    with dashboard(bus=FakeBus(), name="before") as (_, made):
        port = made.addresses[0][1]
        context = browser.new_context()
        page = context.new_page()
        page.goto(made.link)
        part(page, "nav-access").click()
        expect(part(page, "exports")).to_contain_text("all")
    expect(page.locator("#link")).to_have_attribute("data-state", "down")
    bus = FakeBus()
    bus.plug("1-7")
    with dashboard(bus=bus, web=f"127.0.0.1:{port}", name="after"):
        expect(page.locator("#link")).to_have_attribute("data-state", "up")
        expect(page.locator("#server-name")).to_have_text("after")
        expect(part(page, "exports")).to_contain_text("1-7")
        context.close()
