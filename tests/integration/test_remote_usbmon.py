"""Mode `usbmon`: a real sshd and shell, a recording that a real kernel's usbmon has made, the real tcpdump's filter."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.oracles.pcapng_reader import CapturedInterface, CapturedRecord, read_items
from tests.programs.commands import command_environment, run_line
from tests.programs.extcap_launcher import render_launcher
from tests.programs.sshd import children, sshd_of_this_process
from tests.programs.usbmon_machine import DEVNUM, GOLDEN, UsbmonMachine
from tests.waiting import wait_until
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import UsbipError
from usbip_capture.recordings.reading import open_capture
from usbip_capture.remote_usbmon import watching
from usbip_capture.remote_usbmon.group import WatchedGroup
from usbip_capture.remote_usbmon.settings import UsbmonSettings
from usbip_capture.remote_usbmon.urbs import DESCRIPTORS
from usbip_capture.servers.address import ServerAddress


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UsbmonMachine]:
    """With usbmon on bus 1; nothing of ssh is left at the end, here or there."""
    monkeypatch.setattr(watching, "_FIRST_PAUSE", 0.1)
    with sshd_of_this_process(tmp_path, monkeypatch) as sshd:
        machine = UsbmonMachine(sshd, tmp_path / "pi")
        machine.load_usbmon(1)
        yield machine
        wait_until("every tcpdump has ended", lambda: not machine.running())


def group(machine: UsbmonMachine, devices: str = "auto", **settings: bool) -> WatchedGroup:
    return WatchedGroup(ServerAddress.parse(machine.sshd.address), devices, UsbmonSettings(262144, **settings))


@contextmanager
def running(watched: WatchedGroup, path: Path) -> Iterator[PcapWriter]:
    """A capture of it into `path`."""
    watched.connect()
    with PcapWriter(path) as writer:
        thread = threading.Thread(target=watched.run, args=(writer,))
        thread.start()
        yield writer
        watched.stop()
        thread.join(20)
        assert not thread.is_alive()


def failure(machine: UsbmonMachine, devices: str = "auto") -> str:
    """The sentence."""
    watched = group(machine, devices)
    with pytest.raises(UsbipError) as caught:
        watched.connect()
    watched.close()
    assert str(caught.value).isprintable()
    return str(caught.value)


def packets_of(recording: str) -> int:
    """How many are of the device."""
    with open_capture(GOLDEN / recording / "server-usbmon.pcap") as capture:
        return sum(portion[start + 11] == DEVNUM for _, _, portion, start, _, _, _ in capture.packets)


def urbs(path: Path) -> list[CapturedRecord]:
    """The records of usbmon."""
    return [item for item in read_items(path) if isinstance(item, CapturedRecord) and item.usb is not None]


def comments(path: Path) -> list[str]:
    return [text for item in read_items(path) if isinstance(item, CapturedRecord) for text in item.comments]


def test_a_capture(machine: UsbmonMachine, tmp_path: Path) -> None:
    """On an interface of ours; descriptors first; filtered there; what the kernel has dropped is reported."""
    machine.plug("1-1", "serial", product="Serial \x1b[2J adapter")
    path = tmp_path / "capture.pcapng"
    expected = packets_of("serial")
    with running(group(machine), path) as writer:
        wait_until("all of it has come", lambda: writer.received >= expected + 6)
        wait_until("tcpdump waits for more", lambda: machine.has("running"))
    assert machine.arguments == ["-i", "usbmon1", "-n", "-U", "-s", "262144", "-w", "-", f"link[11] = {DEVNUM}"]
    found = urbs(path)
    marked = [record for record in found if DESCRIPTORS in record.comments]
    assert [record.usb.setup[:4].hex() for record in marked if record.usb and chr(record.usb.type) == "S"] == [
        "80060001", "80060002", "00090100"
    ]  # fmt: skip
    assert len(found) == expected + len(marked)
    interface = next(item for item in read_items(path) if isinstance(item, CapturedInterface))
    assert interface.name == "usbip0"
    assert interface.description == f"USB/IP {machine.sshd.address} 1-1 0403:6001 Serial \\x1b[2J adapter"
    wait_until("tcpdump was ended", lambda: machine.has("over"))
    assert f"usbip-capture: usbmon of {machine.sshd.address} has dropped 7 packets" in comments(path)


def test_the_command(machine: UsbmonMachine, tmp_path: Path) -> None:
    machine.plug("1-1", "keyboard")
    asked = f"usbip-capture capture {machine.sshd.address} 1-1 --mode usbmon"
    done = run_line(f"{asked} --count 30 --no-descriptors -o - > piped.pcapng", tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(urbs(tmp_path / "piped.pcapng")) == 30
    assert DESCRIPTORS not in comments(tmp_path / "piped.pcapng")


def test_the_extcap(machine: UsbmonMachine, tmp_path: Path) -> None:
    machine.plug("1-1", "keyboard", product="Keyboard", serial="0007")
    command = [str(render_launcher(tmp_path / "extcap"))]
    environment = command_environment(tmp_path, PATH=machine.sshd.path)
    chosen = ["--extcap-interface", "usbip-remote", "--host", machine.sshd.address, "--mode", "usbmon"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    listed = run("--extcap-config", *chosen, "--extcap-reload-option", "device")
    assert "{value=1-1}{display=1-1   0627:0001   Keyboard   0007}" in listed.stdout, listed
    path = tmp_path / "capture.pcapng"
    done = run("--capture", *chosen, "--device", "1-1", "--count", "30", "--fifo", str(path))
    assert done.returncode == 0, done.stderr
    assert len(urbs(path)) == 30


def test_what_is_there(machine: UsbmonMachine) -> None:
    machine.plug("1-1", "serial", product="Adapter", serial="A1")
    machine.plug("1-2", "keyboard", product="Keyboard", bDeviceClass="09", devnum=3)  # a hub
    machine.plug("1-3", "storage", product="Disk", devnum=4)
    machine.network_adapter("1-3")
    missing = failure(machine, "1-1; touch x,1-3")
    assert "has no device 1-1; touch x: it has 1-1 (0403:6001) Adapter, 1-3" in missing
    (machine.programs / "tcpdump").rename(machine.programs / "dumpcap")
    watched = group(machine, "all")
    watched.connect()
    wait_until("dumpcap runs, for one device", lambda: machine.has("running"))
    watched.close()
    assert machine.arguments[-2:] == ["-f", f"link[11] = {DEVNUM}"]
    (machine.folder / "dev/usbmon1").chmod(0)
    assert "cannot be read by the user that ssh logs in" in failure(machine, "serial=A1")


def test_as_root(machine: UsbmonMachine, tmp_path: Path) -> None:
    """Where sudo asks for no password."""
    machine.plug("1-1", "serial")
    (machine.folder / "dev/usbmon1").chmod(0)
    machine.add_program("sudo", f'echo sudo >> {machine.folder}/arguments; shift; exec "$@"')
    path = tmp_path / "capture.pcapng"
    with running(group(machine), path) as writer:
        wait_until("all of it has come", lambda: writer.received >= packets_of("serial"))
    assert machine.arguments[:3] == ["sudo", "sudo", "-i"]


def test_a_shell_that_is_none(machine: UsbmonMachine) -> None:
    machine.sshd.allow(f'command="echo no shell for you >&2; exit 1" {machine.sshd.key}')
    assert "has failed: no shell for you: see whether `sh` works there" in failure(machine)
    machine.sshd.allow(f'command="true" {machine.sshd.key}')
    assert "has ended without an answer" in failure(machine)
    machine.sshd.allow(f'command="yes" {machine.sshd.key}')
    assert "prints too much" in failure(machine)
    machine.sshd.allow("")
    assert "Permission denied" in failure(machine)
    assert "ssh-copy-id" in failure(machine)


def test_tcpdump_that_fails(machine: UsbmonMachine, tmp_path: Path) -> None:
    """Before it has captured anything, and in the middle."""
    machine.plug("1-1", "serial")
    (machine.folder / "broken").touch()
    watched = group(machine)
    watched.connect()
    ended = f"the capture on {machine.sshd.address} has ended: tcpdump: "
    with PcapWriter(tmp_path / "a.pcapng") as writer, pytest.raises(UsbipError) as caught:
        watched.run(writer)
    assert str(caught.value) == f"{ended}usbmon1: it is broken"
    (machine.folder / "broken").unlink()
    (machine.folder / "dies").touch()
    watched = group(machine)
    watched.connect()
    with PcapWriter(tmp_path / "b.pcapng") as writer, pytest.raises(UsbipError) as caught:
        watched.run(writer)
    assert str(caught.value) == f"{ended}the interface went down"
    assert len(urbs(tmp_path / "b.pcapng")) > packets_of("serial")


def test_unplugged_and_back(machine: UsbmonMachine, tmp_path: Path) -> None:
    """With another device number, which the filter follows."""
    machine.plug("1-1", "serial")
    path = tmp_path / "capture.pcapng"
    once = packets_of("serial")
    with running(group(machine), path) as writer:
        wait_until("all of it has come", lambda: writer.received >= once)
        machine.unplug("1-1")
        wait_until("the first tcpdump was ended", lambda: machine.has("over"))
        machine.plug("1-1", "serial", devnum=9)
        wait_until("all of it has come again", lambda: writer.received >= 2 * once)
    assert machine.arguments[-1] == "link[11] = 9"
    assert [record.usb.devnum for record in urbs(path) if record.usb].count(9) >= once
    texts = comments(path)
    assert any("gone at" in text and "was unplugged" in text for text in texts)
    assert "usbip-capture: 1-1 (0403:6001) plugged in again" in texts


def test_unplugged_for_good(machine: UsbmonMachine, tmp_path: Path) -> None:
    machine.plug("1-1", "serial")
    watched = group(machine, reconnect=False)
    watched.connect()
    wait_until("it captures", lambda: machine.has("running"))
    machine.unplug("1-1")
    with PcapWriter(tmp_path / "a.pcapng") as writer, pytest.raises(UsbipError, match="was unplugged"):
        watched.run(writer)


def test_ssh_is_lost_and_back(machine: UsbmonMachine, tmp_path: Path) -> None:
    machine.plug("1-1", "serial")
    path = tmp_path / "capture.pcapng"
    once = packets_of("serial")
    with running(group(machine), path) as writer:
        wait_until("all of it has come", lambda: writer.received >= once)
        (number,) = [child for child in children() if is_ssh(child)]
        os.kill(number, signal.SIGKILL)
        wait_until("all of it has come again", lambda: writer.received >= 2 * once)
    texts = comments(path)
    assert any("gone at" in text and "it was ended by signal 9" in text for text in texts)
    assert f"usbip-capture: 1-1 (0403:6001) {machine.sshd.address} reached again" in texts


def is_ssh(process: int) -> bool:
    try:
        return b"\0sh -s\0" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def test_several_devices(machine: UsbmonMachine, tmp_path: Path) -> None:
    """Each on its interface; one that is unplugged does not end the other."""
    machine.plug("1-1", "serial")
    machine.plug("1-2", "serial", devnum=5)
    path = tmp_path / "capture.pcapng"
    with running(group(machine, "all"), path) as writer:
        wait_until("the one that this bus has shows all", lambda: writer.received >= packets_of("serial"))
        wait_until("both run", lambda: machine.arguments.count("-i") == 2)
        machine.unplug("1-1")
        wait_until("its tcpdump has ended", lambda: machine.has("over"))
        assert machine.running()
    names = [item.name for item in read_items(path) if isinstance(item, CapturedInterface)]
    assert names[:2] == ["usbip0", "usbip1"]


def test_stopped_at_once(machine: UsbmonMachine) -> None:
    machine.plug("1-1", "serial")
    watched = group(machine)
    watched.stop()
    with suppress(UsbipError):
        watched.connect()
    watched.close()
