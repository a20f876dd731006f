"""The extcap under the real tshark: listed, asked, capturing, and every failure reported without a hang."""

from __future__ import annotations

import shutil
import socket
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.fakes.scripted_server import ScriptedServer, answer_import
from tests.programs.extcap_launcher import ROOT, render_launcher, wireshark_environment
from usbip_capture.demo.device import INFO, DemoDevice, DemoServer
from usbip_capture.server.exporter import Server

pytestmark = [
    pytest.mark.wireshark,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]
PREFIX = "extcap.usbip_remote."


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return wireshark_environment(tmp_path)


def tshark(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["tshark", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def capture(environment: dict[str, str], target: Path, stop: str, **preferences: object) -> str:
    """Capture until `stop`; what tshark printed on standard error."""
    options = [part for name, value in preferences.items() for part in ("-o", f"{PREFIX}{name}:{value}")]
    return tshark(environment, "-i", "usbip-remote", *options, "-a", stop, "-w", str(target)).stderr


def fields(environment: dict[str, str], target: Path, show: str, *names: str) -> list[list[str]]:
    wanted = [part for name in names for part in ("-e", name)]
    out = tshark(environment, "-2", "-r", str(target), "-Y", show, "-T", "fields", *wanted).stdout
    return [line.split("\t") for line in out.splitlines()]


def test_listed_with_no_noise(environment: dict[str, str]) -> None:
    shown = tshark(environment, "-D")
    assert "usbip-remote (USB/IP remote)" in shown.stdout
    assert "sentence" not in shown.stdout + shown.stderr.lower()


def test_link_type(environment: dict[str, str]) -> None:
    shown = tshark(environment, "-L", "-i", "usbip-remote")
    assert "USB_LINUX_MMAPPED" in shown.stdout + shown.stderr


def test_preferences_have_their_fixed_names(environment: dict[str, str]) -> None:
    shown = tshark(environment, "-G", "currentprefs").stdout
    names = [
        "host",
        "port",
        "device",
        "devices",
        "mode",
        "descriptors",
        "listenin",
        "snaplen",
        "duration",
        "count",
        "reconnect",
    ]
    for name in [*names, "loglevel", "logfile"]:
        assert f"{PREFIX}{name}:" in shown


def test_the_main_job(environment: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    capture(environment, target, "duration:2", host="demo")
    # One look at all of it: tshark takes long to start.
    names = (
        "frame.interface_name", "frame.interface_description", "frame.comment", "_ws.malformed", "usb.urb_type",
        "usb.request_in", "usb.transfer_type", "usb.idVendor", "usb.idProduct", "usb.bString", "usbhid.data",
    )  # fmt: skip
    rows = [dict(zip(names, row, strict=True)) for row in fields(environment, target, "usb || _ws.malformed", *names)]
    assert {row["frame.interface_name"] for row in rows} == {"usbip0"}
    assert {row["frame.interface_description"] for row in rows} == {"USB/IP demo 1-1 1209:0001 Demo device"}
    assert not any(row["_ws.malformed"] for row in rows)
    assert ("0x1209", "0x0001") in {(row["usb.idVendor"], row["usb.idProduct"]) for row in rows}
    assert "Demo device" in {row["usb.bString"] for row in rows}
    assert len([row for row in rows if row["usbhid.data"]]) >= 4
    assert {row["usb.transfer_type"] for row in rows if "descriptors" in row["frame.comment"]} == {"0x02"}
    assert all(row["usb.request_in"] for row in rows if row["usb.urb_type"] == "'C'")
    with_classes = tshark(environment, "-r", str(target), "-V", "-Y", "usb.bInterfaceClass").stdout
    for name in ("Communications and CDC Control (0x02)", "CDC-Data (0x0a)", "HID (0x03)"):
        assert f"bInterfaceClass: {name}" in with_classes


def test_packet_count(environment: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    capture(environment, target, "duration:20", host="demo", count=12)
    assert len(fields(environment, target, "frame", "frame.number")) == 12


def test_snapshot_length(environment: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    capture(environment, target, "duration:1", host="demo", snaplen=80, listenin="false")
    lengths = fields(environment, target, "frame", "frame.cap_len", "frame.len")
    assert max(int(captured) for captured, _ in lengths) == 80
    assert max(int(length) for _, length in lengths) == 64 + 146  # the configuration descriptor


def test_the_device_is_free_after_each_capture(environment: dict[str, str], tmp_path: Path) -> None:
    server = DemoServer()
    _, port = server.listen("127.0.0.1", 0)
    for _ in range(2):
        target = tmp_path / "out.pcapng"
        stderr = capture(environment, target, "packets:30", host="127.0.0.1", port=port, device="1209:0001")
        assert "Error" not in stderr
        assert len(fields(environment, target, "usb", "frame.number")) >= 30
    server.close()


def silence(sock: socket.socket) -> None:
    """Take the import and answer nothing ever after."""
    answer_import(sock)
    while sock.recv(4096):
        pass


FAILURES = {
    "no host": ({}, "--host"),
    "unknown host": ({"host": "no-such-host.invalid"}, "no-such-host.invalid"),
    "refused": ({"host": "127.0.0.1", "port": 1}, "port 1"),
    "unknown busid": ({"host": "demo", "device": "7-7"}, "1-1 (1209:0001)"),
    "wrong port": ({"host": "demo", "port": 70000}, "65535"),
}


@pytest.mark.parametrize(("preferences", "words"), FAILURES.values(), ids=FAILURES.keys())
def test_failures_end_with_a_sentence(
    environment: dict[str, str], tmp_path: Path, preferences: dict[str, object], words: str
) -> None:
    stderr = capture(environment, tmp_path / "out.pcapng", "duration:30", **preferences)
    (line,) = [line for line in stderr.splitlines() if "Error" in line]
    assert words in line
    assert "Traceback" not in stderr


def test_a_silent_device_does_not_hang_tshark(environment: dict[str, str], tmp_path: Path) -> None:
    with ScriptedServer(silence) as server:
        target = tmp_path / "out.pcapng"
        capture(environment, target, "duration:2", host="127.0.0.1", port=server.port, device="1-1")
    assert fields(environment, target, "usb", "usb.setup.bRequest")[0] == ["6"]


def test_a_filter_that_cannot_be_had(environment: dict[str, str], tmp_path: Path) -> None:
    target = str(tmp_path / "out.pcapng")
    options = ["-o", f"{PREFIX}host:demo", "-f", "junk", "-a", "duration:20", "-w", target]
    assert "capture filter" in tshark(environment, "-i", "usbip-remote", *options).stderr


def test_a_library_that_does_not_load_does_not_hang_tshark(environment: dict[str, str], tmp_path: Path) -> None:
    library = tmp_path / "library"
    shutil.copytree(ROOT / "usbip_capture", library / "usbip_capture", ignore=shutil.ignore_patterns("__pycache__"))
    (library / "usbip_capture/extcap/capture.py").write_text("import no_such_module\n")
    for folder in (".config/wireshark/extcap", ".local/lib/wireshark/extcap"):
        render_launcher(tmp_path / folder, library)
    # tshark shows the sentence only if it is there already when tshark looks, now and then it is not.
    shown = (capture(environment, tmp_path / f"{turn}.pcapng", "duration:20", host="demo") for turn in range(8))
    assert any("no_such_module" in stderr for stderr in shown)


@pytest.mark.parametrize("where", ["usbip-remote", "usbip-pi"])
def test_several_devices_by_a_preference(where: str, environment: dict[str, str], tmp_path: Path) -> None:
    server = Server()
    for number in (1, 2, 3):
        info = replace(INFO, busid=f"1-{number}", devnum=10 + number)
        server.add(info, partial(DemoDevice, info))
    _, port = server.listen("127.0.0.1", 0)
    environment["USBIP_CAPTURE_SERVERS"] = f"pi=127.0.0.1:{port}"
    module, target = f"extcap.{where.replace('-', '_')}.", tmp_path / "out.pcapng"
    host = ["-o", f"{module}host:127.0.0.1", "-o", f"{module}port:{port}"] if where == "usbip-remote" else []
    chosen = ["-o", f"{module}devices:1-3,1-1"]
    done = tshark(environment, "-i", where, *host, *chosen, "-a", "duration:2", "-w", str(target))
    server.close()
    assert target.exists(), done.stderr
    names = fields(environment, target, "usb", "frame.interface_description")
    assert sorted({row[0].split()[2] for row in names}) == ["1-1", "1-3"]
