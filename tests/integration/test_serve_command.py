"""`usbip-capture serve` as a person runs it, on a machine whose libusb is simulated."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.oracles.pcapng_reader import read_capture
from tests.programs.serve_command import CODE, READ, Serving, commands_in, listed, write_configuration
from tests.programs.simulated_machine import BUSID, Machine, environment
from tests.programs.terminal_emulator import Terminal
from tests.waiting import wait_until
from usbip_capture.device import Device
from usbip_capture.servers.address import Selector, ServerAddress


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    with commands_in(tmp_path) as start:
        yield start


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_device_is_lent_and_released_at_the_end(name: str, serve: Callable[..., Serving]) -> None:
    serving = serve("--device", BUSID, "--listen", "127.0.0.1:0")
    server = serving.server()
    said = f"list with: usbip-capture list 127.0.0.1:{server.port}; attach with: usbip --tcp-port {server.port} attach"
    assert f"{said} -r 127.0.0.1 -b {BUSID}\n" in serving.said
    assert listed(server) == [f"{BUSID} (1209:0001)"]
    device = serving.attach()
    assert device.run(READ, 20).status == 0
    serving.wait_for(rf"client 127\.0\.0\.1:\d+ has imported {BUSID} \(1209:0001\)")
    assert serving.end(getattr(signal, name)) == 0
    assert re.search(rf"client 127\.0\.0\.1:\d+ has released {BUSID}", serving.said)
    assert serving.said.endswith("all devices are released\n")
    calls = [call.split("'")[1] for call in serving.machine.calls]
    assert calls.count("detach") >= 2
    assert calls.count("attach") >= 2
    device.close()


def test_what_is_plugged_in_later_is_exported(serve: Callable[..., Serving]) -> None:
    serving = serve("--device", "1-9.8", "--device", "abcd:1", "--listen", "127.0.0.1:0")
    server = serving.server()
    assert "nothing of what is to be exported is plugged in: 1-9.8, abcd:0001" in serving.wait_for("nothing.*\n")[0]
    assert listed(server) == []
    serving.machine.plug("9.8")
    wait_until("the device is exported", lambda: listed(server) == ["1-9.8 (1209:0001)"])
    device = serving.attach("1-9.8")
    lost: list[str] = []
    device.watch(lost.append)
    serving.machine.plug("9.8", "1209:0099")  # its bootloader
    wait_until("the bootloader is exported at the same port", lambda: listed(server) == ["1-9.8 (1209:0099)"])
    assert lost
    device.close()
    serving.machine.unplug("9.8")
    wait_until("nothing is exported", lambda: listed(server) == [])
    serving.wait_for(r"1-9\.8 \(1209:0099\).* is unplugged")
    assert serving.end() == 0


def test_each_session_is_on_an_interface_of_its_own(serve: Callable[..., Serving], tmp_path: Path) -> None:
    serving = serve("--all", "--listen", "127.0.0.1:0", "--pcap", "sessions.pcapng")
    for _ in range(2):
        device = serving.attach()
        assert device.run(READ, 20).status == 0
        device.close()
        wait_until("the device is free again", lambda: listed(serving.server()))
    assert serving.end() == 0
    interfaces = {record.interface.name for record in read_capture(tmp_path / "sessions.pcapng")}
    assert interfaces == {"usbip0", "usbip1"}


def test_a_capture_of_several_files(serve: Callable[..., Serving], tmp_path: Path) -> None:
    serving = serve("--all", "--listen", "127.0.0.1:0", "--pcap", "ring.pcapng", "-b", "packets:5")
    device = serving.attach()
    for _ in range(10):
        assert device.run(READ, 20).status == 0
    device.close()
    assert serving.end() == 0
    files = sorted(tmp_path.glob("ring_*.pcapng"))
    assert len(files) >= 4
    assert all(len(list(read_capture(file))) <= 5 for file in files)


def test_a_socket_for_oneself(serve: Callable[..., Serving], tmp_path: Path) -> None:
    path = tmp_path / "socket"
    serving = serve("--all", "--unix", str(path))
    serving.wait_for("serving at /.*socket\n")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "127.0.0.1" not in serving.said
    assert serving.end() == 0
    assert not path.exists()


@pytest.mark.skipif(shutil.which("usbip") is None, reason="Debian's usbip is not installed")
def test_the_usbip_program_lists_it(serve: Callable[..., Serving]) -> None:
    serving = serve("--class", "03", "--listen", "127.0.0.1:0")
    command = ["usbip", "--tcp-port", str(serving.server().port), "list", "-r", "127.0.0.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert f"{BUSID}: " in done.stdout
    assert "(1209:0001)" in done.stdout


def test_the_configuration_is_followed(serve: Callable[..., Serving], tmp_path: Path) -> None:
    write_configuration(tmp_path, '[server]\nexports = ["1-9.8"]\nlisten = "127.0.0.1:0"\n')
    serving = serve()
    server = serving.server()
    assert listed(server) == []
    write_configuration(tmp_path, f'[server]\nexports = ["1-9.8",\n"{BUSID}"]\n')
    wait_until("the device is exported", lambda: listed(server) == [f"{BUSID} (1209:0001)"])
    device = serving.attach()
    write_configuration(tmp_path, '[server]\nexports = ["1-9.8",\n"nonsense"]\n')
    serving.wait_for(r"config\.toml, line 3: 'nonsense' is not a rule.*; what was exported before still is")
    assert device.run(READ, 20).status == 0
    write_configuration(tmp_path, "[server]\nexports = []\n")
    lost: list[str] = []
    device.watch(lost.append)
    wait_until("the device is not exported any more", lambda: lost)
    device.close()
    assert serving.end() == 0


WRONG = {
    ("--all", "--listen", "0.0.0.0:0"): (2, "name who may with --allow, such as 192.0.2.0/24, or --allow-public"),
    ("--device", "zz"): (2, "'zz' is not a rule of what is exported"),
    ("--class", "09"): (2, "hubs are not exported"),
    ("--all", "--allow", "x"): (2, "'x' is not a network"),
    ("--all", "--listen", ""): (2, "'' is not an address"),
    ("--all", "--unix", ""): (2, "--unix needs the name of a socket"),
    ("--all", "--name", os.fsdecode(b"\xff")): (2, "has characters that cannot be shown: choose another"),
    ("--all", "-b", "packets:5"): (2, "name one with --pcap"),
    ("--all", "--restore"): (2, "--restore goes alone"),
    ("--all", "--pcap", "no/such/folder.pcapng"): (1, "there is no such folder"),
    ("--all", "--unix", "no/such/folder"): (1, "cannot listen on no/such/folder: No such file or directory"),
    ("--all", "--listen", "192.0.2.1:0", "--allow", "192.0.2.0/24"): (1, "this machine has no such address"),
    (): (1, "nothing is to be exported: name devices, such as 1-1.4 or 303a:4001"),
}


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_what_cannot_be_is_a_sentence(arguments: tuple[str, ...], serve: Callable[..., Serving]) -> None:
    serving = serve(*arguments)
    code = serving.process.wait(30)
    serving._reader.join(30)
    expected, sentence = WRONG[arguments]
    assert sentence in serving.said
    assert code == expected
    assert serving.said.count("\n") == 1


def test_without_libusb(tmp_path: Path) -> None:
    blocked = f"import sys; sys.modules['usb1'] = None\n{CODE}"
    command = [sys.executable, "-c", blocked, "serve", "--all"]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "pip install libusb1 libusb-package; or, where pipx has installed this, pipx inject " in done.stderr
    assert done.stderr.count("\n") == 1


def test_restore_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE, "serve", "--restore"]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=True, timeout=30)
    assert (done.stdout, done.stderr) == ("no driver is left unbound\n", "")


def test_a_live_view_on_a_terminal(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    terminal = Terminal(100, 20)
    line = "exec usbip-capture serve --all --listen 127.0.0.1:0"
    devices: list[Device] = []
    typed: list[bool] = []

    def on_output(terminal: Terminal) -> None:
        text = terminal.raw.decode(errors="replace")
        port = re.search(r"serving at 127\.0\.0\.1:(\d+)", text)
        if port and not devices and "Ctrl-C ends" in text:
            devices.append(ServerAddress("127.0.0.1", int(port[1]), 20.0).import_device(Selector(BUSID)))
        if devices and not typed and re.search(rf"{BUSID} +127\.0\.0\.1:\d+", text):
            terminal.type(b"\x03")
            typed.append(True)

    more = {key: value for key, value in environment(tmp_path).items() if key in ("SIMULATED_MACHINE", "PYTHONPATH")}
    assert terminal.run(line, tmp_path, on_output, **more, XDG_STATE_HOME=str(tmp_path / "state")) == 0
    text = "\n".join(terminal.text)
    assert "1 device at 127.0.0.1:" in text
    assert "all devices are released" in text
    devices[0].close()
    machine.close()
