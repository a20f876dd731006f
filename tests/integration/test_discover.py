"""`discover` and `list` against a server that announces itself by mDNS, on this machine's loopback interface."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from zeroconf import ServiceInfo, Zeroconf

from tests.programs.commands import at_once
from usbip_capture.demo.device import DemoServer
from usbip_capture.servers.mdns import SERVICE_TYPE, browsing

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
    seen = threading.Event()
    with browsing(lambda found: seen.set() if found.name == NAME else None):
        seen.wait(5)
    if not seen.is_set():
        zeroconf.close()
        server.close()
        pytest.skip("multicast does not come back on this machine")
    yield port
    zeroconf.close()
    server.close()


def test_discover_and_list(port: int, tmp_path: Path) -> None:
    """For people, for scripts, and without a host; at once, for each looks for all of its time."""
    folder = tmp_path / "discover"
    text, as_json, devices = at_once([("usbip-capture discover --timeout 5", folder),
                                      ("usbip-capture discover --mdns-timeout 5 --json", tmp_path / "json"),
                                      ("usbip-capture list --mdns-timeout 5", tmp_path / "list")])  # fmt: skip
    assert (text.returncode, text.stderr) == (0, "")
    shown = f"127.0.0.1:{port}  {NAME}\n    also ::1\n    count=1 evil=\\x1b[2J state=idle\n"
    assert shown in text.stdout
    assert f"server\t127.0.0.1\t{port}\tmdns\t{NAME}" in (folder / "cache/usbip-capture/servers").read_text()
    (found,) = [server for server in json.loads(as_json.stdout) if server["name"] == NAME]
    assert (found["host"], found["port"], found["addresses"]) == ("127.0.0.1", port, ["127.0.0.1", "::1"])
    assert found["txt"]["state"] == "idle"
    assert devices.returncode == 0, devices.stderr
    assert f"{NAME} (127.0.0.1:{port}):\n  1-1  1209:0001" in devices.stdout
