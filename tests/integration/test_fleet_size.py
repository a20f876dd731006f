"""200 servers with 10 devices each, real ones in another process, one in ten of them dead: what `fleet` shows.

`pytest -s` prints what was measured: the time is not asserted, the memory is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs.commands import ROOT, command_environment

SERVERS, DASHBOARDS, DEAD, DEVICES = 180, 90, 20, 10
MAX_KIB = 200 << 10

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the fleet is configured, while its servers run."""
    made = tmp_path_factory.mktemp("fleet")
    (made / "servers").mkdir()
    servers = command_environment(made / "servers")
    command = [sys.executable, "-m", "tests.programs.many_servers", *map(str, (SERVERS, DASHBOARDS, DEAD, DEVICES))]
    with (made / "log").open("w") as log, subprocess.Popen(
        command, cwd=ROOT, env=servers, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
    ) as process:  # fmt: skip
        assert process.stdout is not None
        configuration = process.stdout.read()
        assert configuration.count(b"=") == SERVERS + DEAD + 2 * DASHBOARDS, (made / "log").read_text()
        path = made / "config/usbip-capture/config.toml"
        path.parent.mkdir(parents=True)
        path.write_bytes(configuration)
        path.chmod(0o600)
        yield made
        process.communicate(timeout=120)


def test_200_servers_with_10_devices(folder: Path) -> None:
    command = ["usbip-capture", "fleet", "--json", "--connect-timeout", "20"]
    began = time.monotonic()
    with subprocess.Popen(command, cwd=folder, env=command_environment(folder), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        found = json.loads(process.stdout.read())
        _, status, used = os.wait4(process.pid, 0)
    sys.stdout.write(f"{time.monotonic() - began:.2f} s, {used.ru_maxrss >> 10} MiB\n")
    assert used.ru_maxrss < MAX_KIB
    assert status >> 8 == 3  # some are dead
    servers = found["servers"]
    assert len(servers) == SERVERS + DEAD
    assert [server["name"] for server in servers if server["error"]] == [f"dead-{at:03d}" for at in range(DEAD)]
    assert sum(server["way"] == "dashboard" for server in servers) == DASHBOARDS
    assert all(len(server["devices"]) == DEVICES for server in servers if not server["error"])
    assert found["totals"]["devices"] == SERVERS * DEVICES
