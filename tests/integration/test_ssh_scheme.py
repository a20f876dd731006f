"""`ssh://`, with a real sshd on the loopback interface: all that takes a host takes it, and each failure is a sentence
with ssh's own last line, which nobody waits for, and which leaves no process behind."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import serial
import usb.core

from tests.oracles.pcapng_reader import read_capture
from tests.programs.commands import ROOT, command_environment, run_line
from tests.programs.extcap_launcher import render_launcher
from tests.programs.sshd import Sshd, children, free_port, sshd_of_this_process
from tests.waiting import wait_until
from usbip_capture.demo.device import BUSID, DemoServer
from usbip_capture.errors import LocalProtocolError, ServerLost, ServerUnreachable, UsbipError
from usbip_capture.net import ssh
from usbip_capture.net.child import ChildTransport
from usbip_capture.pyusb_backend import get_backend
from usbip_capture.relay.relay import Relay
from usbip_capture.servers.address import Selector, ServerAddress


@pytest.fixture
def server() -> Iterator[DemoServer]:
    with closing(DemoServer()) as server:
        yield server


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """Its `ssh` is that of this process and of the programs that it runs; nothing of these is left at the end."""
    with sshd_of_this_process(tmp_path, monkeypatch) as sshd:
        yield sshd


def listening(server: DemoServer) -> int:
    port: int = server.listen("127.0.0.1", 0)[1]
    return port


@pytest.fixture
def where(server: DemoServer, sshd: Sshd) -> str:
    return f"{sshd.address}/{listening(server)}"


def users(server: DemoServer) -> list[str]:
    return [client.busid for client in server.clients if client.busid]


def test_devices_and_transfers(server: DemoServer, where: str) -> None:
    address = ServerAddress.parse(where)
    assert [info.busid for info in address.devices()] == [BUSID]
    backend = get_backend(where)
    found = usb.core.find(backend=backend, idVendor=0x1209)
    assert found.serial_number == "DEMO0001"
    assert users(server) == [BUSID]
    backend.close()
    wait_until("the device is free", lambda: not users(server))


def test_commands(where: str, tmp_path: Path) -> None:
    listed = run_line(f"usbip-capture list {where}", tmp_path)
    assert listed.stdout.startswith(f"{where}:\n  {BUSID}  1209:0001"), listed.stderr
    probed = run_line(f"usbip-capture probe {where} --pcap probe.pcapng", tmp_path)
    assert "serial number  DEMO0001" in probed.stdout, probed.stderr
    again = run_line(f"usbip-capture config add far {where} && usbip-capture list far --json", tmp_path)
    assert f'"server": "{where}"' in again.stdout, again.stderr
    assert '"name": "far"' in again.stdout
    captured = run_line(f"usbip-capture capture far {BUSID} --count 20 --duration 60 -o capture.pcapng", tmp_path)
    assert captured.returncode == 0, captured.stderr
    for name in ("probe", "capture"):
        assert len(list(read_capture(tmp_path / f"{name}.pcapng"))) > 10
    tried = run_line("usbip-capture selftest far", tmp_path)
    assert tried.returncode == 0, tried.stdout + tried.stderr


def test_a_program_of_pyusb_and_a_serial_port(where: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import usb.core; print(usb.core.find(idVendor=0x1209).product)")
    used = run_line(f"usbip-capture use {where} -- program.py", tmp_path)
    assert used.stdout == "Demo device\n", used.stderr
    ports = run_line(f"usbip-capture ports {where}", tmp_path)
    url = ports.stdout.split()[0]
    assert "via=ssh" in url
    with serial.serial_for_url(url, timeout=5) as port:
        port.write(b"hello")
        assert port.read(5) == b"hello"


def test_the_extcap(where: str, tmp_path: Path) -> None:
    command = [str(render_launcher(tmp_path / "extcap"))]
    environment = command_environment(tmp_path, USBIP_CAPTURE_SERVERS=f"far={where}")
    listed = subprocess.run(
        [*command, "--extcap-interfaces"], env=environment, capture_output=True, text=True, check=True
    )
    assert f"{{value=usbip-far}}{{display=USB/IP remote: far ({where})}}" in listed.stdout
    reload = ["--extcap-config", "--extcap-interface", "usbip-far", "--extcap-reload-option", "device"]
    devices = subprocess.run([*command, *reload], env=environment, capture_output=True, text=True, check=True)
    assert f"{{value={BUSID}}}" in devices.stdout
    for options in (["--extcap-interface", "usbip-far"], ["--host", where]):
        capture = [
            "--capture",
            *options,
            "--count",
            "20",
            "--duration",
            "60",
            "--fifo",
            str(tmp_path / "capture.pcapng"),
        ]
        done = subprocess.run([*command, *capture], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(list(read_capture(tmp_path / "capture.pcapng"))) > 10


def test_the_relay(server: DemoServer, where: str) -> None:
    with closing(Relay(ServerAddress.parse(where), port=0)) as relay:
        near = ServerAddress("127.0.0.1", relay.port)
        with closing(near.import_device(Selector(busid=BUSID))):
            assert users(server) == [BUSID]


def failure(address: str) -> str:
    """The sentence."""
    with pytest.raises(ServerUnreachable) as caught:
        ServerAddress.parse(address, timeout=2).devices()
    return str(caught.value)


def test_what_ssh_itself_reports(server: DemoServer, sshd: Sshd, where: str) -> None:
    target = sshd.address.removeprefix("ssh://").rpartition(":")[0]
    shown = f"ssh -p {sshd.port} {target} failed: "
    nobody = failure(f"{sshd.address}/{free_port()}")
    assert nobody.startswith(shown)
    assert "connect failed: Connection refused: does a USB/IP server listen on 127.0.0.1 port" in nobody
    assert "connect to host 127.0.0.1 port" in failure(f"ssh://127.0.0.1:{free_port()}")
    assert "Could not resolve hostname" in failure("ssh://nowhere.invalid")

    sshd.know("")
    assert failure(where).startswith(f"{shown}Host key verification failed: log in once")
    sshd.know(f"[127.0.0.1]:{sshd.port} {sshd.key}")  # another key
    assert "Host key verification failed" in failure(where)
    sshd.know(sshd.known)
    sshd.allow(f'restrict,port-forwarding,permitopen="127.0.0.1:{free_port()}" {sshd.key}')
    assert "prohibited: open failed: the sshd of that machine must allow it" in failure(where)
    sshd.allow("")
    assert "Permission denied" in failure(where)
    assert "ssh-copy-id" in failure(where)


def test_a_machine_without_ssh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert failure("ssh://pi") == (
        "there is no program ssh on this machine, which ssh://pi needs: install OpenSSH's client"
    )
    (tmp_path / "ssh").write_text("")
    assert "ssh cannot be started for ssh://pi: " in failure("ssh://pi")


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("exit 3", "failed: it ended with status 3: "),
        ("kill -KILL $$", "failed: it was ended by signal 9: "),
        ("printf 'one\\r\\n\\033[2Jtwo.\\n \\n' >&2; exit 255", "failed: \\x1b[2Jtwo: "),
        ("head -c 300000 /dev/zero | tr '\\0' x >&2; echo >&2; exit 255", "failed: xxx"),
        ("head -c 8 >/dev/null", "broke off the connection (closed without an answer): its rules may not let"),
        ("echo >&2 'pi: banner'; exec cat", "this is not a USB/IP server: it answered"),
    ],
)
def test_ssh_that_fails(sshd: Sshd, script: str, sentence: str) -> None:
    sshd.install(script)
    with pytest.raises(UsbipError) as caught:
        ServerAddress.parse("ssh://pi", timeout=5).devices()
    assert sentence in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1500


def test_ssh_that_never_answers(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for more than what connecting and logging in may take; it is ended, also if it does not want to."""
    monkeypatch.setattr(ssh, "_CONNECTING", 0.2)
    monkeypatch.setattr(ssh, "_LOGGING_IN", 0.1)
    sshd.install("trap '' TERM; echo >&2 'pi: touch your key'; while :; do sleep 0.1; done")
    with pytest.raises(ServerUnreachable, match=r"has not brought an answer yet \(pi: touch your key\): try it"):
        ServerAddress.parse("ssh://pi", timeout=0.2).devices()


def test_ssh_that_dies_in_the_middle(server: DemoServer, sshd: Sshd, where: str) -> None:
    address = ServerAddress.parse(where)
    with closing(address.open_transport()) as transport:
        assert isinstance(transport, ChildTransport)
        process = transport._process
    device = address.import_device(Selector(busid=BUSID))
    with closing(device):
        lost: list[str] = []
        device.watch(lost.append)
        (number,) = [child for child in children() if is_ssh(child) and child != process.pid]
        os.kill(number, signal.SIGKILL)
        wait_until("the client notices it", lambda: lost)
        assert lost[0].startswith(f"the connection to {where} broke: ssh -p {sshd.port} ")
        assert "it was ended by signal 9" in lost[0]
        wait_until("the device is free", lambda: not users(server))
    with pytest.raises(ServerLost):
        raise ServerLost(device.loss)


def is_ssh(process: int) -> bool:
    try:
        return b"\0-W\0" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def recorded(sshd: Sshd) -> list[str]:
    """The arguments that ssh has got."""
    folder = shlex.quote(str(sshd.folder))
    sshd.install(
        f'printf "%s\\n" "$@" > {folder}/arguments; set -- $(grep SigBlk /proc/$$/status) $(cat /proc/$$/stat);'
        f' echo "$2" "$8" > {folder}/process; exit 1'
    )
    return (sshd.folder / "arguments").read_text().splitlines()


def test_the_arguments_are_a_list(sshd: Sshd) -> None:
    (sshd.folder / "arguments").touch()
    recorded(sshd)
    failure("ssh://me@[fe80::1%eth0]:2222/3242")
    given = recorded(sshd)
    assert given[-9:] == ["BatchMode=yes", "-l", "me", "-p", "2222", "-W", "127.0.0.1:3242", "--", "fe80::1%eth0"]
    assert {"ServerAliveInterval=10", "ConnectTimeout=5"} <= set(given)
    failure("ssh://pi")
    given = recorded(sshd)
    assert given[-4:] == ["-W", "127.0.0.1:3240", "--", "pi"]
    assert not {"-l", "-p"} & set(given)


@pytest.mark.parametrize("name", ["-oProxyCommand=touch x", "-l", "a b", "a\tb", "a\nb", "a\0b", "a\u00a0b"])
def test_names_that_no_argument_may_be(name: str) -> None:
    for host, user in ((name, ""), ("pi", name)):
        with pytest.raises(LocalProtocolError, match="cannot be given to ssh"):
            ssh.open_ssh(host, 3240, 1, user=user)
        with pytest.raises(LocalProtocolError):
            ServerAddress.parse(f"ssh://{f'{user}@' if user else ''}{host}")


@pytest.mark.parametrize("terminal", [True, False])
def test_who_may_be_asked(sshd: Sshd, tmp_path: Path, terminal: bool) -> None:
    """A password, or whether a key is right, is asked at a terminal only; Ctrl-C of it does not reach ssh."""
    (sshd.folder / "arguments").touch()
    recorded(sshd)
    command = [sys.executable, "-m", "usbip_capture.cli.main", "list", "ssh://pi"]
    ours, theirs = pty.openpty()
    environment = command_environment(tmp_path, PATH=sshd.path)
    errors = theirs if terminal else subprocess.PIPE
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.DEVNULL, stderr=errors, env=environment, cwd=ROOT
    ) as process:
        os.close(theirs)
        process.wait(60)
    os.close(ours)
    given = recorded(sshd)
    assert ("BatchMode=yes" in given) != terminal
    blocked, session = (sshd.folder / "process").read_text().split()
    assert bool(int(blocked, 16) & 1 << signal.SIGINT - 1)
    assert (int(session) == os.getsid(0)) == terminal  # else there is no terminal to ask at


def test_servers_that_nobody_has_named_ask_nothing(sshd: Sshd, tmp_path: Path) -> None:
    (sshd.folder / "arguments").touch()
    recorded(sshd)
    command = [sys.executable, "-m", "usbip_capture.cli.main", "list", "--mdns-timeout", "0.1"]
    ours, theirs = pty.openpty()
    environment = command_environment(tmp_path, PATH=sshd.path, USBIP_CAPTURE_SERVERS="ssh://pi")
    done = subprocess.run(
        command, stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs, env=environment, cwd=ROOT, check=False
    )
    for fd in (ours, theirs):
        os.close(fd)
    assert done.returncode
    assert "BatchMode=yes" in recorded(sshd)


def test_who_has_the_socket_of_a_connection(server: DemoServer, where: str) -> None:
    """As a kernel has it, once `attach` has ended: ssh carries its bytes until it is closed."""
    sock, info = ServerAddress.parse(where).import_socket(Selector(busid=BUSID))
    with sock:
        assert info.busid == BUSID
        assert users(server) == [BUSID]
    wait_until("the device is free", lambda: not users(server))


def test_many_at_once_and_none_is_left(server: DemoServer, where: str) -> None:
    started = time.monotonic()
    address = ServerAddress.parse(where)
    threads = [threading.Thread(target=address.devices) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 60
