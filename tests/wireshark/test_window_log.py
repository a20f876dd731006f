"""The device's log in the window: chosen on the tab Log, captured beside USB, shown in the toolbar's log window."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.syslog_senders import Device, esp
from tests.programs import wireshark_window as places
from tests.programs.wireshark_window import Window, wireshark
from tests.waiting import wait_until
from usbip_capture.demo.device import DemoServer

pytestmark = pytest.mark.wireshark


@pytest.fixture
def port() -> Iterator[int]:
    """A server on this machine that exports the demo device."""
    server = DemoServer()
    _, number = server.listen("127.0.0.1", 0)
    yield number
    server.close()


@pytest.fixture
def device() -> Iterator[Device]:
    """A device that offers its log."""
    found = Device()
    yield found
    found.close()


def lines(capture: Path) -> list[list[str]]:
    command = ["tshark", "-r", str(capture), "-Y", "syslog", "-T", "fields", "-e", "frame.interface_name"]
    command += ["-e", "syslog.level", "-e", "ip.src", "-e", "_ws.col.Source", "-e", "_ws.col.Info"]
    out = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    return [line.split("\t") for line in out.splitlines()]


def test_the_log_beside_usb(port: int, device: Device, tmp_path: Path) -> None:
    values = {"host": "127.0.0.1", "port": port, "device": "1-1", "syslogport": device.port}
    options = [part for name, value in values.items() for part in ("-o", f"extcap.usbip_remote.{name}:{value}")]
    with wireshark(tmp_path, "-i", "usbip-remote", *options) as window:
        _choose_connect(window, tmp_path)
        window.start_selected()
        with device.accept() as sock:
            wait_until("packets", lambda: window.captures() and window.captures()[-1].stat().st_size > 8000, 40)
            window.click(places.LOG)
            x, y = window.corner(window.find("usbip-remote Log"))
            sock.sendall(esp(7, "E (7) wifi: lost", 3))
            wait_until("the line in the file", lambda: b"wifi: lost" in window.captures()[-1].read_bytes(), 20)
            wait_until("the line in the capture", lambda: lines(window.captures()[-1]), 20)
            # The window marks what is looked for in it: only when it is there.
            window.enter((x + places.HIGHLIGHT[0], y + places.HIGHLIGHT[1]), "wifi: lost")
            wait_until("the line in the log window", lambda: _marked(window, x, y), 20)
            window.enter((x + places.HIGHLIGHT[0], y + places.HIGHLIGHT[1]), "wifi: lust")
            wait_until("no such line", lambda: not _marked(window, x, y), 20)
    ((interface, level, address, source, info),) = lines(window.captures()[-1])
    assert (interface, level, address, source) == ("syslog0", "3", "127.0.0.1", "127.0.0.1")
    assert "wifi: lost" in info


def _marked(window: Window, x: int, y: int) -> bool:
    """Whether something in the text of the log window is highlighted."""
    return window.pixels(x + 12, y + 12, 590, 360).count(places.HIGHLIGHTED) > 100


def _choose_connect(window: Window, home: Path) -> None:
    x, y = window.open_dialog()
    window.click((x + places.LOG_TAB[0], y + places.LOG_TAB[1]))
    window.click((x + places.FIRST_CHOICE[0], y + places.FIRST_CHOICE[1]))
    window.xdotool("key", "Down", "Return")
    preferences = home / ".config/wireshark/preferences"

    def stored() -> bool:
        return preferences.exists() and "extcap.usbip_remote.syslog: connect" in preferences.read_text()

    window.save_dialog((x, y))
    wait_until("the choice is stored", stored, 40)
