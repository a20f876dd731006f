"""From the first start to a capture, as a person does it: the command, its link in a browser, a client, Wireshark."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.programs.serve_command import Serving
from tests.programs.simulated_machine import BUSID
from tests.waiting import wait_until
from tests.web.browsing import PATIENCE, chromium, part
from usbip_capture.demo.device import BULK_IN, BULK_OUT
from usbip_capture.device import Device
from usbip_capture.errors import UsbipError
from usbip_capture.usb.setup import set_configuration
from usbip_capture.usb.urb import TransferType, Urb

TSHARK, CURL = shutil.which("tshark"), shutil.which("curl")
needs_tshark = pytest.mark.skipif(TSHARK is None or CURL is None, reason="tshark or curl is not installed")
ANY = "127.0.0.1:0"


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[tuple[Serving, str, str]]:
    """The command, where its dashboard is, and its first token."""
    serving = Serving(folder, "--all", "--listen", ANY, "--web", ANY, *arguments)
    try:
        link = serving.wait_for(r"sign in to it with this link, which is shown only once: (http://\S+)")[1]
        yield serving, link.partition("?")[0], urlsplit(link).query.partition("=")[2]
    finally:
        serving.close()


def loop(device: Device, data: bytes) -> None:
    """Out, and back in."""
    device.run(Urb(TransferType.BULK, BULK_OUT, len(data), data), 30.0)
    assert bytes(device.run(Urb(TransferType.BULK, BULK_IN, 512), 30.0).data) == data


def configured(serving: Serving) -> Device:
    device = serving.attach()
    device.run(Urb.control(set_configuration(1).pack()), 30.0)
    return device


def tshark(*arguments: str) -> list[str]:
    """Lines of what it prints."""
    done = subprocess.run([TSHARK or "", "-Q", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@contextmanager
def signed_in(stack: ExitStack, url: str, token: str) -> Iterator[Page]:
    browser = stack.enter_context(chromium())
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(f"{url}?token={token}")
    part(page, "page-overview").wait_for()
    assert token not in page.url, "a link that is copied from there would sign in others"
    yield page
    context.close()


@needs_tshark
def test_start_attach_capture_and_read_it(tmp_path: Path) -> None:
    hook = tmp_path / "hooked"
    with ExitStack() as stack:
        arguments = ["--hook", f"attach,capture-done=/bin/sh -c 'cat >> \"$0\"' {hook}"]
        serving, url, token = stack.enter_context(served(tmp_path, *arguments))
        page = stack.enter_context(signed_in(stack, url, token))
        page.goto(f"{url}#/devices")
        row = page.locator(f'[data-busid="{BUSID}"]').first
        expect(row).to_contain_text("free", timeout=PATIENCE)
        device = configured(serving)
        stack.callback(device.close)
        expect(row).to_contain_text("in use", timeout=PATIENCE)

        page.goto(f"{url}#/captures")
        part(page, "start").click()
        part(page, "stop").wait_for()
        for number in range(20):
            loop(device, b"number %d" % number)
        part(page, "stop").click()
        expect(part(page, "captures")).to_contain_text("stopped", timeout=PATIENCE)
        with page.expect_download() as downloading:
            part(page, "download").click()
        path = tmp_path / "downloaded.pcapng"
        downloading.value.save_as(path)
        data = tshark("-r", str(path), "-Y", "usb.transfer_type == 3 && usb.urb_type == 'S' && usb.capdata", "-T",
                      "fields", "-e", "usb.capdata")  # fmt: skip
        assert [bytes.fromhex(line) for line in data] == [b"number %d" % number for number in range(20)]
        wait_until("the hook was called", lambda: hook.exists() and hook.read_text().count("\n") == 2, 30)
        called = [json.loads(line) for line in hook.read_text().splitlines()]
        assert [call["event"] for call in called] == ["attach", "capture-done"]
        assert (called[0]["busid"], called[1]["by"]) == (BUSID, "web:admin")
        device.close()
        assert serving.end() == 0


@needs_tshark
def test_a_stream_into_tshark(tmp_path: Path) -> None:
    """As `curl ... | wireshark -k -i -` gets it: the descriptors that were read before, then what happens."""
    with ExitStack() as stack:
        serving, url, token = stack.enter_context(served(tmp_path))
        device = configured(serving)
        stack.callback(device.close)
        stopping = threading.Event()

        def use() -> None:
            number = 0
            with suppress(UsbipError):  # the server ends
                while not stopping.wait(0.01):
                    loop(device, b"number %d" % number)
                    number += 1

        user = threading.Thread(target=use)
        user.start()
        stack.callback(user.join, 30)
        stack.callback(stopping.set)
        curl = stack.enter_context(
            subprocess.Popen(
                [CURL or "", "-sSN", "-H", f"Authorization: Bearer {token}",
                 f"{url}api/v1/captures/stream?device={BUSID}&filter=bulk"],
                stdout=subprocess.PIPE,
            )
        )  # fmt: skip
        stack.callback(curl.kill)
        command = [TSHARK or "", "-Q", "-i", "-", "-c", "40", "-T", "fields", "-e", "usb.capdata"]
        done = subprocess.run(command, stdin=curl.stdout, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        texts = [bytes.fromhex(line).decode() for line in done.stdout.splitlines() if line]
        numbers = [int(text.split()[1]) for text in texts if re.fullmatch(r"number \d+", text)]
        assert len(numbers) >= 15
        assert numbers == sorted(numbers)
        curl.kill()
