"""Each error of the command line as a person meets it: one sentence, its exit code, no traceback."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.fakes.scripted_device import ScriptedDevice
from tests.fakes.scripted_server import ScriptedServer
from tests.oracles.pcapng_reader import read_capture
from tests.programs.commands import command_environment, run_line
from tests.waiting import wait_until
from usbip_capture.cli.main import main
from usbip_capture.demo.device import INFO, DemoDevice
from usbip_capture.errors import CaptureError
from usbip_capture.server import Server

VENDOR_IN = "--bm-request-type 0xc0 --b-request"
ON_THE_DEMO = {
    "probe demo --device 1-9": (4, "device 1-9 of demo cannot be imported: the server has no such device"),
    "probe demo --vid 0x1209 --pid 2": (4, "demo exports no device 1209:0002"),
    "probe demo --vid 1": (2, "--vid and --pid belong together"),
    "probe demo --device 1-1 --vid 1 --pid 1": (2, "use either --device, or --vid with --pid"),
    "probe demo --device x:y": (2, "is not a device: write a busid"),
    "probe": (2, "no server given"),
    "probe nohost.invalid": (3, "the name 'nohost.invalid' is not known"),
    "list 127.0.0.1:1": (3, "nothing listens on 127.0.0.1 port 1"),
    "list demo nohost.invalid": (3, "the name 'nohost.invalid' is not known"),
    f"control demo {VENDOR_IN} 0x77 --length 4": (6, "EPIPE (stall)"),
    f"control demo {VENDOR_IN} 1 --direction out": (2, "contradicts bmRequestType 0xc0"),
    f"control demo {VENDOR_IN} 1 --data-hex 01": (2, "--data-hex is for requests that send"),
    "control demo --bm-request-type 0x40 --b-request 1 --length 4": (2, "--length and --raw are for requests"),
    "control demo --bm-request-type 300 --b-request 1": (2, "--bm-request-type must be at most 255, not 300"),
    "read demo --ep 0x84 --timeout 0.05": (7, "no answer within 50 ms"),
    "read demo --ep 0x04": (2, "do you mean 0x84?"),
    "read demo --ep 0x83 --length 4194305": (2, "--length must be at most 4194304, not 4194305"),
    "read demo --ep 0x89": (6, "has no endpoint 0x89"),
    "read demo --ep 0": (2, "endpoint 0 takes control transfers"),
    "write demo --ep 0x84 --data-hex 01": (2, "do you mean 0x04?"),
    "write demo --ep 4 --file nothing": (1, "nothing cannot be read: No such file or directory"),
    "capture demo -o x.pcapng --filter 'bulk and'": (2, "--filter: at 9: something is missing here"),
    "capture demo -o x.pcapng -b files:3": (2, "files:NUMBER alone never begins another file"),
    "capture demo -o - -b packets:3": (2, "-b is for files"),
    "capture demo -o - --json": (2, "both want standard output"),
    "capture demo -o x.pcapng --snaplen 3": (2, "--snaplen must be 64 or more, not 3"),
    "capture demo -o nowhere/x.pcapng": (1, "there is no such folder"),
    "capture demo -o /dev/full --duration 1": (1, "the disk is full"),
    "capture demo --wireshark": (1, "there is no display"),
    "probe demo --pcap /dev/full": (1, "the disk is full"),
    "probe demo --pcap nowhere/x.pcapng": (1, "there is no such folder"),
    "list demo > /dev/full": (1, "the output cannot be written: No space left on device"),
    "probe demo --port 0": (2, "usbip-capture probe: --port: 0 is not a TCP port (1 to 65535)"),
    "list demo --pcap x.pcapng": (2, "--pcap captures how -v reads the devices: add -v"),
    "completion tcsh": (2, "'tcsh' is not a possible value: choose from bash, zsh, fish"),
    "list demo --jsn": (2, "usbip-capture list: --jsn is not an option: did you mean --json?"),
    "serial demo --bogus": (2, "usbip-capture serial: --bogus is not an option: see usbip-capture serial --help"),
    "capture demo --hots": (2, "usbip-capture capture: --hots is not an option: did you mean --host?"),
    "capture demo -o x.pcap": (2, "-o must not end with .pcap: captures are pcapng, as in x.pcapng"),
    "capture demo -o x.pcapng --count -1": (2, "--count must be 0 or more, not -1"),
    "read demo": (2, "usbip-capture read: --ep is missing"),
    "read demo --ep 0x83 --length 100000000000": (2, "--length must be at most 4194304, not 100000000000"),
    "read demo --ep 0x83 --count": (2, "--count needs a value"),
    "read demo --ep 0x83 --count 99999999999": (2, "--count must be at most 2147483647, not 99999999999"),
    "read demo --ep 0x84 --transfer-timeout 0.0005": (7, "no answer within 1 ms"),
    "read demo --ep 0x84 --timeout 1e15": (2, "--timeout must be at most 86400 seconds (a day), not 1e15"),
    "read demo --ep 0x83 --raw --json": (2, "use either --json or --raw, not both"),
    "read demo --ep 0x85": (6, "in its current settings: it is in alternate setting 1: --alternate 1"),
    "read demo --ep 0x83 --alternate 5": (6, "in alternate setting 5: it is in alternate setting 0: --alternate 0"),
    "write demo --ep 4 --alternate 7 --data-hex 01": (6, "it is in alternate setting 0: --alternate 0"),
    "read demo --ep 0x8f": (6, "it has 0x02, 0x04, 0x05 (--alternate 1), 0x81,"),
    "list demo --connect-timeout 1e15": (2, "--connect-timeout must be at most 86400 seconds (a day), not 1e15"),
    "list demo --connect-timeout 0": (2, "--connect-timeout must be more than 0 seconds, not 0"),
    "list 127.0.0.1:99999": (2, "99999 is not a TCP port (1 to 65535)"),
    "probe demo 1-1 --device 1-1": (2, "the device is given twice: '1-1' and --device 1-1"),
    "probe pi --host demo": (2, "the server is given twice: 'pi' and --host demo"),
    "probe demo 1-1 1-2": (2, "'1-2' is one argument too many"),
    "probe demo --serial-number X": (
        4,
        "no device of demo has the serial number X (or it is in use): 1-1 (1209:0001) has DEMO0001",
    ),
    "--host demo serial": (2, "must be a terminal: for programs, use --pty"),
    f"control demo {VENDOR_IN} 0x10": (2, "a request that reads needs a length: add --length BYTES"),
    "control 80 06 0100 0 18": (2, "HOST is missing: write it first, as in `usbip-capture control pi 80 06 0100 0 18`"),
    "control 80 06": (2, "HOST is missing: write it first"),
    "convert": (2, "usbip-capture convert: IN and OUT are missing"),
    "convert x.pcap": (2, "usbip-capture convert: OUT is missing"),
    "control demo": (2, "--bm-request-type is missing; or in short"),
    "control demo c0 77 0 0 4": (6, "the device does not support this request, or not with these values"),
    "control demo 80 06": (2, "REQUEST needs bmRequestType bRequest wValue wIndex"),
    "control demo 80 100 0 0 1": (2, "bRequest must be a hexadecimal number up to ff, not '100'"),
    "control demo 80 06 0100 0 18 1": (2, "'1' is one argument too many"),
    "control demo 80 06 0100 0 18 --length 1": (2, "use either REQUEST or --length, not both"),
    "control demo 40 10 0 0 x": (2, "the data must be two hexadecimal digits for each byte"),
    "syslog": (2, "usbip-capture syslog: give either HOST to connect to, or --listen"),
    "syslog demo --listen": (2, "give either HOST to connect to, or --listen"),
    "relay": (2, "name the server that has the devices, or --stop"),
}


#: One for each way to end early: the rest is run in this process, with warnings as errors, too.
AS_PROGRAMS = [
    "probe", "list 127.0.0.1:1", "probe demo --device 1-9", "read demo --ep 0x84 --timeout 0.05", "list demo --jsn",
    "capture demo -o /dev/full --duration 1", "list demo > /dev/full", "--host demo serial", "control 80 06",
]  # fmt: skip


@pytest.mark.parametrize("line", [line for line in ON_THE_DEMO if line not in AS_PROGRAMS])
def test_what_goes_wrong(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert_one_sentence(line, main(shlex.split(line)), capsys.readouterr().err)
    assert not (tmp_path / "x.pcapng").exists()


@pytest.mark.parametrize("line", AS_PROGRAMS)
def test_what_goes_wrong_with_a_program(line: str, tmp_path: Path) -> None:
    done = run_line(f"usbip-capture {line}", tmp_path)
    assert_one_sentence(line, done.returncode, done.stderr)
    assert not (tmp_path / "x.pcapng").exists()


def assert_one_sentence(line: str, returned: int, printed: str) -> None:
    """What it returned and printed as an error is what belongs to this line."""
    code, sentence = ON_THE_DEMO[line]
    assert (returned, sentence in printed) == (code, True), printed
    assert "Traceback" not in printed
    assert "Warning" not in printed
    assert "usage:" not in printed
    assert code != 2 or printed.count("\n") == 1


def test_no_permission_on_the_output(tmp_path: Path) -> None:
    (tmp_path / "x.pcapng").touch(0o400)
    as_anybody = "setpriv --bounding-set=-dac_override " if os.geteuid() == 0 else ""  # root may write everywhere
    done = run_line(f"{as_anybody}usbip-capture probe demo --pcap x.pcapng", tmp_path)
    assert (done.returncode, "permission denied" in done.stderr) == (1, True)


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    """Two devices of one kind."""
    made = Server()
    for busid in ("1-1", "1-2"):
        info = replace(INFO, busid=busid, devnum=int(busid[-1]))
        made.add(info, partial(DemoDevice, info))
    yield made, f"127.0.0.1:{made.listen('127.0.0.1', 0)[1]}"
    made.close()


def test_two_devices_match(server: tuple[Server, str], tmp_path: Path) -> None:
    for option in ("", "--device 1209:0001", "--vid 0x1209 --pid 1"):
        done = run_line(f"usbip-capture probe {server[1]} {option}", tmp_path)
        assert done.returncode == 4
        assert "name one by its busid: 1-1 (1209:0001), 1-2 (1209:0001)" in done.stderr


def test_a_device_that_is_in_use(server: tuple[Server, str], tmp_path: Path) -> None:
    with running(tmp_path, "read", server[1], "--device", "1-1", "--ep", "0x83", "--count", "0") as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline()
        done = run_line(f"usbip-capture probe {server[1]} --device 1-1", tmp_path)
        assert (done.returncode, "in use by another client" in done.stderr) == (5, True), done.stderr
        reader.send_signal(signal.SIGINT)
        assert reader.wait(20) == 0


def test_a_device_that_never_answers(tmp_path: Path) -> None:
    device = ScriptedDevice()
    device.descriptor = lambda value, raw: raw
    device.reads = lambda seqnum, imports: None
    with ScriptedServer(device) as scripted:
        line = f"usbip-capture read 127.0.0.1:{scripted.port} --device 1-1 --ep 0x83 --timeout 0.1"
        done = run_line(line, tmp_path)
    assert (done.returncode, "no answer within 100 ms" in done.stderr) == (7, True), done.stderr


def test_somebody_who_is_no_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = run_line(f"usbip-capture list 127.0.0.1:{silent.getsockname()[1]} --timeout 0.2", tmp_path)
    assert (done.returncode, "does not answer within 0.2 s" in done.stderr) == (3, True)


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        ["usbip-capture", *arguments], cwd=folder, stdout=pipe, stderr=pipe, text=True, env=_environment(folder)
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _environment(folder: Path) -> dict[str, str]:
    environment = command_environment(folder)
    os.environ["PATH"] = environment["PATH"]  # where Popen looks for the program
    return environment


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_capture_that_is_stopped_is_complete(number: int, tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    with running(tmp_path, "capture", "demo", "-o", "x.pcapng") as process:
        wait_until("packets", lambda: path.exists() and path.stat().st_size > 1000)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    (count,) = re.fullmatch(r"usbip-capture: (\d+) packets, 0 dropped, in x.pcapng\n", err).groups()  # type: ignore[union-attr]
    assert len(list(read_capture(path))) == int(count)


@pytest.mark.parametrize("arguments", [["discover"], ["list"]])
def test_ctrl_c_before_it_was_done(arguments: list[str], tmp_path: Path) -> None:
    with running(tmp_path, *arguments) as process:
        started = Path(f"/proc/{process.pid}/task")
        wait_until("threads", lambda: len(list(started.iterdir())) > 1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "")


def test_ctrl_c_within_a_transfer(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    with running(tmp_path, "read", "demo", "--ep", "0x84", "--timeout", "0", "--pcap", "x.pcapng") as process:
        # The last packet is the submit that nobody answers.
        wait_until("the transfer", lambda: path.exists() and _last_endpoint(path) == 0x84)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "")


def _last_endpoint(path: Path) -> int:
    try:
        records = list(read_capture(path))
    except CaptureError:  # it is being written
        return 0
    return records[-1].data[10] if records else 0


def test_a_reader_that_leaves(tmp_path: Path) -> None:
    done = run_line("usbip-capture capture demo -o - | head -c 100 | wc -c", tmp_path)
    assert done.stdout.strip() == "100"
    assert "Traceback" not in done.stderr
    done = run_line("usbip-capture list demo -v | head -n 1", tmp_path)
    assert (done.stdout, done.stderr) == ("demo:\n", "")


def test_a_named_pipe_gets_the_capture(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    done = run_line("usbip-capture capture demo -o pipe --count 30 --json", tmp_path)
    reader.join(20)
    assert done.returncode == 0
    assert json.loads(done.stdout)["packets"] == 30
    (tmp_path / "copy.pcapng").write_bytes(got[0])
    assert len(list(read_capture(tmp_path / "copy.pcapng"))) == 30


def test_the_live_view_as_lines(tmp_path: Path) -> None:
    done = run_line("usbip-capture capture demo -o x.pcapng --duration 1.5 --live", tmp_path)
    assert re.search(r"^usbip-capture: 1 s, \d+ packets, 0 dropped$", done.stderr, re.MULTILINE), done.stderr
    assert re.search(r"^1-1 +0x83 IN +\d+\.\d +\d\.\d{3} +0  success$", done.stderr, re.MULTILINE)
    assert "\x1b" not in done.stderr


def test_json_is_json(server: tuple[Server, str], tmp_path: Path) -> None:
    for line in ("list {} -v", "probe {} --device 1-1", "ports {}", "config", "discover --timeout 0.1",
                 "control {} --device 1-1 --bm-request-type 0x80 --b-request 8 --length 1",
                 "write {} --device 1-1 --ep 4 --data-hex 0102"):  # fmt: skip
        done = run_line(f"usbip-capture {line.format(server[1])} --json", tmp_path)
        assert done.returncode in (0, 1), done.stderr
        json.loads(done.stdout)


def test_names_are_remembered(server: tuple[Server, str], tmp_path: Path) -> None:
    assert "Generic pid.codes Test PID" in run_line(f"usbip-capture list {server[1]}", tmp_path).stdout
    assert run_line(f"usbip-capture probe {server[1]} --device 1-2", tmp_path).returncode == 0
    lines = run_line(f"usbip-capture list {server[1]}", tmp_path).stdout.splitlines()
    assert "Generic pid.codes Test PID" in lines[1]
    assert "Demo device" in lines[2]


def test_a_server_by_its_name(server: tuple[Server, str], tmp_path: Path) -> None:
    folder = tmp_path / "config/usbip-capture"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(f'[servers]\nbench = "{server[1]}"\n')
    assert run_line("usbip-capture list bench", tmp_path).returncode == 0
    listed = run_line("usbip-capture list --mdns-timeout 0.1", tmp_path)
    assert f"bench ({server[1]}):\n" in listed.stdout
    shown = run_line("usbip-capture config", tmp_path)
    assert shown.stdout == f"file: {folder}/config.toml\n  bench  {server[1]}\n"
    (folder / "config.toml").write_text("[servers]\nbench = 7\n")
    broken = run_line("usbip-capture config", tmp_path)
    assert (broken.returncode, "must be a string" in broken.stderr) == (1, True)


def test_a_transfer_of_all_kinds(tmp_path: Path) -> None:
    done = run_line("usbip-capture read demo --ep 0x85 --alternate 1 --timeout 1 --json", tmp_path)
    assert done.returncode == 0, done.stderr
    done = run_line("printf hello | usbip-capture write demo --ep 0x04 --file - --pcap w.pcapng", tmp_path)
    assert done.stdout == "5 bytes written\n"
    assert any(record.data.endswith(b"hello") for record in read_capture(tmp_path / "w.pcapng"))
    request = "--bm-request-type 128 --b-request 8 --length 1"
    done = run_line(f"usbip-capture control demo {request} --raw | od -An -tx1", tmp_path)
    assert done.stdout.strip() in ("00", "01")
