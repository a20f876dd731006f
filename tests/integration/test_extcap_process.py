"""The capture process as Wireshark runs it: FIFO, signals, several devices, filters."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.oracles.pcapng_reader import read_capture
from tests.programs.extcap_runs import Reader, assert_complete, assert_sentence, run, started
from tests.waiting import wait_until
from usbip_capture import server as exporter
from usbip_capture.demo import device as demo
from usbip_capture.demo.device import DemoServer
from usbip_capture.servers.address import ServerAddress

# -- captures that end well


def test_to_a_file(extcap: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    assert run(extcap, "--host", "demo", "--duration", "0.8", "--fifo", str(target)) == (0, b"", "")
    assert assert_complete(target.read_bytes(), tmp_path) > 40
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_person_need_not_name_the_interface(extcap: Path, tmp_path: Path) -> None:
    command = [str(extcap), "--capture", "--host", "demo", "--count", "9", "--fifo", str(tmp_path / "out.pcapng")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert assert_complete((tmp_path / "out.pcapng").read_bytes(), tmp_path) == 9


def test_a_misspelt_option_is_not_a_missing_one(extcap: Path) -> None:
    assert run(extcap, "--host", "demo", "--fif", "x") == (2, b"", "--fif is not an option: did you mean --fifo?\n")


def test_to_standard_output(extcap: Path, tmp_path: Path) -> None:
    code, out, err = run(extcap, "--host", "demo", "--duration", "0.5", "--fifo", "-")
    assert (code, err) == (0, "")
    assert assert_complete(out, tmp_path) > 20


def test_exactly_so_many_packets(extcap: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    assert run(extcap, "--host", "demo", "--count", "17", "--fifo", str(target)) == (0, b"", "")
    assert assert_complete(target.read_bytes(), tmp_path) == 17


def test_without_listening(extcap: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    options = ["--host", "demo", "--listen-in", "false", "--descriptors", "off", "--duration", "0.5"]
    assert run(extcap, *options, "--fifo", str(target)) == (0, b"", "")
    packets = list(read_capture(target))
    assert {p.data[10] & 0x0F for p in packets} == {0}
    assert len(packets) <= 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda n: n.name)
def test_a_signal_ends_it_and_gives_the_device_back(extcap: Path, tmp_path: Path, number: signal.Signals) -> None:
    server = DemoServer()
    _, port = server.listen("127.0.0.1", 0)
    reader = Reader(tmp_path / "fifo")
    with started(extcap, "--host", "127.0.0.1", "--port", str(port), "--fifo", str(reader.path)) as process:
        assert reader.some.wait(20)
        process.send_signal(number)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert reader.ended.wait(10)
    assert_complete(reader.data, tmp_path)
    wait_until("the device is free again", lambda: ServerAddress("127.0.0.1", port).devices())
    server.close()


def test_a_reader_that_goes_ends_it_also_when_idle(extcap: Path, tmp_path: Path) -> None:
    reader = Reader(tmp_path / "fifo")
    reader.leave_after_some()
    with started(extcap, "--host", "demo", "--listen-in", "off", "--fifo", str(reader.path)) as process:
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_stopped_while_nobody_has_opened_the_fifo(extcap: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with started(extcap, "--host", "demo", "--fifo", str(fifo)) as process:
        # Its handlers are installed when it has a second thread, which looks for a reader.
        tasks = Path(f"/proc/{process.pid}/task")
        wait_until("the session's thread", lambda: len(list(tasks.iterdir())) > 1)
        process.terminate()
        assert process.wait(20) == 0


def demo_server(count: int) -> exporter.Server:
    """A server that exports so many demo devices: 1-1, 1-2 and so on."""
    server = exporter.Server()
    for number in range(1, count + 1):
        info = replace(demo.INFO, busid=f"1-{number}", devnum=10 + number)
        server.add(info, partial(demo.DemoDevice, info))
    return server


def test_several_devices_into_one_capture(extcap: Path, tmp_path: Path) -> None:
    server = demo_server(2)
    _, port = server.listen("127.0.0.1", 0)
    target = tmp_path / "out.pcapng"
    where = ["--host", f"127.0.0.1:{port}", "--fifo", str(target), "--duration", "1"]
    for selection, busids in (("all", ["1-1", "1-2"]), ("1-2,1-1", ["1-2", "1-1"])):
        code, _, err = run(extcap, *where, "--device", selection)
        assert (code, err) == (0, "")
        interfaces = {r.interface.name: r.interface.description for r in read_capture(target)}
        assert sorted(interfaces) == ["usbip0", "usbip1"]
        assert sorted(d.split()[2] for d in interfaces.values()) == sorted(busids)
    code, _, err = run(extcap, *where, "--device", "9-9", "--devices", "1-2,1-1")  # those that are checked count
    assert (code, err) == (0, "")
    assert {r.interface.name for r in read_capture(target)} == {"usbip0", "usbip1"}
    code, _, err = run(extcap, *where, "--device", "1-1,9-9")
    assert code == 1
    assert_sentence(err, "9-9")
    assert {r.interface.name for r in read_capture(target)} == {"usbip0"}
    server.close()


def test_a_capture_filter(extcap: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    options = ["--host", "demo", "--count", "6", "--extcap-capture-filter", "interrupt and ep == 0x83"]
    code, _, err = run(extcap, *options, "--fifo", str(target))
    assert (code, err) == (0, "")
    assert [r.usb.epnum for r in read_capture(target) if r.usb] == [0x83] * 6


def test_a_server_that_was_used_is_an_interface_from_then_on(
    extcap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server = DemoServer()
    _, port = server.listen("127.0.0.1", 0)
    target = str(tmp_path / "out.pcapng")
    code, _, err = run(extcap, "--host", "127.0.0.1", "--port", str(port), "--duration", "0.5", "--fifo", target)
    assert (code, err) == (0, "")
    out = subprocess.run([str(extcap), "--extcap-interfaces"], capture_output=True, text=True, check=True).stdout
    name = f"usbip-127.0.0.1-{port}"
    assert f"{{value={name}}}" in out
    config = [str(extcap), "--extcap-config", "--extcap-interface", name]
    reported = f"1209:0001   Demo device   {demo.DESCRIPTORS.strings[2]}"
    assert reported in subprocess.run(config, capture_output=True, text=True, check=True).stdout
    command = [str(extcap), "--capture", "--extcap-interface", name, "--count", "4", "--fifo", target]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
    other = subprocess.run([*command, "--host", "elsewhere"], capture_output=True, text=True, check=False, timeout=60)
    assert_sentence(other.stderr, "127.0.0.1")
    server.close()
