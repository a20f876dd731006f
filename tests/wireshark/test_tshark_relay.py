"""Mode `relay` under the real tshark, and in Wireshark's window, worked as a person does."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import usb.core

from tests.programs.extcap_launcher import wireshark_environment
from tests.programs.wireshark_window import DROP, Window, wireshark
from tests.waiting import wait_until
from usbip_capture import get_backend
from usbip_capture.cli.main import main
from usbip_capture.demo.device import DemoServer
from usbip_capture.live import registry

pytestmark = [
    pytest.mark.wireshark,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]
PREFIX = "extcap.usbip_remote."


@pytest.fixture
def preferences() -> Iterator[list[str]]:
    """Options of tshark and Wireshark, to relay to a server on this machine; the relays are ended."""
    with closing(DemoServer()) as demo:
        host, port = demo.listen("127.0.0.1", 0)
        values = {"mode": "relay", "host": host, "port": port, "relaylisten": "127.0.0.1:0"}
        yield [part for name, value in values.items() for part in ("-o", f"{PREFIX}{name}:{value}")]
        if registry.running():
            main(["relay", "--stop"])


def relay_port() -> int:
    (entry,) = wait_until("a relay is listed", registry.running, 60)
    return int(entry.listen.rpartition(":")[2])


def attached(port: int) -> usb.core.Device:
    device = usb.core.find(backend=get_backend("127.0.0.1", port))
    assert isinstance(device, usb.core.Device)
    assert device.product == "Demo device"
    return device


def fields(capture: Path, show: str, *names: str) -> list[list[str]]:
    wanted = [part for name in names for part in ("-e", name)]
    command = ["tshark", "-2", "-r", str(capture), "-Y", show, "-T", "fields", *wanted]
    out = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    return [line.split("\t") for line in out.splitlines()]


def test_tshark_captures_twice_while_the_device_stays(preferences: list[str], tmp_path: Path) -> None:
    environment = wireshark_environment(tmp_path)
    first, second = tmp_path / "first.pcapng", tmp_path / "second.pcapng"
    command = ["tshark", "-i", "usbip-remote", *preferences, "-w", str(first)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as tshark:
        try:
            device = attached(relay_port())
            wait_until("packets", lambda: first.exists() and first.stat().st_size > 800)
        finally:
            tshark.terminate()
        assert "extcap" not in tshark.communicate()[1]
    (entry,) = registry.running()
    listed = subprocess.run(["tshark", "-D"], env=environment, capture_output=True, text=True, check=True).stdout
    assert f"{entry.name} ({entry.display})" in listed
    command = ["tshark", "-i", entry.name, "-a", "duration:2", "-w", str(second)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as tshark:
        while tshark.poll() is None:
            device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)
            time.sleep(0.02)
    for capture in (first, second):
        assert fields(capture, "_ws.malformed", "frame.number") == []
        assert ["0x1209"] in fields(capture, "usb.idVendor", "usb.idVendor")
        assert {row[0] for row in fields(capture, "usb", "frame.interface_name")} == {"usbip0"}
        (described,) = {row[0] for row in fields(capture, "usb", "frame.interface_description")}
        assert "attach -r 127.0.0.1 -b 1-1" in described
    marked = fields(second, 'frame.comment contains "seen by the relay"', "frame.number")
    assert [row[0] for row in marked] == [str(number + 1) for number in range(len(marked))]
    assert len(marked) >= 2
    assert len(fields(second, "usb.urb_type == 'C' && usb.bDescriptorType == 1", "frame.number")) > 20


@pytest.mark.slow
def test_the_window_starts_shows_stops_and_joins_again(preferences: list[str], tmp_path: Path) -> None:
    # The window and this test must see the same list of what runs.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
        options = ["-o", f"{PREFIX}logfile:{tmp_path / 'extcap.log'}"]
        with wireshark(tmp_path, "-k", "-i", "usbip-remote", *preferences, *options) as window:
            device = attached(relay_port())
            wait_until("packets", lambda: window.captures() and window.captures()[-1].stat().st_size > 800, 60)
            stop(window, "USB/IP remote")
            device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)
        (entry,) = registry.running()  # Wireshark is gone, and the device is there
        device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)
        with wireshark(tmp_path, "-k", "-i", entry.name) as window:
            before = len(window.captures())
            wait_until("it has joined", lambda: len(window.captures()) > 0 and window.extcaps(), 60)
            wait_until(
                "packets",
                lambda: (
                    device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)
                    and len(window.captures()) >= before
                    and window.captures()[-1].stat().st_size > 800
                ),
                60,
            )
            # The only client there is; the button works as soon as the toolbar knows of it.
            wait_until("it is broken off", lambda: dropped(window, device), 40)
            stop(window, "relay")
            capture = window.captures()[-1]
            marked = fields(capture, 'frame.comment contains "seen by the relay"', "frame.number")
            assert marked
            assert marked[0] == ["1"]
        wait_until("the relay ends with its last client", lambda: not registry.running())


def dropped(window: Window, device: usb.core.Device) -> bool:
    window.click(DROP)
    return fails(device)


def fails(device: usb.core.Device) -> bool:
    try:
        device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)
    except usb.core.USBError:
        return True
    return False


def stop(window: Window, title: str) -> None:
    main_window = window.find(title)
    window.key("ctrl+e", main_window)
    wait_until("the extcap ends", lambda: not window.extcaps(), 20)
