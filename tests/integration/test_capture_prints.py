"""`usbip-capture capture` without -o: a line for each packet, as usbmon's text form has it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.oracles.pcapng_reader import CapturedInterface, read_capture, read_items
from tests.programs.commands import command_environment, run_line
from tests.programs.terminal_emulator import Terminal
from usbip_capture.demo.device import INFO, DemoDevice
from usbip_capture.server import Server

# Ref: Linux Documentation/admin-guide/usb/usbmon.rst, Raw text data format
LINE = re.compile(
    r"\d\d:\d\d:\d\d\.\d{6} [0-9a-f]+ \d+ ([SCE]) ([CZIB][io]):(\d+):(\d{3}):(\d+) "
    r"(s( [0-9a-f]{2}){2}( [0-9a-f]{4}){3}|"
    r"-?\d+(:\d+)*) \d+( [<>]| = [0-9a-f]{2,8}( [0-9a-f]{2,8})*)?"
)


def test_a_line_for_each_packet(tmp_path: Path) -> None:
    done = run_line("usbip-capture capture demo --count 40", tmp_path)
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (0, 40)
    assert all(LINE.fullmatch(line) for line in lines), done.stdout
    assert lines[0].endswith(" S Ci:1:002:0 s 80 06 0100 0000 0012 18 <")
    assert lines[1].endswith(" C Ci:1:002:0 0 18 = 12011002 ef020140 09120100 00010102 0301")
    assert done.stderr == "usbip-capture: 40 packets, 0 dropped\n"


def test_with_a_filter_and_quiet(tmp_path: Path) -> None:
    done = run_line("usbip-capture capture demo --filter 'interrupt and in' --count 6 -q", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 6
    assert {found[2] for line in done.stdout.splitlines() if (found := LINE.fullmatch(line))} == {"Ii"}


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    done = run_line("usbip-capture capture demo -q | head -n 3", tmp_path)
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 3, "")


def test_several_devices(tmp_path: Path) -> None:
    server = Server()
    for number in (1, 2):
        info = replace(INFO, busid=f"1-{number}", devnum=number)
        server.add(info, partial(DemoDevice, info))
    try:
        where = f"127.0.0.1:{server.listen('127.0.0.1', 0)[1]}"
        done = run_line(f"usbip-capture capture {where} --device all --count 200 -q", tmp_path)
    finally:
        server.close()
    assert done.returncode == 0, done.stderr
    assert {found[4] for line in done.stdout.splitlines() if (found := LINE.fullmatch(line))} == {"001", "002"}


def test_until_ctrl_c(tmp_path: Path) -> None:
    command = ["usbip-capture", "capture", "demo"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=command_environment(tmp_path), stdout=pipe, stderr=pipe, text=True, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert LINE.fullmatch(process.stdout.readline().rstrip())
        process.send_signal(signal.SIGINT)
        rest, output = process.communicate(timeout=30)
    assert process.returncode == 0
    assert all(LINE.fullmatch(line) for line in rest.splitlines())
    assert re.fullmatch(r"usbip-capture: \d+ packets, 0 dropped\n", output)


def test_on_a_terminal_without_the_live_view(tmp_path: Path) -> None:
    terminal = Terminal(200)
    assert terminal.run("usbip-capture capture demo --count 30 --duration 5 --live", tmp_path) == 0
    assert sum(bool(LINE.fullmatch(line)) for line in terminal.text) == 30
    assert not [line for line in terminal.text if "last status" in line]


def test_what_goes_with_it(tmp_path: Path) -> None:
    done = run_line("usbip-capture capture demo --json --count 4", tmp_path)
    assert (done.returncode, "name a file with -o" in done.stderr, done.stdout) == (2, True, "")
    done = run_line("usbip-capture capture demo -b packets:3 --count 4", tmp_path)
    assert (done.returncode, "-b is for files" in done.stderr, done.stdout) == (2, True, "")


def test_the_summary_counts_what_is_in_the_file(tmp_path: Path) -> None:
    for limit in (1, 10, 37):
        done = run_line(f"usbip-capture capture demo --count {limit} --json -o x.pcapng", tmp_path)
        summary = json.loads(done.stdout)
        completed = [r.usb for r in read_capture(tmp_path / "x.pcapng") if r.usb and r.usb.type == ord("C")]
        assert (summary["packets"], summary["urbs"]) == (limit, len(completed))
        assert summary["bytes"] == sum(event.length for event in completed)


def test_interfaces_are_numbered_in_the_order_of_the_list(tmp_path: Path) -> None:
    server = Server()
    busids = ["2-1", "1-1", "2-3", "1-2", "1-10"]
    for number, busid in enumerate(busids):
        info = replace(INFO, busid=busid, devnum=number + 1)
        server.add(info, partial(DemoDevice, info))
    try:
        where = f"127.0.0.1:{server.listen('127.0.0.1', 0)[1]}"
        for turn in range(3):
            done = run_line(f"usbip-capture capture {where} --device all --count 100 -o {turn}.pcapng", tmp_path)
            assert done.returncode == 0, done.stderr
    finally:
        server.close()
    for turn in range(3):
        found = [item for item in read_items(tmp_path / f"{turn}.pcapng") if isinstance(item, CapturedInterface)]
        described = [(interface.name, interface.description.split()[2]) for interface in found]
        assert described == [(f"usbip{at}", busid) for at, busid in enumerate(["1-1", "1-2", "1-10", "2-1", "2-3"])]
