"""The page of a port whose power was switched off: it can be left, opened again, and switched on."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.fakes.local_bus import SwitchableBus
from tests.web.browsing import PATIENCE, chromium, opened, part
from tests.web.dashboards import asking, dashboard
from tests.web.test_devices_api import post


def test_a_port_without_power_is_switched_on_from_its_page() -> None:
    bus = SwitchableBus()
    bus.plug("1-1")
    with dashboard(bus=bus) as (_, made), chromium() as browser:
        with asking(made) as client:
            post(client, "/devices/1-1/power", action="off")
        with opened(browser, made, "devices") as page:
            expect(page.get_by_text("no power")).to_be_visible(timeout=PATIENCE)
            page.get_by_role("link", name="Port 1-1").click()
            expect(part(page, "facts")).to_contain_text("switch it on", timeout=PATIENCE)
            part(page, "power-on").click()
            expect(part(page, "facts")).to_contain_text("Demo device", timeout=PATIENCE)
        assert bus.switched == [("1-1", False), ("1-1", True)]
