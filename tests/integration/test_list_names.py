"""What a list shows of servers and devices: names, serial numbers, and the same types everywhere in JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.programs.commands import command_environment, run_line
from usbip_capture.demo.device import INFO, DemoDevice
from usbip_capture.server import Server


@pytest.fixture
def server() -> Iterator[str]:
    """HOST:PORT of a server with one device."""
    made = Server()
    made.add(INFO, partial(DemoDevice, INFO))
    yield f"127.0.0.1:{made.listen('127.0.0.1', 0)[1]}"
    made.close()


def test_a_device_has_the_name_and_serial_number_that_it_gave_when_it_was_read(server: str, tmp_path: Path) -> None:
    assert "Demo device" not in run_line(f"usbip-capture list {server}", tmp_path).stdout
    assert run_line(f"usbip-capture probe {server}", tmp_path).returncode == 0
    ours, demo = (run_line(f"usbip-capture list {host}", tmp_path).stdout for host in (server, "demo"))
    assert "  Demo device, DEMO0001  [" in ours
    assert ours.splitlines()[1:] == demo.splitlines()[1:]
    (found,) = json.loads(run_line(f"usbip-capture list {server} --json", tmp_path).stdout)
    assert found["devices"][0]["name"] == "Demo device"
    assert found["devices"][0]["serial_number"] == "DEMO0001"


def test_a_server_is_called_by_its_name(server: str, tmp_path: Path) -> None:
    environment = {"USBIP_CAPTURE_SERVERS": f"bench={server}"}
    for host in ("bench", server):
        assert run_line(f"usbip-capture list {host}", tmp_path, **environment).stdout.startswith(f"bench ({server}):\n")
    (found,) = json.loads(run_line("usbip-capture list bench --json", tmp_path, **environment).stdout)
    assert (found["name"], found["server"]) == ("bench", server)


def test_servers_that_were_used_are_asked_again(server: str, tmp_path: Path) -> None:
    assert run_line(f"usbip-capture list {server}", tmp_path).returncode == 0
    gone = "127.0.0.1:1"
    cache = tmp_path / "cache" / "usbip-capture" / "servers"
    (line,) = [line for line in cache.read_text().splitlines() if line.startswith("server\t")]
    fields = line.split("\t")
    fields[2] = "1"
    cache.write_text(cache.read_text() + "\t".join(fields) + "\n")
    done = run_line("usbip-capture list --mdns-timeout 0.1", tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{server}:\n  1-1  1209:0001" in done.stdout
    assert done.stderr == f"usbip-capture: used before, and not there now: {gone}\n"


def test_numbers_are_numbers_in_json(tmp_path: Path) -> None:
    (listed,) = json.loads(run_line("usbip-capture list demo -v --json", tmp_path).stdout)
    probed = json.loads(run_line("usbip-capture probe demo --json", tmp_path).stdout)
    (port,) = json.loads(run_line("usbip-capture ports demo --json", tmp_path).stdout)
    (device,) = listed["devices"]
    for made in (device, probed):
        assert made["bcdDevice"] == made["descriptors"]["device"]["bcdDevice"] == 0x0100
        assert made["version"] == "1.00"
        assert (made["speed"], made["name"], made["vid_pid"]) == ("480M", "Demo device", "1209:0001")
        assert made["serial_number"] == "DEMO0001"
    for made in (device, probed, port):
        assert (made["idVendor"], made["idProduct"]) == (0x1209, 0x0001)
    assert (probed["host"], probed["port"]) == (listed["host"], listed["port"]) == ("demo", 3240)


def test_the_package_is_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "usbip_capture", "list", "demo"]
    done = subprocess.run(
        command, env=command_environment(tmp_path), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == run_line("usbip-capture list demo", tmp_path).stdout
