"""`usbip-capture replay`, `compare` and the host `replay:FILE`, as they are typed."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import usb.core

from tests.programs.commands import command_environment, run_line
from usbip_capture.cli.main import main
from usbip_capture.demo.device import DemoServer
from usbip_capture.pyusb_backend import UsbipBackend, get_backend

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session with the demo device: a value is stored and read."""
    path = tmp_path_factory.mktemp("recorded") / "session.pcapng"
    server = DemoServer()
    try:
        backend = get_backend(*server.listen("127.0.0.1", 0), pcap=path)
        store(backend, b"hello")
        backend.close()
    finally:
        server.close()
    return path


def store(backend: UsbipBackend, data: bytes) -> bytes:
    device = usb.core.find(backend=backend)
    assert device is not None
    assert device.product == "Demo device"
    device.set_configuration()
    device.ctrl_transfer(0x40, 0x10, 0, 0, data)
    return bytes(device.ctrl_transfer(0xC0, 0x10, 0, 0, 64))


@pytest.fixture
def serving(recorded: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = ["usbip-capture", "replay", str(recorded), "--listen", "127.0.0.1:0", "--report", "report.json"]
    environment = command_environment(tmp_path)
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        while not line.startswith("Serving at "):
            assert line, "it has ended"
            line = process.stdout.readline()
        yield process, int(line.split("Serving at 127.0.0.1:")[1].split(",")[0])
        process.kill()


def test_the_same_again(serving: tuple[subprocess.Popen[str], int], tmp_path: Path) -> None:
    process, port = serving
    backend = get_backend("127.0.0.1", port)
    assert store(backend, b"hello") == b"hello"
    backend.close()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "2 requests answered, 0 of them again, 0 never asked" in output
    (session,) = json.loads((tmp_path / "report.json").read_text())["sessions"]
    assert (session["asked"], session["divergences"], session["unused"]) == (2, [], [])


def test_something_else(serving: tuple[subprocess.Popen[str], int], tmp_path: Path) -> None:
    process, port = serving
    backend = get_backend("127.0.0.1", port)
    with pytest.raises(usb.core.USBError):
        store(backend, b"hullo")
    backend.close()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "5 bytes: 68 75 6c 6c 6f; expected: control 0x40 0x10" in output
    (session,) = json.loads((tmp_path / "report.json").read_text())["sessions"]
    assert session["divergences"][0]["number"] > 0


def test_as_a_host(recorded: Path, tmp_path: Path) -> None:
    done = run_line(f"usbip-capture list replay:{recorded} -v", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "iProduct                2 Demo device" in done.stdout
    backend = get_backend(f"replay:{recorded}", pcap=tmp_path / "again.pcapng")
    assert store(backend, b"hello") == b"hello"
    backend.close()
    done = run_line(f"usbip-capture compare {recorded} again.pcapng", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1-1 (1209:0001): equal: " in done.stdout


@pytest.mark.parametrize("name", ["missing.pcapng", "empty.pcapng", "text.pcapng"])
@pytest.mark.parametrize("command", ["replay {}", "list replay:{}", "compare {} {}"])
def test_what_is_not_a_recording_is_a_sentence(command: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "empty.pcapng").write_bytes(b"")
    (tmp_path / "text.pcapng").write_text("something else\n")
    done = run_line(f"usbip-capture {command.format(name, name)}", tmp_path)
    assert done.returncode not in (0, 2)
    assert done.stderr.count("\n") == 1
    assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_what_differs(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.pcapng"
    other.write_bytes(recorded.read_bytes().replace(b"hello", b"hullo"))
    page = tmp_path / "page.html"
    assert main(["compare", str(recorded), str(other), "--html", str(page)]) == 1
    output = capsys.readouterr().out
    assert "1 data" in output or "missing" in output
    assert "<script" not in page.read_text()
    assert main(["compare", str(recorded), str(other), "--json"]) == 1
    (comparison,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert comparison["differences"]


@pytest.mark.parametrize("name", ["serial", "storage", "audio-out"])
def test_both_sides_of_a_real_session_are_equal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    sides = [str(GOLDEN / name / f"{side}-usbmon.pcap") for side in ("client", "server")]
    assert main(["compare", *sides]) == 0
    assert "equal: " in capsys.readouterr().out


def test_a_report_to_standard_output_is_all_that_is_there(recorded: Path, tmp_path: Path) -> None:
    """A device that is named twice is one."""
    command = ["usbip-capture", "replay", str(recorded), "--listen", "127.0.0.1:0", "--report", "-"]
    command += ["--device", "1-1", "--device", "1209:0001"]
    environment = command_environment(tmp_path)
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines: list[str] = []
        while not lines or "Serving at " not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], "it has ended"
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(output) == {"sessions": []}
    assert len(lines) == 2
