"""`-` means the same for every command: standard output is for the capture or the page alone, text goes beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.oracles.pcapng_reader import read_capture
from tests.programs.commands import run_line

CONTROL = "control demo --bm-request-type 0x80 --b-request 6 --w-value 0x100 --length 18"
TO_STANDARD_OUTPUT = {
    "probe demo --pcap -": "VID:PID",
    f"{CONTROL} --pcap -": "00000000  12 01",
    "read demo --ep 0x83 --pcap -": "00000000  ",
    "write demo --ep 4 --text hello --pcap -": "5 bytes written",
    "write demo --ep 4 --text h --pcap -": "1 byte written",
    "list demo -v --pcap -": "Device Descriptor:",
    "ports demo --pcap -": "usbip://demo/1-1",
    "selftest demo --pcap -": "checks, 0 wrong",
    "capture demo --count 10 -o -": "10 packets",
}


@pytest.mark.parametrize("line", TO_STANDARD_OUTPUT)
def test_a_capture_on_standard_output(line: str, tmp_path: Path) -> None:
    done = run_line(f"usbip-capture {line} > out.pcapng", tmp_path)
    assert done.returncode == 0, done.stderr
    assert TO_STANDARD_OUTPUT[line] in done.stderr
    assert len(list(read_capture(tmp_path / "out.pcapng"))) > 2
    assert not (tmp_path / "-").exists()


@pytest.mark.parametrize(
    "line",
    [
        "probe demo --json --pcap -",
        f"{CONTROL} --raw --pcap -",
        "read demo --ep 0x83 --json --pcap -",
        "read demo --ep 0x83 --raw --pcap -",
        "write demo --ep 4 --text hello --json --pcap -",
        "list demo -v --json --pcap -",
        "ports demo --json --pcap -",
        "selftest demo --json --pcap -",
        "syslog demo --json --pcap -",
        "capture demo --json --count 3 -o -",
        "stats demo.pcapng --json --html -",
    ],
)
def test_two_that_want_standard_output(line: str, tmp_path: Path) -> None:
    done = run_line(f"usbip-capture {line}", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "both want standard output: leave one of them out" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_page_on_standard_output(tmp_path: Path) -> None:
    if shutil.which("head") is None:
        pytest.skip("a reader that ends early is needed")
    assert run_line("usbip-capture capture demo -o x.pcapng --count 60", tmp_path).returncode == 0
    done = run_line("usbip-capture stats x.pcapng --html -", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<!DOCTYPE html>")
    assert done.stdout.rstrip().endswith("</html>")
    assert "device 1-1" in done.stderr or "usbip0" in done.stderr
    assert not (tmp_path / "-").exists()


def test_the_program_of_use_has_standard_output_for_itself(tmp_path: Path) -> None:
    done = run_line("usbip-capture use demo --pcap - -- python3 -c 'import usb.core'", tmp_path)
    assert (done.returncode, "standard output is not for the capture here" in done.stderr) == (1, True)
