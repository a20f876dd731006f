"""The pages of settings, access, tokens and the system, in a browser: what is changed there is changed."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.fakes.local_bus import FakeBus
from tests.waiting import wait_until
from tests.web.browsing import PATIENCE, chromium, opened, part, say_yes
from tests.web.dashboards import dashboard
from usbip_capture import LocalServer
from usbip_capture.servers.configuration import configuration_path
from usbip_capture.servers.server_table import ServerTable, read_server_table
from usbip_capture.serving.restarting import Restart
from usbip_capture.web.dashboard import Dashboard
from usbip_capture.web.roles import ADMINISTER, LOOK, OPERATE

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


def configure(text: str) -> None:
    path = Path(configuration_path())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_settings_are_written_as_the_command_line_has_them(browser: Browser) -> None:
    configure('# mine\n[server]\nexports = ["1-1"]\n')
    with dashboard(devices=None) as (server, made), opened(browser, made, "settings") as page:
        expect(part(page, "setting-exports")).to_have_value("1-1")
        part(page, "setting-exports").fill("1-1\n\n 1-2 ")
        part(page, "setting-name").fill("lab")
        part(page, "setting-max-clients").fill("5")
        part(page, "setting-reset").uncheck()
        part(page, "setting-announce").select_option("off")
        expect(part(page, "save-bar")).to_contain_text("5 settings changed")
        part(page, "save").click()
        expect(part(page, "needs-restart")).to_contain_text("name")
        table = read_server_table()
        assert (table.exports, table.name, table.max_clients) == (("1-1", "1-2"), "lab", 5)
        assert (table.reset, table.announce) == (False, False)
        assert Path(configuration_path()).read_text().startswith("# mine\n")
        assert server.rules == ["1-1", "1-2"]  # it follows
        expect(part(page, "save-bar")).to_be_hidden()


def test_a_setting_that_cannot_be_meant_is_a_sentence_and_nothing_is_changed(browser: Browser) -> None:
    configure('[server]\nexports = ["1-1"]\n')
    with dashboard(devices=None) as (_, made), opened(browser, made, "settings") as page:
        part(page, "setting-allow").fill("192.0.2.0/99")
        part(page, "setting-name").fill("other")
        part(page, "save").click()
        expect(part(page, "problem")).to_contain_text("192.0.2.0/99")
        assert not read_server_table().name
        page.get_by_role("button", name="Discard").click()
        expect(part(page, "setting-name")).to_have_value("")
        expect(part(page, "save-bar")).to_be_hidden()


def test_what_is_being_edited_stays_when_something_else_changes(browser: Browser) -> None:
    """Also where that is noticed before the first key is pressed, and known after it."""
    configure('[server]\nexports = ["1-1"]\nname = "lab"\n')
    bus = FakeBus()
    with dashboard(devices=None, bus=bus) as (_, made), opened(browser, made, "settings") as page:
        held: list[Route] = []
        page.route("**/api/v1/settings", lambda route: held.append(route))  # noqa: PLW0108  it marks what it calls
        with page.expect_request("**/api/v1/settings"):
            bus.plug("1-2")  # no rule exports it; the page asks again
        part(page, "setting-name").fill("mine")
        with page.expect_response("**/api/v1/settings"):
            held[0].continue_()
        page.evaluate("fetch('/healthz').then(answer => answer.text())")  # what came before it has been taken
        expect(part(page, "setting-name")).to_have_value("mine")
        expect(part(page, "save-bar")).to_be_visible()


def test_defaults_are_asked_for_twice(browser: Browser) -> None:
    configure('[server]\nexports = ["1-1"]\nname = "lab"\n')
    with dashboard(devices=None) as (server, made), opened(browser, made, "settings") as page:
        part(page, "defaults").click()
        expect(part(page, "ask")).to_contain_text("exports")
        say_yes(page)
        expect(part(page, "ask")).to_contain_text("last question")
        part(page, "ask-no").click()
        assert read_server_table().name == "lab"
        part(page, "defaults").click()
        say_yes(page, 2)
        expect(part(page, "setting-exports")).to_have_value("")
        assert not read_server_table().name
        assert server.rules == []


def test_a_restart_is_asked_for_twice_and_the_page_comes_back(browser: Browser) -> None:
    bus = FakeBus()
    bus.plug("1-1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        web = "127.0.0.1:{1}".format(*listener.getsockname())
    name = ["before"]
    restart = Restart(lambda: table(web, name[0]), lambda settings: LocalServer(settings, bus))
    with restart.start()[0] as server:
        first = cast("Dashboard", server.dashboard)
        with opened(browser, first, "settings") as page:
            part(page, "restart").click()
            expect(part(page, "ask")).to_contain_text("starts again")
            say_yes(page, 2)
            wait_until("it is asked for", lambda: restart.requested)
            server.close()
            name[0] = "after"
            with restart.start()[0]:
                expect(page.locator("#link")).to_have_attribute("data-state", "up")
                expect(page.locator("#server-name")).to_have_text("after")
                expect(part(page, "setting-name")).to_be_visible()


def table(web: str, name: str) -> ServerTable:
    return ServerTable(exports=("all",), listen=("127.0.0.1:0",), web=(web,), name=name)


def test_rules_of_access_hold_at_once(browser: Browser) -> None:
    configure('[server]\nexports = ["1-1"]\n')
    with dashboard(devices=None) as (server, made), opened(browser, made, "access") as page:
        part(page, "rule-action").select_option("deny")
        part(page, "rule-client").fill("paired:ann b")
        part(page, "rule-device").fill("1-1")
        part(page, "add-rule").click()
        expect(part(page, "rules")).to_contain_text('"paired:ann b" 1-1')
        part(page, "rule-action").select_option("allow")
        part(page, "rule-client").fill("192.0.2.0/24")
        part(page, "add-rule").click()
        expect(part(page, "rules")).to_contain_text("192.0.2.0/24 all")
        assert [str(rule) for rule in server.access.rules] == ['deny "paired:ann b" 1-1', "allow 192.0.2.0/24 all"]
        _check(page, "paired:ann b", "0 of 1", 'deny "paired:ann b" 1-1')
        _check(page, "192.0.2.7", "1 of 1", "allow 192.0.2.0/24 all")
        part(page, "rule-client").fill("nonsense")
        part(page, "add-rule").click()
        expect(page.get_by_role("alert").filter(has_text="nonsense")).to_be_visible()
        row = part(page, "rules").get_by_role("row").filter(has_text="192.0.2.0/24")
        part(row, "remove-rule").click()
        say_yes(page)
        expect(row).to_have_count(0)
        assert len(server.access.rules) == 1


def _check(page: Page, client: str, verdict: str, rule: str) -> None:
    part(page, "check-client").fill(client)
    part(page, "check-go").click()
    expect(part(page, "verdict")).to_have_text(f"{client} would get {verdict}.")
    expect(part(page, "check")).to_contain_text(rule)


def test_a_server_is_opened_for_everybody_only_when_that_is_confirmed(browser: Browser) -> None:
    configure('[server]\nexports = ["1-1"]\n')
    with dashboard(devices=None) as (server, made), opened(browser, made, "access") as page:
        part(page, "mode-open").click()
        part(page, "ask-no").click()
        expect(part(page, "mode-closed")).to_be_checked()
        assert server.access.rules.mode == "closed"
        part(page, "mode-open").click()
        say_yes(page)
        expect(part(page, "toast")).to_contain_text("open")
        assert server.access.rules.mode == "open"


def test_exports_and_leases(browser: Browser) -> None:
    configure("[server]\nexports = []\n")
    with dashboard(devices=None) as (server, made), opened(browser, made, "access") as page:
        part(page, "export-rule").fill("1-1")
        part(page, "add-export").click()
        expect(part(page, "exports").get_by_role("row").nth(1)).to_contain_text("1-1")
        assert server.rules == ["1-1"]
        part(page, "lease-device").select_option("1-1")
        part(page, "lease-client").fill("192.0.2.7")
        part(page, "reserve").click()
        expect(part(page, "leases")).to_contain_text("192.0.2.7")
        assert server.leases.busids() == ["1-1"]
        part(page, "release").click()
        say_yes(page)
        expect(part(page, "leases")).to_be_hidden()
        part(page, "remove-export").click()
        say_yes(page)
        expect(part(page, "exports")).to_be_hidden()
        assert server.rules == []


def test_a_token_is_shown_once_and_signs_in_until_it_is_deleted(browser: Browser) -> None:
    with dashboard() as (_, made), opened(browser, made, "tokens") as page:
        part(page, "token-name").fill("ci")
        part(page, "token-role").select_option(OPERATE)
        part(page, "add-token").click()
        token = part(page, "new-token").inner_text()
        context = browser.new_context()
        other = context.new_page()
        other.goto(f"{made.urls[0]}?token={token}")
        expect(other.locator("#who")).to_contain_text("ci")
        page.reload()
        row = part(page, "tokens").get_by_role("row").filter(has=page.get_by_text("ci", exact=True))
        expect(row).to_contain_text(OPERATE)
        assert token not in page.content()
        part(row, "delete-token").click()
        say_yes(page)
        expect(row).to_have_count(0)
        other.reload()
        expect(part(other, "sign-in")).to_be_visible(timeout=PATIENCE)
        context.close()


def test_who_may_only_look_sees_it_all_and_can_change_nothing(browser: Browser) -> None:
    with dashboard() as (_, made), opened(browser, made, "settings", LOOK) as page:
        expect(part(page, "setting-name")).to_be_disabled()
        for name in ("defaults", "restart"):
            expect(part(page, name)).to_be_disabled()
        page.goto(f"{made.urls[0]}#/access")
        for name in ("mode-open", "add-rule", "add-export", "reserve"):
            expect(part(page, name)).to_be_disabled()
        _check(page, "192.0.2.7", "0 of 1", "no rule allows it")
        page.goto(f"{made.urls[0]}#/tokens")
        expect(part(page, "page-tokens")).to_contain_text(ADMINISTER)


def test_the_system_is_what_it_is(browser: Browser) -> None:
    with dashboard(name="lab") as (_, made), opened(browser, made, "system") as page:
        expect(part(page, "page-system")).to_contain_text("lab")
        expect(part(page, "page-system")).to_contain_text(configuration_path())
        expect(part(page, "uptime")).to_have_text(re.compile(r"\d+ s"))


def test_a_device_that_is_plugged_in_can_be_reserved_at_once(browser: Browser) -> None:
    bus = FakeBus()
    with dashboard(bus=bus) as (server, made), opened(browser, made, "access") as page:
        bus.plug("1-2")
        wait_until("it is exported", lambda: len(server.devices) == 2)
        expect(part(page, "exports")).to_contain_text("1-1, 1-2")
        expect(part(page, "lease-device").locator("option")).to_have_count(2)
        bus.unplug("1-2")
        expect(part(page, "lease-device").locator("option")).to_have_count(1)
