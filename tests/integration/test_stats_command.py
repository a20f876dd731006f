"""`usbip-capture stats` as a program: its input, its output, its exit status, and one sentence when it fails."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "unit" / "report" / "golden" / "serial"
CAPTURE = GOLDEN / "capture.pcap"
RAW = CAPTURE.read_bytes()
EXPECTED = (GOLDEN / "expected.txt").read_text()
COMMAND = [sys.executable, "-W", "error", "-m", "usbip_capture.cli.main", "stats"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "COLUMNS": "100"}


def stats(
    *arguments: str | bytes | Path, given: bytes | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, *arguments]
    env = {**ENVIRONMENT, **environment}
    return subprocess.run(command, input=given, capture_output=True, env=env, check=False, timeout=60)


def failed(done: subprocess.CompletedProcess[bytes]) -> str:
    """The sentence of a failure."""
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("usbip-capture: ")
    return line.removeprefix("usbip-capture: ")


def test_a_file() -> None:
    done = stats(CAPTURE)
    assert (done.returncode, done.stderr) == (0, b"")
    table, _, plot = done.stdout.decode().partition("\nthroughput over time\n")
    assert table == EXPECTED
    assert "5.2 0x81 bulk IN: mean" in plot
    assert plot.splitlines()[-1].split()[-2:] == ["2.34", "s"]
    assert max(map(len, plot.splitlines())) <= 100
    assert "\x1b" not in plot


def test_for_scripts() -> None:
    done = stats("--json", CAPTURE)
    assert (done.returncode, done.stderr) == (0, b"")
    found = json.loads(done.stdout)
    (interface,) = found["interfaces"]
    endpoints = {(e["address"], e["type"]): e for d in interface["devices"] for e in d["endpoints"]}
    bulk = endpoints[0x81, "bulk"]
    row = next(line.split() for line in EXPECTED.splitlines() if "0x81 bulk IN" in line)
    assert [str(bulk["urbs"]), str(bulk["bytes"])] == [word for word in row if word.isdecimal()][:2]
    times = bulk["completion_times"]
    assert 0 < times["min"] <= times["median"] <= times["p99"] <= times["max"] < 10
    assert found["problem"] is None


def test_scripts_learn_what_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(RAW[:-5])
    done = stats("--json", tmp_path / "x")
    assert done.returncode == 1
    assert json.loads(done.stdout)["problem"] in failed(done)


@pytest.mark.parametrize("raw", [RAW, gzip.compress(RAW)], ids=["plain", "gzip"])
def test_standard_input(raw: bytes) -> None:
    assert stats("-", given=raw).stdout.decode().startswith(EXPECTED)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")
def test_a_live_pipe_until_ctrl_c() -> None:
    with subprocess.Popen(
        [*COMMAND, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(RAW)
        process.stdin.flush()
        pipe = process.stdin.fileno()
        wait_until("it waits for more", lambda: _is_empty(pipe) and _sleeps(process.pid))
        process.send_signal(signal.SIGINT)
        out = process.stdout.read().decode()
        assert process.wait(20) == 0
    assert out.startswith(EXPECTED)


def _is_empty(pipe: int) -> bool:
    return fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)) == bytes(4)


def _sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_a_capture_that_is_cut_off(tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(RAW[:-40])
    done = stats(cut)
    where = f"at byte {len(RAW) - 40}, in the middle of a packet"
    assert failed(done) == f"{cut} is cut off {where}; what was readable is shown"
    assert done.stdout.decode().startswith("capture: usbmon\n  172 packets")


def test_names_that_have_no_encoding(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.pcap"
    Path(os.fsdecode(name)).write_bytes(b"GIF89a")
    assert '/caf\\xe9.pcap is not a capture, it begins with "GIF8"' in failed(stats(name))
    Path(os.fsdecode(name)).write_bytes(RAW)
    page = os.fsencode(tmp_path) + b"/caf\xe9.html"
    done = stats(name, "--html", page)
    assert done.returncode == 0
    assert done.stdout.decode().splitlines()[-1].endswith("/caf\\xe9.html")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_outputs_that_cannot_show_everything(encoding: str) -> None:
    done = stats(CAPTURE, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(encoding)
    assert ("30.1 us" if encoding == "ascii" else "30.1 µs") in text
    assert "throughput" not in text


def test_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = stats(CAPTURE, "--html", page, "--filter", "bulk")
    assert done.stdout.decode().splitlines()[-1] == f"the page is {page}"
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "5.2 0x81 bulk IN" in text
    assert "control OUT" not in text.partition('id="data">')[2].partition("</script>")[0]


def test_pages_that_cannot_be_written(tmp_path: Path) -> None:
    assert failed(stats(CAPTURE, "--html", tmp_path)) == f"the page {tmp_path} cannot be written: Is a directory"
    copy = tmp_path / "copy.pcap"
    copy.write_bytes(RAW)
    assert "names the capture itself" in failed(stats(copy, "--html", copy))
    assert copy.read_bytes() == RAW


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*COMMAND, CAPTURE], stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT, check=False)
    assert failed(done) == "the output cannot be written: No space left on device"
    assert "the page /dev/full cannot be written: No space left" in failed(stats(CAPTURE, "--html", "/dev/full"))


def test_nobody_reads_the_output() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, CAPTURE], stdout=write, stderr=subprocess.PIPE, env=ENVIRONMENT, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_filter_that_cannot_be_understood() -> None:
    done = stats(CAPTURE, "--filter", "bulk and")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"usbip-capture stats: --filter: at 9: something is missing here\n"
