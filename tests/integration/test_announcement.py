"""A server of ours announces itself: our own discovery finds it, and so does Avahi, with what it exports now."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.programs.commands import at_once
from tests.waiting import wait_until
from usbip_capture.demo.device import INFO
from usbip_capture.servers.announcing import AnnouncedDevice, Announcement, FurtherPorts, reachable, txt_record
from usbip_capture.servers.mdns import DiscoveredServer, browsing

NAME = f"Test server ü {os.getpid()}"
DEVICE = AnnouncedDevice(INFO, "Demo device")
OTHER = AnnouncedDevice(replace(INFO, busid="2-1", idVendor=0x0403, idProduct=0x6001), "TTL232R")
Announce = Callable[..., Announcement]


@pytest.fixture
def announce() -> Iterator[Announce]:
    made: list[Announcement] = []

    def announce(port: int, *devices: AnnouncedDevice, listening: str = "127.0.0.1") -> Announcement:
        made.append(Announcement(NAME, port, devices, [listening]))
        assert made[-1].settled.wait(30)
        if not made[-1].name:
            pytest.skip("there is no multicast on this machine")
        return made[-1]

    yield announce
    for announcement in made:
        announcement.close()


class Found:
    """What is found now, by the names of the instances."""

    def __init__(self) -> None:
        self.servers: dict[str, DiscoveredServer] = {}
        self.browsing = browsing(self._on_found, self._on_gone)

    def _on_found(self, server: DiscoveredServer) -> None:
        self.servers[server.name] = server

    def _on_gone(self, name: str) -> None:
        self.servers.pop(name, None)

    def txt(self, name: str) -> dict[str, str]:
        return self.servers[name].properties if name in self.servers else {}

    def wait_txt(self, name: str, record: dict[str, str]) -> None:
        wait_until(f"{name} is found with {record}", lambda: self.txt(name) == record, 30)


@pytest.fixture
def found() -> Iterator[Found]:
    found = Found()
    with found.browsing:
        yield found


def test_found_changed_and_withdrawn(announce: Announce, found: Found) -> None:
    announcement = announce(33240, DEVICE)
    found.wait_txt(NAME, txt_record([DEVICE]))
    server = found.servers[NAME]
    assert (server.host, server.port) == ("127.0.0.1", 33240)
    for devices in ([DEVICE, OTHER], [], [OTHER]):
        announcement.update(devices)
        found.wait_txt(NAME, txt_record(devices))
    announcement.close()
    wait_until("it is withdrawn", lambda: NAME not in found.servers, 30)


def test_one_with_tls_and_a_dashboard(found: Found, tmp_path: Path) -> None:
    """It is found as three places, and each becomes one that is known; a command looks for all of its time."""
    txt = {**txt_record([DEVICE]), "tls": "33242", "web": "33280"}
    folders = [tmp_path / name for name in ("text", "json")]
    with closing(Announcement(NAME, 33240, [DEVICE], ["127.0.0.1"], FurtherPorts(33242, 33280))):
        found.wait_txt(NAME, txt)
        assert found.servers[NAME].places == [("127.0.0.1", 33240), ("tls://127.0.0.1", 33242)]
        text, as_json = at_once([("usbip-capture discover --mdns-timeout 5", folders[0]),
                                 ("usbip-capture discover --mdns-timeout 5 --json", folders[1])])  # fmt: skip
    assert f"127.0.0.1:33240  {NAME}\n    tls://127.0.0.1:33242\n" in text.stdout
    (server,) = [server for server in json.loads(as_json.stdout) if server["name"] == NAME]
    assert server["txt"] == txt
    for folder in folders:
        known = (folder / "cache/usbip-capture/servers").read_text()
        assert "server\ttls://127.0.0.1\t33242\tmdns\t" in known
        assert "server\t127.0.0.1\t33240\tmdns\t" in known
        assert "server\thttp://127.0.0.1\t33280\tmdns\t" in known


def test_a_name_that_is_taken(announce: Announce, found: Found) -> None:
    names = {announce(33240, DEVICE).name, announce(33241, OTHER).name}
    assert names == {NAME, f"{NAME}-2"}
    wait_until("both are found", lambda: names <= found.servers.keys(), 30)
    assert {found.servers[name].port for name in names} == {33240, 33241}
    assert found.txt(f"{NAME}-2")["device1"] == "2-1 0403:6001 TTL232R"


# -- Avahi

_BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={bus}</listen><auth>EXTERNAL</auth><policy context="default">
<allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
"""
_DAEMON = "[server]\nhost-name=avahi-of-the-tests\n[publish]\ndisable-publishing=yes\n"


@pytest.fixture
def avahi(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which avahi-browse finds a daemon: the system's, or one on a D-Bus of its own."""
    for program in ("avahi-browse", "avahi-daemon", "dbus-daemon"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            pytest.skip(f"{program} is not installed")
    if subprocess.run(["/usr/sbin/avahi-daemon", "--check"], check=False).returncode == 0:
        yield dict(os.environ)
        return
    if os.geteuid():
        pytest.skip("only root can start avahi-daemon, and none runs")
    os.makedirs("/run/avahi-daemon", exist_ok=True)
    bus = tmp_path / "bus"
    (tmp_path / "bus.conf").write_text(_BUS.format(bus=bus))
    (tmp_path / "avahi.conf").write_text(_DAEMON)
    environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={bus}"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    with subprocess.Popen(
        ["dbus-daemon", f"--config-file={tmp_path}/bus.conf", "--nofork", "--nopidfile"], **quiet
    ) as dbus:  # type: ignore[call-overload]
        wait_until("the bus", bus.exists)
        options = ["--no-drop-root", "--no-chroot", "--no-rlimits", "-f", f"{tmp_path}/avahi.conf"]
        with subprocess.Popen(["/usr/sbin/avahi-daemon", *options], **quiet) as daemon:  # type: ignore[call-overload]
            yield environment
            daemon.terminate()
        dbus.terminate()


def browse(environment: dict[str, str]) -> str:
    """What avahi-browse says of our server."""
    command = ["avahi-browse", "--resolve", "--terminate", "--parsable", "_usbip._tcp"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    name = NAME.replace(" ", r"\032").replace("ü", r"\195\188")
    return "".join(line for line in done.stdout.splitlines() if line.startswith("=") and f";{name};" in line)


def test_avahi_finds_it(announce: Announce, avahi: dict[str, str]) -> None:
    addresses = reachable([""])
    if not addresses or addresses[0].startswith("127."):
        pytest.skip("this machine is in no network, and Avahi does not look at the loopback interface")
    announcement = announce(33240, DEVICE, listening="")
    listed = wait_until("Avahi finds it", lambda: browse(avahi), 60)
    assert f";{addresses[0]};33240;" in listed
    for key, value in txt_record([DEVICE]).items():
        assert f'"{key}={value}"' in listed
    announcement.update([DEVICE, OTHER])
    wait_until("a device more", lambda: '"device2=2-1 0403:6001 TTL232R"' in browse(avahi), 60)
    announcement.update([])
    wait_until("none", lambda: '"devices=0"' in browse(avahi), 60)
    announcement.close()
    wait_until("it is withdrawn", lambda: not browse(avahi), 60)
