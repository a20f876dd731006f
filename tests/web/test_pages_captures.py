"""The page of captures, in a browser: what is started there is captured, downloaded, and seen while it happens."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.fakes.local_bus import FakeBus
from tests.web.browsing import PATIENCE, PHONE, chromium, opened, part, say_yes
from tests.web.dashboards import dashboard
from usbip_capture import LocalServer
from usbip_capture.demo.device import BULK_IN, BULK_OUT
from usbip_capture.device import Device
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.usb.setup import get_descriptor, set_configuration
from usbip_capture.usb.urb import TransferType, Urb
from usbip_capture.web.roles import LOOK

expect.set_options(timeout=PATIENCE)

_TIMEOUT = 30.0
CONFIGURE = Urb.control(set_configuration(1).pack())
READ = Urb.control(get_descriptor(1, 0, 0, 18).pack())
STALLED = Urb.control(get_descriptor(77, 0, 0, 18).pack())
WRITE = Urb(TransferType.BULK, BULK_OUT, 5, b"hello")
READ_BACK = Urb(TransferType.BULK, BULK_IN, 64)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@contextmanager
def attached(server: LocalServer, busid: str = "1-1") -> Iterator[Device]:
    device = ServerAddress.parse(server.address, timeout=_TIMEOUT).import_device(Selector(busid))
    try:
        device.run(CONFIGURE, _TIMEOUT)
        yield device
    finally:
        device.close()


def run(device: Device, *urbs: Urb) -> None:
    for urb in urbs:
        device.run(urb, _TIMEOUT)


def start(page: Page, name: str, *, capture_filter: str = "", busid: str = "") -> Locator:
    """Start one in the page; its row."""
    if busid:
        part(page, "all-devices").uncheck()
        page.locator(f'.ticks input[value="{busid}"]').check()
    page.get_by_label("Name", exact=True).fill(name)
    part(page, "filter").fill(capture_filter)
    part(page, "start").click()
    row = row_of(page, name)
    expect(row).to_contain_text("running")
    return row


def row_of(page: Page, name: str) -> Locator:
    return part(page, "captures").get_by_role("row").filter(has_text=name)


def transfer_types(path: Path) -> list[str]:
    command = ["tshark", "-r", str(path), "-T", "fields", "-e", "usb.transfer_type"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_a_capture_of_the_page_is_read_by_wireshark(browser: Browser, tmp_path: Path) -> None:
    bus = FakeBus()
    bus.plug("1-1")
    bus.plug("1-2")
    with dashboard(bus=bus) as (server, made), opened(browser, made, "captures") as page:
        row = start(page, "only bulk", capture_filter="bulk", busid="1-1")
        with attached(server) as device, attached(server, "1-2") as other:
            run(other, WRITE, READ_BACK)
            run(device, READ, WRITE, READ_BACK)
            expect(row).to_contain_text("4 packets")
            part(row, "stop").click()
            expect(row).to_contain_text("stopped")
        with page.expect_download() as downloading:
            part(row, "download").click()
        assert downloading.value.suggested_filename.startswith("only-bulk-")
        path = tmp_path / "downloaded.pcapng"
        downloading.value.save_as(path)
        assert transfer_types(path) == ["0x03"] * 4
        part(row, "delete").click()
        say_yes(page)
        expect(row).to_have_count(0)
        assert server.captures is not None
        assert not server.captures.captures


def test_what_cannot_be_captured_is_a_sentence(browser: Browser) -> None:
    with dashboard() as (server, made), opened(browser, made, "captures") as page:
        part(page, "filter").fill("bulky")
        part(page, "start").click()
        expect(page.get_by_role("alert").filter(has_text="bulky")).to_be_visible()
        part(page, "filter").fill("")
        part(page, "ring").fill("3")
        part(page, "start").click()
        expect(page.get_by_role("alert").filter(has_text="size limit")).to_be_visible()
        part(page, "limit").fill("0.5")
        part(page, "start").click()
        expect(part(page, "captures")).to_contain_text("running")
        assert server.captures is not None
        (facts,) = server.captures.captures
        assert (facts.max_bytes, facts.ring, facts.devices) == (500_000, 3, ())


def test_urbs_are_seen_while_they_happen(browser: Browser) -> None:
    with dashboard() as (server, made), opened(browser, made, "captures") as page, attached(server) as device:
        part(start(page, "watched"), "watch").click()
        expect(part(page, "live-state")).to_have_text("live")
        rows = part(page, "long").get_by_role("row")
        expect(rows).to_have_count(1)  # the head
        run(device, READ, STALLED, WRITE)
        expect(rows).to_have_count(7)
        expect(rows.nth(2)).to_contain_text("12 01")  # the device descriptor
        expect(rows.nth(3)).to_contain_text("80 06 00 4d")
        expect(rows.nth(4).locator(".bad")).to_have_text("EPIPE (stall)")
        expect(rows.nth(5)).to_contain_text("68 65 6c 6c 6f")
        rows.nth(5).click()
        expect(part(page, "urb")).to_contain_text("hello")
        part(page, "long").press("ArrowDown")
        expect(part(page, "urb")).to_contain_text("complete")
        part(page, "pause").click()
        expect(part(page, "live-state")).to_have_text("paused")
        part(page, "pause").click()
        expect(part(page, "live-state")).to_have_text("live")
        run(device, READ_BACK)
        expect(rows).to_have_count(9)


def test_the_newest_urbs_stay_in_sight_when_the_window_changes(browser: Browser) -> None:
    """Only who scrolls up leaves them; a telephone that is turned does not."""
    with dashboard() as (server, made), opened(browser, made, "captures") as page, attached(server) as device:
        part(start(page, "watched"), "watch").click()
        expect(part(page, "live-state")).to_have_text("live")
        long = part(page, "long")
        at_end = "list => list.scrollHeight - list.scrollTop - list.clientHeight < 24"
        for height in (700, 560, 800, 640):
            run(device, *[READ] * 40)
            # In one frame: what was drawn has scrolled, and the window has another size.
            long.evaluate(
                """(list, height) => new Promise((done) => {
                    list.scrollTop = list.scrollHeight;
                    list.style.maxHeight = `${height / 3}px`;
                    requestAnimationFrame(() => requestAnimationFrame(done));
                })""",
                height,
            )
            run(device, READ)
            page.wait_for_function(at_end, arg=long.element_handle())
            expect(page.get_by_role("button", name="Newest")).to_be_hidden()
        long.evaluate("list => { list.scrollTop = 0; }")
        expect(page.get_by_role("button", name="Newest")).to_be_visible()
        page.get_by_role("button", name="Newest").click()
        page.wait_for_function(at_end, arg=long.element_handle())


def test_the_view_has_a_filter_of_its_own(browser: Browser) -> None:
    with dashboard() as (server, made), opened(browser, made, "captures") as page, attached(server) as device:
        part(start(page, "watched"), "watch").click()
        expect(part(page, "live-state")).to_have_text("live")
        rows = part(page, "long").get_by_role("row")
        run(device, READ)
        expect(rows).to_have_count(3)
        part(page, "live-filter").fill("nonsense ==")
        part(page, "live-filter").press("Enter")
        expect(page.get_by_role("alert").filter(has_text="nonsense")).to_be_visible()
        run(device, READ)
        expect(rows).to_have_count(5)
        part(page, "live-filter").fill("out")
        part(page, "live-filter").press("Enter")
        expect(rows).to_have_count(1)
        run(device, READ, WRITE, READ_BACK)
        expect(rows).to_have_count(3)
        expect(rows.nth(1)).to_contain_text("bulk")
        assert server.captures is not None
        server.captures.stop(server.captures.captures[0].id)
        expect(part(page, "live-state")).to_have_text("stopped")
        expect(part(page, "live-counts")).to_contain_text("packets")


def test_commands_are_for_copying(browser: Browser) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    with dashboard() as (_, made), opened(browser, made, "captures", permissions=permissions) as page:
        page.get_by_label("Device", exact=True).select_option("1-1")
        expect(part(page, "stream-command")).to_have_text(
            f"curl -sN -H 'Authorization: Bearer TOKEN' '{made.urls[0]}api/v1/captures/stream?device=1-1'"
            " | wireshark -k -i -"
        )
        row = start(page, "mine")
        part(row, "command").click()
        expect(part(page, "toast").filter(has_text="Copied")).to_be_visible()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert re.fullmatch(r"curl .*/captures/stream\S* \| wireshark -k -i -", copied)


def test_where_a_page_must_not_copy_it_shows_what_to_copy(browser: Browser) -> None:
    with dashboard() as (_, made), opened(browser, made, "captures") as page:
        page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")  # as without TLS
        part(start(page, "mine"), "command").click()
        shown = page.get_by_role("textbox", name="Text to copy")
        expect(shown).to_have_value(re.compile(r"curl .*/captures/stream\S* \| wireshark -k -i -"))
        expect(shown).to_be_focused()


def test_who_may_only_look_watches_and_downloads(browser: Browser) -> None:
    with dashboard() as (server, made):
        assert server.captures is not None
        server.captures.start(name="theirs")
        with opened(browser, made, "captures", LOOK, viewport=PHONE) as page:
            row = row_of(page, "theirs")
            expect(part(page, "start")).to_be_disabled()
            for name in ("stop", "delete"):
                expect(part(row, name)).to_be_disabled()
            with page.expect_download():
                part(row, "download").click()
            part(row, "watch").click()
            expect(part(page, "live-state")).to_have_text("live")


def test_what_a_capture_cannot_be_is_a_sentence_in_the_form(browser: Browser) -> None:
    with dashboard() as (server, made), opened(browser, made, "captures") as page:
        assert server.captures is not None
        for limit, ring, sentence in (
            ("-1", "", "The size limit is a number of MB"),
            ("", "2.5", "The ring is a whole number of files"),
            ("", "3", "A ring needs a size limit"),
        ):
            part(page, "limit").fill(limit)
            part(page, "ring").fill(ring)
            part(page, "start").click()
            expect(page.get_by_role("alert").filter(has_text=sentence)).to_be_visible()
        part(page, "ring").fill("")
        part(page, "all-devices").uncheck()
        part(page, "start").click()
        expect(page.get_by_role("alert").filter(has_text="Choose a device")).to_be_visible()
        assert server.captures.captures == []
