"""`usbip-capture use`: unmodified PyUSB programs on a server's devices."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import usb

from tests.fakes.loopback_device import LoopbackServer, loopback_server
from tests.oracles.pcapng_reader import read_capture
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
PROGRAM = """\
import sys
import usb.core
import usb.util
dev = usb.core.find(idVendor=0x1209)
print(dev.write(0x04, b"hello"), bytes(dev.read(0x84, 64)), sys.argv[1:])
sys.exit(3)
"""
LEGACY = """\
import usb
print([d.idProduct for bus in usb.busses() for d in bus.devices])
"""
SUBPROCESS = """\
import subprocess, sys
import usb.core
usb.core.find()
import usb.backend.libusb1
usb.backend.libusb1.get_backend().close()
subprocess.run([sys.executable, "other.py"])
"""


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with loopback_server() as opened:
        yield opened


def use(
    server: LoopbackServer, folder: Path, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "usbip_capture.cli.main", "use", "127.0.0.1", "--port", str(server.port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def written(folder: Path, text: str, name: str = "program.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("how", ["file", "interpreter", "executable", "module"])
def test_a_program_runs_with_its_arguments_and_status(server: LoopbackServer, tmp_path: Path, how: str) -> None:
    path = written(tmp_path, PROGRAM)
    program = {"file": ["program.py"], "interpreter": [sys.executable, "program.py"], "module": ["-m", "program"]}
    if how == "executable":
        path.write_text(f"#!{sys.executable}\n{PROGRAM}")
        path.chmod(0o755)
        program["executable"] = ["./program.py"]
    done = use(server, tmp_path, "--", *program[how], "--option", "--", "x")
    assert done.stdout == "5 b'hello' ['--option', '--', 'x']\n", done.stderr
    assert done.returncode == 3


def test_all_is_captured(server: LoopbackServer, tmp_path: Path) -> None:
    written(tmp_path, PROGRAM)
    done = use(server, tmp_path, "--pcap", "out.pcapng", "--", "program.py")
    assert done.returncode == 3, done.stderr
    assert any(packet.data.endswith(b"hello") for packet in read_capture(tmp_path / "out.pcapng"))


def test_the_old_api(server: LoopbackServer, tmp_path: Path) -> None:
    written(tmp_path, LEGACY)
    assert use(server, tmp_path, "--", "program.py").stdout == "[1]\n"
    assert use(server, tmp_path, "--device", "1-9,1-1", "--", "program.py").stdout == "[1]\n"
    done = use(server, tmp_path, "--device", "1-9", "--", "program.py")
    assert done.stdout == "[]\n"
    assert "exports no 1-9 now (or it is in use), but 1-1 (1209:0001)" in done.stderr


def test_further_processes_capture_beside_the_first(server: LoopbackServer, tmp_path: Path) -> None:
    written(tmp_path, PROGRAM, "other.py")
    written(tmp_path, SUBPROCESS)
    done = use(server, tmp_path, "--pcap", "out.pcapng", "--", "program.py")
    assert "b'hello'" in done.stdout, done.stderr
    names = sorted(path.name for path in tmp_path.glob("*.pcapng"))
    assert len(names) == 2
    assert re.fullmatch(r"out-\d+\.pcapng", names[0])


def test_the_program_s_own_sitecustomize_still_runs(server: LoopbackServer, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    written(tmp_path / "site", "print('customized')", "sitecustomize.py")
    written(tmp_path, PROGRAM)
    done = use(server, tmp_path, "--", "program.py", env={"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path / 'site'}"})
    assert "customized\n5 b'hello'" in done.stdout


def test_a_program_of_a_python_that_has_pyusb_and_not_our_package(server: LoopbackServer, tmp_path: Path) -> None:
    """As after install.py, which keeps the package in an environment of its own. Only the package itself is added:
    its rooms (`usb`, `wire`) are no modules of the program."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "usb").symlink_to(Path(str(usb.__file__)).parent)
    written(
        tmp_path,
        f"import importlib.util\n{PROGRAM.replace('sys.exit(3)', '')}print(importlib.util.find_spec('wire'))\n",
    )
    start = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom usbip_capture.cli.main import main\nsys.exit(main())"
    interpreter = getattr(sys, "_base_executable", sys.executable)
    done = subprocess.run(
        [sys.executable, "-c", start, "use", f"127.0.0.1:{server.port}", "--", interpreter, "program.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "5 b'hello' []\nNone\n"), done.stderr


def test_what_cannot_be(server: LoopbackServer, tmp_path: Path) -> None:
    written(tmp_path, PROGRAM)
    for code, arguments, sentence in (
        (2, (), "no program given"),
        (2, ("program.py", "--verbose"), "no program given: write it after --"),
        (2, ("--nonsense", "--", "program.py"), "usbip-capture use: --nonsense is not an option"),
        (1, ("--pcap", "nowhere/x.pcapng", "--", "program.py"), "there is no such folder"),
        (1, ("--pcap", ".", "--", "program.py"), "it is a folder"),
        (1, ("--pcap", "-", "--", "program.py"), "standard output is not for the capture here"),
        (1, ("--", "no-such-program"), "there is no program 'no-such-program'"),
        (2, ("--device", "zzzz:1", "--", "program.py"), "is not a device"),
        (2, ("--timeout", "-1", "--", "program.py"), "--timeout must be 0 seconds or more, not -1"),
        (2, ("--reconnect", "-1", "--", "program.py"), "--reconnect must be 0 seconds or more, not -1"),
    ):
        done = use(server, tmp_path, *arguments)
        assert (done.returncode, sentence in done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["program.py"]
    server.server.close()
    done = use(server, tmp_path, "--", "program.py")
    assert done.returncode == 1
    assert "nothing listens on 127.0.0.1" in done.stderr


def test_a_program_that_does_not_use_pyusb_is_reported(server: LoopbackServer, tmp_path: Path) -> None:
    written(tmp_path, "print('nothing')")
    done = use(server, tmp_path, "--", "program.py")
    assert (done.returncode, done.stdout) == (0, "nothing\n")
    assert "has not asked PyUSB" in done.stderr


def test_interrupted_the_program_ends_as_it_likes(server: LoopbackServer, tmp_path: Path) -> None:
    text = "import time, usb.core\nusb.core.find()\ntry:\n open('ready', 'w').close()\n time.sleep(60)\n"
    written(tmp_path, text + "except KeyboardInterrupt:\n raise SystemExit(7)\n")
    command = [sys.executable, "-m", "usbip_capture.cli.main", "use", f"127.0.0.1:{server.port}", "--", "program.py"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True
    )
    try:
        wait_until("the program runs", (tmp_path / "ready").exists)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 7
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_kill_ends_the_program_as_ctrl_c_does(server: LoopbackServer, tmp_path: Path, number: signal.Signals) -> None:
    text = "import time, usb.core\nusb.core.find()\ntry:\n open('ready', 'w').close()\n time.sleep(60)\n"
    written(tmp_path, text + "except KeyboardInterrupt:\n open('ended', 'w').close()\n raise\n")
    command = [sys.executable, "-m", "usbip_capture.cli.main", "use", f"127.0.0.1:{server.port}", "--", "program.py"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until("the program runs", (tmp_path / "ready").exists)
        process.send_signal(number)  # to ours alone, as `kill` does
        assert process.wait(20) == 128 + number
        assert (tmp_path / "ended").exists()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_the_log_goes_into_the_capture(tmp_path: Path) -> None:
    program = written(tmp_path, "import usb.core\nusb.core.find().set_configuration(1)\n")
    command = [sys.executable, "-m", "usbip_capture.cli.main", "use", "demo", "--pcap", "x.pcapng", "--syslog"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [*command, "--", str(program)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "[syslog] " in result.stderr
    names = {record.interface.name for record in read_capture(tmp_path / "x.pcapng")}
    assert names == {"usbip0", "syslog0"}
