"""Our statistics against tshark's view of the same captures, and captures that Wireshark's programs have converted."""

from __future__ import annotations

import collections
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.builders.capture_files import Shown, classic, read_classic, usbpcap, without_padding
from usbip_capture.report.measure import measure
from usbip_capture.report.text import text_report
from usbip_capture.usb.urb import DIR_IN

pytestmark = [
    pytest.mark.wireshark,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]

# Drag over a part of the first plot, then click the first line of the log.
DRAG = """
const over = document.querySelector(".u-over"), box = over.getBoundingClientRect();
const mouse = (type, part) => over.dispatchEvent(new MouseEvent(type, {
  clientX: box.left + part * box.width, clientY: box.top + 60, bubbles: true, button: 0, movementX: 3, movementY: 1,
}));
setTimeout(() => {
  for (const type of ["mousemove", "mousedown"]) mouse(type, 0.5);
  for (const type of ["mousemove", "mouseup"]) mouse(type, 0.8);
  document.querySelector("#lines div").click();
}, 500);
"""
GOLDEN = Path(__file__).parents[1] / "unit" / "report" / "golden"
CASES = sorted(path.parent for path in GOLDEN.glob("*/capture.pcap"))


def tshark(*arguments: str | Path) -> str:
    done = subprocess.run(["tshark", *arguments], check=True, capture_output=True, text=True, timeout=120)
    return done.stdout


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_counts_bytes_and_times_are_those_of_tshark(case: Path) -> None:
    names = ("usb.urb_type", "usb.bus_id", "usb.device_address", "usb.endpoint_address", "usb.transfer_type",
             "usb.urb_len", "usb.urb_status", "usb.time")  # fmt: skip
    fields = [part for name in names for part in ("-e", name)]
    rows = tshark("-2", "-r", case / "capture.pcap", "-T", "fields", *fields).splitlines()
    expected: dict[tuple[int, ...], list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    longest: dict[tuple[int, ...], float] = collections.defaultdict(float)
    for row in rows:
        kind, bus, device, address, transfer, length, status, took = row.split("\t")
        if kind.strip("'") == "S":
            continue
        key = int(bus), int(device), int(transfer, 0), int(address, 0)
        found = expected[key]
        found[0] += 1
        found[1] += int(length)
        found[2] += int(status) not in (0, -2, -104)
        if int(status) not in (-2, -104, -108) and took:
            longest[key] = max(longest[key], float(took))
    (totals,) = measure(case / "capture.pcap").statistics.interfaces.values()
    ours = {
        (e.device.busnum, e.device.devnum, e.transfer_type, e.address): [e.urbs - e.unfinished, e.bytes, e.errors]
        for e in totals.endpoints.values()
    }
    assert ours == expected
    for endpoint in totals.endpoints.values():
        key = endpoint.device.busnum, endpoint.device.devnum, endpoint.transfer_type, endpoint.address
        assert endpoint.times.maximum == pytest.approx(longest[key] * 1e9, abs=1000)


@pytest.mark.parametrize("form", ["pcapng", "nsecpcap", "pcap", "pcapng.gz"])
def test_what_editcap_has_converted_gives_the_same(form: str, tmp_path: Path) -> None:
    if shutil.which("editcap") is None:
        pytest.skip("editcap is not installed")
    source, target = CASES[0] / "capture.pcap", tmp_path / "converted"
    kind, _, packed = form.partition(".")
    subprocess.run(["editcap", "-F", kind, source, target], check=True, capture_output=True)
    if packed:
        subprocess.run(["gzip", target], check=True)
        target = target.with_name("converted.gz")
    lines = text_report(measure(target).statistics)
    assert lines[1:] == (CASES[0] / "expected.txt").read_text().splitlines()[1:]


def test_what_tshark_has_written_and_merged_gives_the_same(tmp_path: Path) -> None:
    """Two sections' interfaces in one file, of which tshark writes one each."""
    for case in CASES:
        tshark("-r", case / "capture.pcap", "-w", tmp_path / f"{case.name}.pcapng")
    both = tmp_path / "both.pcapng"
    both.write_bytes(b"".join((tmp_path / f"{case.name}.pcapng").read_bytes() for case in CASES))
    expected = [line for case in CASES for line in (case / "expected.txt").read_text().splitlines()]
    lines = text_report(measure(both).statistics)
    assert [line for line in lines if line.startswith("  ")] == [line for line in expected if line.startswith("  ")]


@pytest.mark.parametrize(("link_type", "change"), [(189, without_padding), (249, usbpcap)], ids=["189", "249"])
def test_tshark_takes_our_other_link_types_for_what_they_are(link_type: int, change: object, tmp_path: Path) -> None:
    """So that the tests of reading them stand on captures that are right."""
    assert callable(change)
    path = tmp_path / "capture.pcap"
    packets = read_classic((GOLDEN / "serial" / "capture.pcap").read_bytes())
    path.write_bytes(classic([Shown(p.timestamp_ns, change(p.data)) for p in packets], link_type))
    assert tshark("-2", "-r", path, "-Y", "_ws.malformed") == ""
    fields = ("-e", "usb.device_address", "-e", "usb.endpoint_address", "-e", "usb.data_len")
    rows = tshark("-r", path, "-Y", "usb.transfer_type == 3", "-T", "fields", *fields).splitlines()
    seen = [[int(number or "0", 0) for number in row.split("\t")] for row in rows]
    (totals,) = measure(path).statistics.interfaces.values()
    bulk = [e for e in totals.endpoints.values() if e.transfer_type == 3]
    assert {(e.device.devnum, e.address) for e in bulk} == {(row[0], row[1]) for row in seen}
    moved_in = sum(e.bytes for e in bulk if e.address & DIR_IN)
    assert moved_in == sum(row[2] for row in seen if row[1] & DIR_IN)


def test_a_browser_draws_the_page(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("chromium is not installed")
    from usbip_capture.report.html import html_page

    page = tmp_path / "page.html"
    text = html_page(measure(GOLDEN / "serial" / "capture.pcap"))
    page.write_text(text.replace("</body>", f"<script>{DRAG}</script></body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--enable-logging=stderr"]
    command = [browser, *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert not re.findall(r"CONSOLE.*", done.stderr)
    assert done.stdout.count("<canvas") == 5
    assert re.search(r'<section id="time-line">', done.stdout)
    assert done.stdout.count("EPIPE (stall)") >= 3
    # Before the drag it shows all, and the button has nothing to do.
    button = re.search(r'<button id="whole"[^>]*>', done.stdout)
    assert button is not None
    assert "disabled" not in button[0]
    assert re.search(r'<span id="moment">\+\d\.\d{6} s', done.stdout)
