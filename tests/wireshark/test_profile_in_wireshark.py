"""The profile under the real tshark: its columns show, its colours are used, each of its filters compiles and finds."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.programs.extcap_launcher import ROOT, wireshark_environment
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.installation import profile
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.urb import Completion, TransferType, Urb

pytestmark = [
    pytest.mark.wireshark,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]
DATA = ROOT / "usbip_capture/installation/wireshark_profile"
COLOURS = re.findall(r"^@(.+?)@(.+)@\[", (DATA / "colorfilters").read_text(), re.MULTILINE)
BUTTONS = [
    (label, filter_.replace("\\x22", '"'))
    for label, filter_ in re.findall(r'^"TRUE","(.+?)","(.+?)","', (DATA / "dfilter_buttons").read_text(), re.MULTILINE)
]
INFO = DeviceInfo("1-1", 1, 5, Speed.HIGH, 0x1209, 0x0001)
# How each completion ends, and the colour that it then has.
ENDS = [(0, "USB"), (-32, "URB stall"), (-104, "URB unlinked"), (-2, "URB unlinked"), (-71, "URB failed")]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With the profile in it, as it is installed."""
    environment = wireshark_environment(tmp_path)
    profile.install(tmp_path / ".config/wireshark/profiles" / profile.NAME)
    return environment


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """URBs that end in every way, then comments of ours."""
    path = tmp_path / "ends.pcapng"
    with PcapWriter(path) as writer:
        channel = writer.add_usb_interface(INFO, server="pi", product="Thing")
        urb = Urb(TransferType.BULK, 0x81, 64)
        for status, _ in ENDS:
            channel.completed(channel.submitted(urb), urb, Completion(status))
        for text in ("usbip-capture: device gone", "usbip-capture: descriptors read at the start"):
            channel.comment(text)
            channel.submitted(urb)
    return path


def tshark(environment: dict[str, str], *arguments: str) -> str:
    command = ["tshark", *arguments, "-C", profile.NAME]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    output = [line for line in done.stderr.splitlines() if "Running as user" not in line]
    assert (done.returncode, output) == (0, []), output
    return done.stdout


def test_columns(environment: dict[str, str], capture: Path) -> None:
    stalled = tshark(environment, "-r", str(capture), "-T", "tabs").splitlines()[3].split("\t")
    assert "usbip0" in stalled
    assert "-32" in stalled
    assert any(re.fullmatch(r"0\.\d{9}", cell) for cell in stalled), "no URB time"
    shown = tshark(environment, "-G", "currentprefs").partition("\ngui.column.format:")[2].partition("\n\n")[0]
    titles = ["No.", "Time", "Interface", "Source", "Destination", "Protocol", "Length"]
    assert re.findall(r'\t"(.+?)", ', shown) == [
        *titles, "URB status", "URB time", "Syslog app", "Info", "Data", "Comment",
    ]  # fmt: skip


def test_colours(environment: dict[str, str], capture: Path) -> None:
    arguments = ["-r", str(capture), "--color", "-T", "fields", "-e", "frame.coloring_rule.name"]
    used = tshark(environment, *arguments).splitlines()
    expected = [colour for _, end in ENDS for colour in ("USB", end)]
    assert used == [*expected, "USB/IP comment", "Descriptors read by us"]


def test_log_colours_and_columns(environment: dict[str, str], tmp_path: Path) -> None:
    hexdump = tmp_path / "log.txt"
    messages = [b"<131>1 2026-01-01T00:00:00Z pi wifi - - - lost", b"<132>late", b"<134>fine"]
    lines = ["0000 " + message.hex(" ") + "\n" for message in messages]
    hexdump.write_text("".join(lines))
    target = tmp_path / "log.pcapng"
    command = ["text2pcap", "-q", "-u", "514,514", str(hexdump), str(target)]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    arguments = ["-r", str(target), "--color", "-T", "fields", "-e", "frame.coloring_rule.name"]
    assert tshark(environment, *arguments).splitlines() == ["Log error", "Log warning", "Log"]
    assert "wifi" in tshark(environment, "-r", str(target), "-T", "tabs").splitlines()[0].split("\t")
    assert len(found(environment, target, dict(BUTTONS)["Errors"])) == 1
    assert len(found(environment, target, dict(BUTTONS)["Log"])) == 3


def found(environment: dict[str, str], path: Path, display_filter: str) -> list[int]:
    out = tshark(environment, "-r", str(path), "-Y", display_filter, "-T", "fields", "-e", "frame.number")
    return [int(line) for line in out.split()]


def test_each_filter_compiles(environment: dict[str, str], capture: Path) -> None:
    """All in one, as tshark takes long to start; its sentence shows which of them is wrong."""
    found(environment, capture, " or ".join(f"({display_filter})" for _, display_filter in COLOURS + BUTTONS))
    with pytest.raises(AssertionError, match=r"usb\.nonsense"):
        found(environment, capture, "(usb) or (usb.nonsense)")


def test_what_the_buttons_find(environment: dict[str, str], capture: Path) -> None:
    buttons = dict(BUTTONS)
    wanted = ["Errors", "Slow URBs", "HID", "Serial", "Storage", "Log", "Comments", "Marks", "No descriptors"]
    assert list(buttons) == wanted
    assert len(COLOURS) == 12
    assert found(environment, capture, buttons["Errors"]) == [4, 10]
    assert found(environment, capture, buttons["Comments"]) == [11]
    assert found(environment, capture, buttons["No descriptors"]) == list(range(1, 12))


def test_a_wrong_colour_would_be_reported(environment: dict[str, str], capture: Path, tmp_path: Path) -> None:
    """The tests above rely on it."""
    with (tmp_path / ".config/wireshark/profiles" / profile.NAME / "colorfilters").open("a") as file:
        file.write("@Wrong@usb..nonsense ==@[0,0,0][1,1,1]\n")
    with pytest.raises(AssertionError, match="Wrong"):
        tshark(environment, "-r", str(capture), "--color")
