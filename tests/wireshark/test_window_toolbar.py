"""The window as a person uses it: options with Reload, start, marks, endpoints, filter, stop."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.test_server_mode import busy
from tests.oracles.pcapng_reader import read_capture
from tests.programs import wireshark_window as places
from tests.programs.wireshark_window import Window, wireshark
from tests.waiting import wait_until
from tests.web.dashboards import dashboard
from tests.web.test_captures import client_of
from usbip_capture.demo.device import DemoServer
from usbip_capture.errors import CaptureError
from usbip_capture.web.roles import LOOK

pytestmark = pytest.mark.wireshark


@pytest.fixture
def port() -> Iterator[int]:
    """A server on this machine that exports the demo device."""
    server = DemoServer()
    _, number = server.listen("127.0.0.1", 0)
    yield number
    server.close()


def fields(capture: Path, display_filter: str, *names: str) -> list[list[str]]:
    command = ["tshark", "-r", str(capture), "-Y", display_filter, "-T", "fields"]
    command += [part for name in names for part in ("-e", name)]
    out = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    return [line.split("\t") for line in out.splitlines()]


def marks(window: Window) -> list[list[str]]:
    return fields(window.captures()[-1], 'frame.comment contains "mark"', "frame.interface_name", "frame.comment")


@pytest.mark.slow
def test_options_marks_and_endpoints(port: int, tmp_path: Path) -> None:
    log = tmp_path / "extcap.log"
    options = ["-o", f"extcap.usbip_remote.port:{port}", "-o", f"extcap.usbip_remote.logfile:{log}"]
    with wireshark(tmp_path, "-i", "usbip-remote", *options) as window:
        _choose_device(window, tmp_path)
        window.start_selected()
        wait_until("packets", lambda: window.captures() and window.captures()[-1].stat().st_size > 8000, 40)
        _marks_and_endpoints(window, log)
        main = window.find("Capturing from")
        window.key("ctrl+e", main)
        wait_until("the extcap ends", lambda: not window.extcaps(), 20)
        wait_until("the log is complete", lambda: re.search(r"\d+ packets, 0 dropped", log.read_text()), 20)
        capture = window.captures()[-1]
    assert "listening to 0x83" in log.read_text()
    names = {row[0] for row in fields(capture, "usb", "frame.interface_name")}
    assert names == {"usbip0"}
    assert [row[0] for row in fields(capture, "frame.comment", "frame.interface_name")].count("notes0") == 1


def _choose_device(window: Window, home: Path) -> None:
    """Type the server's name, reload its devices, choose the third item, save."""
    x, y = window.open_dialog()
    window.enter((x + places.HOST[0], y + places.HOST[1]), "127.0.0.1")
    window.click((x + places.RELOAD[0], y + places.RELOAD[1]))
    cache = home / ".cache/usbip-capture/servers"
    wait_until("the listing is remembered", lambda: cache.exists() and "1209:0001" in cache.read_text(), 20)
    # The list is there as soon as Wireshark has read the answer: looked for until it can be chosen.
    preferences = home / ".config/wireshark/preferences"

    def saved() -> bool:
        window.click((x + places.DEVICE[0], y + places.DEVICE[1]))
        window.xdotool("key", "End", "Return")
        window.save_dialog((x, y))
        if preferences.exists() and "extcap.usbip_remote.device: 1-1" in preferences.read_text():
            return True
        window.open_dialog()  # it was too early: once more
        return False

    wait_until("host and device are stored", saved, 40)
    assert "extcap.usbip_remote.host: 127.0.0.1" in preferences.read_text()


def _marks_and_endpoints(window: Window, log: Path) -> None:
    window.click(places.MARK)
    _wait_mark(window, 1)
    ((interface, text),) = marks(window)
    assert interface == "usbip0"
    assert re.fullmatch(r"usbip-capture: mark 1 at \d\d:\d\d:\d\d\.\d{3}", text)
    window.enter(places.LISTEN, "0x83", confirm=True)
    wait_until("one endpoint", lambda: "listening to 0x83" in log.read_text(), 20)
    window.enter(places.LISTEN, "none", confirm=True)
    wait_until("no endpoint", lambda: "listening to none" in log.read_text(), 20)
    wait_until("what was under way is back", lambda: _all_back(window.captures()[-1]), 20)
    window.click(places.MARK)
    _wait_mark(window, 2)
    assert [interface for interface, _ in marks(window)] == ["usbip0", "notes0"]


def _wait_mark(window: Window, number: int) -> None:
    """Until a mark is in the file, and all of what it is on."""
    text = f"usbip-capture: mark {number} at ".encode()
    wait_until(f"mark {number}", lambda: text in window.captures()[-1].read_bytes(), 20)
    wait_until(f"the packet of mark {number}", lambda: len(marks(window)) == number, 20)


def _all_back(capture: Path) -> bool:
    kinds: list[int] = []
    with suppress(CaptureError):  # its end is just being written
        for record in read_capture(capture):
            kinds.append(record.usb.type if record.usb else 0)
    return kinds.count(ord("S")) == kinds.count(ord("C"))


def test_a_server_is_joined_with_the_filter_of_the_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window lists it; what its client does appears, as far as the filter lets it, which the server applies."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    interface = "usbip-server-bench"
    with (
        dashboard() as (server, made),
        client_of(server) as device,
        busy(device),
    ):
        configuration = tmp_path / ".config/usbip-capture/config.toml"
        configuration.parent.mkdir(parents=True, exist_ok=True)
        configuration.touch(mode=0o600)
        token = made.side.tokens.add("window", LOOK)
        configuration.write_text(f'[dashboards]\nbench = "{made.urls[0]}"\n\n[tokens]\nbench = "{token}"\n')
        with wireshark(tmp_path, "-i", interface) as window:
            window.selected_row()
            window.enter(places.CAPTURE_FILTER, "bulk and epp")
            wait_until("a filter that is wrong", lambda: window.has_colour(places.CAPTURE_FILTER, places.WRONG), 20)
            window.enter(places.CAPTURE_FILTER, "bulk and ep == 0x84")
            wait_until("a filter that is right", lambda: window.has_colour(places.CAPTURE_FILTER, places.RIGHT), 20)
            window.start_selected()
            wait_until("packets", lambda: window.captures() and len(_bulk(window.captures()[-1])) > 8, 60)
            assert made.side.shared.running == 1
            window.key("ctrl+e", window.find("Capturing from"))
            wait_until("the extcap ends", lambda: not window.extcaps(), 20)
            wait_until("the server notices", lambda: not made.side.shared.running, 20)
            assert window.process.poll() is None
            capture = window.captures()[-1]
    rows = fields(capture, "usb", "frame.interface_name", "usb.endpoint_address", "usb.transfer_type")
    assert {tuple(row) for row in rows if row[2] == "0x03"} == {("usbip0", "0x84", "0x03")}


def _bulk(capture: Path) -> list[list[str]]:
    return fields(capture, "usb.transfer_type == 3", "frame.number")
