"""The pages of the dashboard in a browser, while clients use the devices: what is shown, and what each button does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.web.browsing import PATIENCE, PHONE, chromium, opened, part, say_yes
from tests.web.lab import Lab, lab
from usbip_capture.server.events import LISTED
from usbip_capture.syslog.severity import WARNING
from usbip_capture.web.roles import LOOK, OPERATE

expect.set_options(timeout=PATIENCE)
PAGES = ("overview", "devices", "devices/1-1.4", "clients", "events")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as found:
        yield found


def row(page: Page, busid: str) -> str:
    """The text of a device's row in the tree."""
    return page.locator(f'li[data-busid="{busid}"] > .device').inner_text()


def kinds(made: Lab) -> list[str]:
    return [event.kind for event in made.server.events.after(0, 10_000)]


def toast(page: Page, text: str) -> None:
    """It says so, and is closed."""
    found = part(page, "toast").filter(has_text=text)
    expect(found).to_have_count(1)
    found.get_by_role("button").click()


def test_the_overview_follows_what_happens(browser: Browser, made: Lab) -> None:
    with made.client("1-1.4"), opened(browser, made.made) as page:
        expect(part(page, "tile-devices")).to_have_text("3")
        expect(part(page, "tile-clients")).to_have_text("1")
        expect(part(page, "tile-throughput")).not_to_have_text("0 B/s")
        expect(part(page, "chart").locator("canvas")).to_be_visible()
        expect(part(page, "events").locator("tbody tr").first).to_contain_text("has signed in")
        made.server.events.emit(LISTED, WARNING, text="<img src=x onerror=alert(1)>")
        expect(part(page, "events").locator("tbody tr").first).to_contain_text("<img src=x onerror=alert(1)>")
        part(page, "chart-device").select_option("1-1.4")
        expect(page.locator(".legend .in b")).not_to_have_text("0 B/s")
        with made.client("1-3"):
            expect(part(page, "tile-clients")).to_have_text("2")
        expect(part(page, "tile-clients")).to_have_text("1")


def test_devices_are_where_their_ports_are(browser: Browser, made: Lab) -> None:
    with opened(browser, made.made, "devices") as page:
        tree = part(page, "tree")
        expect(tree.locator('li[data-busid="usb1"] li[data-busid="1-1"] li[data-busid="1-1.4"]')).to_have_count(1)
        empty = tree.locator(".device.none")
        expect(empty).to_have_text(
            [f"{ports}: empty" for ports in ("Port 1", "Port 3", "Ports 5 to 7", "Port 2", "Port 4")]
        )
        assert {"Sensor board", "free"} <= set(row(page, "1-1.4").split("\n"))
        with made.client("1-1.4"):
            expect(tree.locator('li[data-busid="1-1.4"] .state').first).to_have_text("in use")
            expect(tree.locator('li[data-busid="1-1.4"] .figures').first).to_contain_text("in ")
        made.unplug("1-3")
        expect(tree.locator('li[data-busid="1-3"]')).to_have_count(0)
        made.plug_again("1-3")
        expect(tree.locator('li[data-busid="1-3"]')).to_have_count(1)
        part(page, "filter").fill("loop-back")
        expect(part(page, "device")).to_have_text(["Bus 1", "Hub", "Loop-back board"])
        part(page, "filter").fill("")
        exported = page.get_by_role("switch", name="Export 1-1.2, Loop-back board")
        exported.click()
        toast(page, "1-1.2 is not exported any more")
        expect(tree.locator('li[data-busid="1-1.2"] .state').first).to_have_text("not exported")
        exported.click()
        toast(page, "1-1.2 is exported")


def test_a_device_s_page_has_all_of_it(browser: Browser, made: Lab) -> None:
    with made.client("1-1.4"), opened(browser, made.made, "devices/1-1.4") as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("Sensor board")
        facts = part(page, "facts")
        for text in ("in use", "127.0.0.1:", "S-0001", "1209:0001", "cdc_acm, usbhid"):
            expect(facts).to_contain_text(text)
        endpoint = part(page, "endpoints").locator("tr", has_text="0x84")
        expect(endpoint).to_contain_text("bulk in")
        expect(endpoint.locator('td[data-label="URBs"]')).not_to_have_text("0")
        expect(endpoint.locator('td[data-label="Median"]')).to_have_text(re.compile(r"\d [nµm]?s$"))
        page.get_by_role("button", name="0x84").click()
        expect(page.locator("figcaption")).to_contain_text("Completion times of 0x84")
        page.locator("summary").click()
        expect(part(page, "descriptors")).to_contain_text("idVendor           0x1209")


def test_what_can_be_done_with_a_device(browser: Browser, made: Lab) -> None:
    with made.client("1-1.4") as client, opened(browser, made.made, "devices/1-1.4", OPERATE) as page:
        part(page, "reset").click()
        say_yes(page)
        toast(page, "1-1.4 was reset")
        part(page, "disconnect").click()
        expect(part(page, "ask")).to_contain_text("The device stays exported")
        say_yes(page)
        toast(page, "is disconnected from 1-1.4")
        assert client.ended.wait(20)
        expect(part(page, "disconnect")).to_be_disabled()
        part(page, "power-cycle").click()
        say_yes(page)
        toast(page, "there is no hub 1-1 that could switch the power of a port")
        part(page, "export").click()
        toast(page, "1-1.4 is not exported any more")
        expect(part(page, "export")).to_have_text("Export")
        part(page, "export").click()
        toast(page, "1-1.4 is exported")
        part(page, "eject").click()
        expect(part(page, "ask")).to_contain_text("is not exported until it is plugged in again")
        part(page, "ask-no").click()
        assert "withdrawn" in kinds(made)
        part(page, "eject").click()
        say_yes(page)
        toast(page, "1-1.4 is ejected")
        expect(part(page, "facts")).to_contain_text("not exported")


def test_a_capture_is_begun_on_a_device_s_page(browser: Browser, made: Lab) -> None:
    with made.client("1-1.4"), opened(browser, made.made, "devices/1-1.4", OPERATE) as page:
        part(page, "capture").click()
        expect(part(page, "page-captures")).to_contain_text("1-1.4")
        assert made.server.captures is not None
        (capture,) = made.server.captures.captures
        assert (list(capture.devices), capture.state) == (["1-1.4"], "running")
        page.evaluate("location.hash = '#/overview'")
        expect(part(page, "captures").locator("tbody tr")).to_contain_text("1-1.4")
        expect(part(page, "captures").locator("tbody tr")).not_to_contain_text("0 packets")


def test_a_device_is_unplugged_while_its_page_is_open(browser: Browser, made: Lab) -> None:
    with opened(browser, made.made, "devices/1-3") as page:
        made.unplug("1-3")
        expect(part(page, "gone")).to_be_visible()
        expect(part(page, "reset")).to_be_disabled()
        expect(part(page, "power-on")).to_be_enabled()
        made.plug_again("1-3")
        expect(part(page, "gone")).to_be_hidden()
        expect(part(page, "reset")).to_be_enabled()


def test_clients_are_ended_and_denied(browser: Browser, made: Lab) -> None:
    with made.client("1-1.4") as first, opened(browser, made.made, "clients") as page:
        clients = part(page, "clients").locator("tbody tr")
        expect(clients).to_have_count(1)
        expect(clients).to_contain_text("1-1.4 Sensor board")
        expect(clients.locator('td[data-label="URBs"]')).not_to_have_text("0")
        part(page, "end").click()
        say_yes(page)
        toast(page, "is disconnected from 1-1.4")
        assert first.ended.wait(20)
        expect(clients).to_have_count(0)
        with made.client("1-1.2") as second:
            expect(clients).to_contain_text("1-1.2 Loop-back board")
            part(page, "deny").click()
            expect(part(page, "rule")).to_contain_text("loses at once")
            part(page, "pattern").fill("nonsense")
            part(page, "rule-yes").click()
            expect(part(page, "toast").filter(has_text="nonsense")).to_have_count(1)
            part(page, "deny").click()
            part(page, "rule-yes").click()
            toast(page, "is in force")
            assert second.ended.wait(20)
            assert [rule.action for rule in made.server.access.rules] == ["deny"]


def test_ten_thousand_events_are_searched(browser: Browser, made: Lab) -> None:
    for number in range(10_000):
        made.server.events.emit("power", busid=f"1-{number}", text=f"<b>switch {number}</b>", by="test")
    with opened(browser, made.made, "events") as page:
        rows = part(page, "events").locator(".row:not([hidden])")
        expect(rows.first).to_contain_text("signed-in")
        expect(page.locator(".events-card [role=status]")).to_have_text(re.compile("^10\u202f000 events"))
        assert rows.count() < 100
        part(page, "search").fill("switch 4321<")
        expect(rows).to_have_count(1)
        expect(rows).to_contain_text("<b>switch 4321</b>")
        made.server.events.emit(LISTED, WARNING, text="again, switch 4321< of another kind")
        expect(rows).to_have_count(2)
        part(page, "severity").select_option("warning")
        expect(rows).to_have_count(1)
        rows.get_by_role("button").click()
        expect(part(page, "event")).to_contain_text("again, switch 4321< of another kind")
        page.keyboard.press("Escape")
        part(page, "search").fill("")
        part(page, "severity").select_option("")
        box = part(page, "events")
        box.evaluate("box => box.scrollTop = box.scrollHeight")
        expect(rows.filter(has_text="switch 5<").or_(rows.filter(has_text="switch 30<")).first).to_be_visible()
        with page.expect_download() as download:
            part(page, "save").click()
        assert len(Path(download.value.path()).read_text().splitlines()) == 10_000


def test_sixty_four_devices_change_no_more_than_their_figures(browser: Browser, made: Lab) -> None:
    """Twice a second: what is drawn anew is what has changed, not the tree."""
    for number in range(2, 63):
        made.machine.plug_demo(3, number, devnum=20 + number, product=f"Thing {number}")
    with made.client("1-1.4"), opened(browser, made.made, "devices") as page:
        expect(part(page, "device")).to_have_count(3 + 61 + 2)
        expect(page.locator(".page-devices [role=status]")).to_have_text("64 devices, 64 exported, 1 in use")
        changes = page.evaluate(
            """() => new Promise((resolve) => {
              const figures = document.querySelector('li[data-busid="1-1.4"] .figures');
              let [frames, records] = [0, 0];
              new MutationObserver((found) => {
                records += found.length;
                if (found.some((record) => figures.contains(record.target)) && ++frames === 4) resolve(records);
              }).observe(document.querySelector("[data-test=tree]"),
                {subtree: true, childList: true, attributes: true, characterData: true});
            })"""
        )
        assert changes < 60


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(browser: Browser, made: Lab, scheme: str) -> None:
    long = "W" * 120
    made.machine.plug_demo(4, devnum=11, product=long, serial=long)
    hosts: set[str] = set()
    with made.client("1-1.4"), opened(browser, made.made, viewport=PHONE, color_scheme=scheme, is_mobile=True) as page:
        page.on("request", lambda request: hosts.add(re.sub(r"^\w+://([^/]*)/.*", r"\1", request.url)))
        for name in (*PAGES, "devices/1-4"):
            page.evaluate("name => { location.hash = '#/' + name; }", name)
            expect(page.locator(".page > *").first).to_be_attached()
            expect(page.locator('nav a[aria-current="page"]')).to_have_attribute("href", f"#/{name.partition('/')[0]}")
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name
        page.locator("#menu").focus()
        page.keyboard.press("Enter")
        expect(part(page, "nav-clients")).to_be_visible()
        page.keyboard.press("Escape")
        expect(part(page, "nav-clients")).to_be_hidden()
    assert hosts == {made.made.urls[0].split("/")[2]}


def test_the_keyboard_is_enough(browser: Browser, made: Lab) -> None:
    with opened(browser, made.made) as page:
        page.keyboard.press("Tab")
        expect(page.locator("#skip")).to_be_focused()
        part(page, "nav-devices").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Devices", level=1)).to_be_focused()
        page.get_by_role("link", name="Sensor board").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Sensor board", level=1)).to_be_focused()
        part(page, "eject").focus()
        page.keyboard.press("Enter")
        expect(part(page, "ask")).to_be_visible()
        page.keyboard.press("Escape")
        expect(part(page, "ask")).to_have_count(0)
        expect(part(page, "eject")).to_be_focused()


def test_who_may_only_look_is_shown_why(browser: Browser, made: Lab) -> None:
    with made.client("1-1.4"), opened(browser, made.made, "devices/1-1.4", LOOK) as page:
        expect(part(page, "reset")).to_be_disabled()
        expect(part(page, "reset")).to_have_attribute("title", re.compile("this needs operate"))
        page.evaluate("location.hash = '#/clients'")
        expect(part(page, "end")).to_be_disabled()
        expect(part(page, "deny")).to_be_disabled()


def test_signing_in_and_out(browser: Browser, made: Lab) -> None:
    token = made.made.side.tokens.add("anna", OPERATE)
    context = browser.new_context()
    page = context.new_page()
    try:
        page.goto(f"{made.made.urls[0]}?token=nonsense")
        expect(part(page, "problem")).to_contain_text("The token of that link is not known here")
        part(page, "token").fill("wrong")
        part(page, "sign-in").click()
        expect(part(page, "problem")).to_contain_text("this token is not known here")
        part(page, "token").fill(f"{made.made.urls[0]}?token={token}")
        page.keyboard.press("Enter")
        expect(part(page, "page-overview")).to_be_visible()
        expect(page.locator("#who")).to_contain_text("anna")
        page.reload()
        expect(part(page, "page-overview")).to_be_visible()
        part(page, "sign-out").click()
        expect(part(page, "token")).to_be_focused()
        page.reload()
        expect(part(page, "token")).to_be_visible()
    finally:
        context.close()


def test_the_colours_are_chosen(browser: Browser, made: Lab) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, made.made, color_scheme="light") as page:
        light = page.evaluate(background)
        part(page, "theme").click()
        part(page, "theme").click()
        assert page.evaluate(background) != light
        page.reload()
        expect(part(page, "chart").locator("canvas")).to_be_visible()
        assert page.evaluate(background) != light


def test_a_server_that_is_started_again_is_found_again(browser: Browser, tmp_path: Path) -> None:
    with lab(tmp_path / "first") as first:
        address, port = first.made.addresses[0]
        token = first.made.side.tokens.add("anna", OPERATE)
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{first.made.urls[0]}?token={token}")
        expect(page.locator("#link")).to_have_text("Connected")
        page.evaluate("location.hash = '#/devices'")
        expect(part(page, "device")).to_have_count(5)
    try:
        expect(page.locator("#link")).to_have_text("No connection: trying again")
        with lab(tmp_path / "second", web=f"{address}:{port}") as second:
            second.machine.plug_demo(4, devnum=11, product="Another board")
            expect(page.locator("#link")).to_have_text("Connected")
            expect(page.locator('li[data-busid="1-4"]')).to_have_count(1)
    finally:
        context.close()
