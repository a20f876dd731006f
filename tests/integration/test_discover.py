"""`discover` and `list` against a server that announces itself by mDNS, on this machine's loopback interface."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from zeroconf import ServiceInfo, Zeroconf

from tests.programs.commands import run_line
from usbip_capture.demo.device import DemoServer
from usbip_capture.servers.mdns import SERVICE_TYPE, discover_usbip_servers

NAME = f"Test bridge {os.getpid()}"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = DemoServer()
    _, port = server.listen("127.0.0.1", 0)
    zeroconf = Zeroconf(interfaces=["127.0.0.1"])
    info = ServiceInfo(
        SERVICE_TYPE,
        f"{NAME}.{SERVICE_TYPE}",
        port,
        addresses=[socket.inet_aton("127.0.0.1"), socket.inet_pton(socket.AF_INET6, "::1")],
        properties={"state": "idle", "count": "1", "evil": "\x1b[2J"},
        server=f"test-bridge-{os.getpid()}.local.",
    )
    zeroconf.register_service(info)
    if not any(found.name == NAME for found in discover_usbip_servers(5.0)):
        zeroconf.close()
        server.close()
        pytest.skip("multicast does not come back on this machine")
    yield port
    zeroconf.close()
    server.close()


def test_discover(port: int, tmp_path: Path) -> None:
    done = run_line("usbip-capture discover --timeout 1.5", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    text = f"127.0.0.1:{port}  {NAME}\n    also ::1\n    count=1 evil=\\x1b[2J state=idle\n"
    assert text in done.stdout
    assert f"server\t127.0.0.1\t{port}\tmdns\t{NAME}" in (tmp_path / "cache/usbip-capture/servers").read_text()


def test_discover_for_scripts(port: int, tmp_path: Path) -> None:
    done = run_line("usbip-capture discover --mdns-timeout 5 --json", tmp_path)
    (found,) = [server for server in json.loads(done.stdout) if server["name"] == NAME]
    assert (found["host"], found["port"], found["addresses"]) == ("127.0.0.1", port, ["127.0.0.1", "::1"])
    assert found["txt"]["state"] == "idle"


def test_list_without_a_host(port: int, tmp_path: Path) -> None:
    done = run_line("usbip-capture list --mdns-timeout 5", tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{NAME} (127.0.0.1:{port}):\n  1-1  1209:0001" in done.stdout
