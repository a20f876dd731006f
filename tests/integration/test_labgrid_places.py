"""Places of labgrid where programs of ours look for them: in Wireshark, in `fleet`, by TLS and through ssh."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oracles.pcapng_reader import read_capture
from tests.programs.extcap_launcher import render_launcher
from tests.programs.labgrid_site import PATIENCE, Site
from tests.programs.simulated_machine import BUSID
from tests.programs.sshd import Sshd, free_port, running_sshd
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.usb.setup import get_descriptor
from usbip_capture.usb.urb import Urb

READ = Urb.control(get_descriptor(1, 0, 0, 18).pack())
REFRESH = "from usbip_capture.servers.refresher import _look_for_places; _look_for_places()"
FOUND = """\
import os
from labgrid import Target
from labgrid.resource.remote import RemotePlace
import usbip_capture.labgrid as ours
target = Target("main")
RemotePlace(target, os.environ["PLACE"])
driver = ours.UsbipDriver(target, None)
target.activate(driver)
print(driver.device.server, driver.find().product)
target.deactivate(driver)
"""


@pytest.fixture(scope="module")
def web() -> int:
    return free_port()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, web: int) -> Iterator[Site]:
    """Places `bench` of a device with a dashboard, `safe` within TLS, `far` on loopback of another machine."""
    made = Site(tmp_path_factory.mktemp("site"))
    try:
        device = f"    device: {BUSID}\n"
        made.exporter("lab", f"bench:\n  UsbipDevice:\n{device}    web: '127.0.0.1:{web}'\n")
        made.exporter("tls", f"safe:\n  UsbipDevice:\n{device}    tls: true\n    allow: 127.0.0.0/8\n")
        made.exporter("far", f"far:\n  UsbipDevice:\n{device}", "--hostname", "far.invalid")
        for exporter, place in (("lab", "bench"), ("tls", "safe"), ("far", "far")):
            made.place(place, f"{exporter}/*/NetworkUsbipDevice")
        yield made
    finally:
        made.close()


@pytest.fixture
def acquired(site: Site) -> Iterator[None]:
    """`bench` is ann's."""
    site.client("-p", "bench", "acquire")
    yield
    site.client("-p", "bench", "release")


class Viewer:
    """A person with a Wireshark."""

    def __init__(self, site: Site, user: str) -> None:
        home = site.folder / "wireshark"
        cache = home / "cache"
        self.environment = {**site.environment(user), "USBIP_CAPTURE_DISCOVERY": "off", "XDG_CACHE_HOME": str(cache)}
        self.capture_file = home / f"{user}.pcapng"
        if not home.exists():
            home.mkdir()
            subprocess.run([sys.executable, "-c", REFRESH], env=self.environment, check=True)
        self._launcher = render_launcher(home)

    def ask(self, *arguments: str) -> str:
        command = [str(self._launcher), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout

    def capture(self, interface: str, *options: str) -> subprocess.Popen[str]:
        command = [str(self._launcher), "--capture", "--extcap-interface", interface, *options]
        return subprocess.Popen(
            [*command, "--fifo", str(self.capture_file)], env=self.environment, stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def failure(self, interface: str, *options: str) -> str:
        """The sentence of a capture that cannot be."""
        with self.capture(interface, *options) as process:
            _, sentence = process.communicate(timeout=PATIENCE)
        assert process.returncode
        assert sentence.count("\n") == 1, sentence
        return sentence


def test_places_are_interfaces(site: Site) -> None:
    viewer = Viewer(site, "ann")
    listed = viewer.ask("--extcap-interfaces")
    assert re.findall(r"\{value=(usbip-place-\w+)\}\{display=([^}]*)\}", listed) == [
        (f"usbip-place-{name}", f"USB/IP place: {name}") for name in ("bench", "far", "safe")
    ]
    shown = viewer.ask("--extcap-config", "--extcap-interface", "usbip-place-bench")
    calls = re.findall(r"\{call=--([a-z-]+)\}", shown)
    assert "mode" in calls
    assert not {"host", "port", "device", "devices"} & set(calls)
    assert viewer.ask("--extcap-dlts", "--extcap-interface", "usbip-place-bench").startswith("dlt ")


def test_a_place_that_is_nobody_s_is_to_be_acquired(site: Site) -> None:
    sentence = Viewer(site, "ann").failure("usbip-place-bench")
    assert sentence == (
        "place bench is nobody's now: acquire it (labgrid-client -p bench acquire), and start the capture again\n"
    )


def test_the_device_of_one_s_own_place_is_captured(site: Site, acquired: None) -> None:
    viewer = Viewer(site, "ann")
    with viewer.capture("usbip-remote", "--host", "place:bench", "--count", "9") as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")
    assert len(list(read_capture(viewer.capture_file))) == 9
    assert "127.0.0.1" not in viewer.ask("--extcap-interfaces")  # that port is the place's only while it is held


def test_who_holds_a_place_whose_session_cannot_be_joined(site: Site, acquired: None, web: int) -> None:
    sentence = Viewer(site, "bob").failure("usbip-place-bench")
    assert sentence.startswith("place bench is held by pc/ann; to join what happens there: no token is known for ")
    assert f"http://127.0.0.1:{web}" in sentence


def test_what_somebody_else_does_is_joined(site: Site, acquired: None, web: int) -> None:
    viewer = Viewer(site, "carol")
    tokens = re.findall(r"\?token=(\S+)", site.exporters[0].program.printed)
    (token,) = tokens  # made once, for all dashboards of this machine
    configuration = Path(viewer.environment["XDG_CONFIG_HOME"]) / "usbip-capture/config.toml"
    configuration.parent.mkdir(parents=True)
    configuration.write_text(f'[tokens]\n"http://127.0.0.1:{web}" = "{token}"\n')
    configuration.chmod(0o600)
    device = ServerAddress("127.0.0.1", site.port("lab"), 20.0).import_device(Selector(BUSID))
    with viewer.capture("usbip-place-bench", "--count", "6") as process:
        while process.poll() is None:
            assert device.run(READ, 20).status == 0
        assert process.stderr is not None
        assert (process.returncode, process.stderr.read()) == (0, "")
    device.close()
    assert len(list(read_capture(viewer.capture_file))) == 6


def test_the_fleet_has_what_is_lent(site: Site, acquired: None) -> None:
    shown = site.run("-m", "usbip_capture.cli.main", "fleet", "--labgrid", "--json")
    assert "2 of labgrid's devices are lent to nobody now" in shown.stdout
    (server,) = json.loads(shown.stdout[shown.stdout.index("{") :])["servers"]
    assert (server["name"], [device["busid"] for device in server["devices"]]) == ("bench", [BUSID])


def test_the_doctor_has_them(site: Site) -> None:
    code = "from usbip_capture.installation.lab_check import check\nfor one in check(): print(one.lines())"
    assert "has places with USB/IP devices: bench, far, safe\n" in site.run("-c", code).stdout


def test_by_tls(site: Site) -> None:
    """The resource has the scheme; who is trusted at one port of a machine is at all."""
    site.client("-p", "safe", "acquire")
    refused = site.run("-c", FOUND, PLACE="safe")
    fingerprint = re.findall(r"tls://127.0.0.1:\d+ is not known yet: its certificate is (\S+);", refused.stdout)[0]
    assert f"within TLS by the certificate {fingerprint}" in site.exporters[1].program.printed
    trusted = site.run("-m", "usbip_capture.cli.main", "trust", "tls://127.0.0.1", fingerprint)
    assert trusted.returncode == 0, trusted.stdout
    done = site.run("-c", FOUND, PLACE="safe")
    assert re.search(r"^tls://127.0.0.1:\d+ Demo device$", done.stdout, re.MULTILINE), done.stdout
    site.client("-p", "safe", "release")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Every host that its `ssh` is asked for is this one."""
    with running_sshd(tmp_path_factory.mktemp("sshd")) as made:
        made.options += ["-oHostName=127.0.0.1", f"-oPort={made.port}"]
        made.install_options()
        yield made


def test_a_device_on_loopback_of_its_exporter_is_reached_by_labgrid_s_ssh(site: Site, sshd: Sshd) -> None:
    site.client("-p", "far", "acquire")
    done = site.run("-c", FOUND, PLACE="far", PATH=sshd.path)
    assert re.search(r"^localhost:\d+ Demo device$", done.stdout, re.MULTILINE), done.stdout
    sshd.know("")
    refused = site.run("-c", FOUND, PLACE="far", PATH=sshd.path)
    sshd.know(sshd.known)
    last = refused.stdout.splitlines()[-1]
    assert "127.0.0.1 cannot be reached by labgrid's ssh: failed to connect" in last
    site.client("-p", "far", "release")


def test_everything_through_one_ssh_host(site: Site, sshd: Sshd, acquired: None) -> None:
    """The coordinator, too, as labgrid has it for LG_PROXY."""
    done = site.run("-c", FOUND, PLACE="bench", PATH=sshd.path, LG_PROXY="gateway")
    assert re.search(r"^localhost:\d+ Demo device$", done.stdout, re.MULTILINE), done.stdout
