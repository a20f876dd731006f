"""The interface of a server in the real tshark: joined while a client works, and joined again when it is back."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.test_server_mode import busy
from tests.programs.extcap_launcher import wireshark_environment
from tests.programs.sshd import free_port
from tests.waiting import wait_until
from tests.web.dashboards import dashboard
from tests.web.test_captures import client_of
from usbip_capture.web.roles import LOOK

pytestmark = [
    pytest.mark.wireshark,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]


def contents(folder: Path) -> bytes:
    """What tshark has written so far."""
    return b"".join(path.read_bytes() for path in folder.glob("*.pcapng"))


def test_it_is_listed_joined_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = wireshark_environment(tmp_path)
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        if name in environment:
            monkeypatch.setenv(name, environment[name])
    monkeypatch.setenv("HOME", environment["HOME"])
    port = free_port()
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / "joined.pcapng"
    with dashboard(web=f"127.0.0.1:{port}") as (server, made), client_of(server) as device, busy(device):
        environment["USBIP_CAPTURE_TOKEN"] = made.side.tokens.add("tshark", LOOK)
        command = ["tshark", "-i", "usbip-remote", "-w", str(path)]
        for name, value in {"host": made.urls[0], "mode": "server"}.items():
            command += ["-o", f"extcap.usbip_remote.{name}:{value}"]
        run = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        try:
            wait_until("packets", lambda: len(contents(folder)) > 4000 or run.poll() is not None, 60)
            assert run.poll() is None, run.communicate()
        except BaseException:
            run.kill()
            raise
    try:
        wait_until("the loss", lambda: b"it is waited for" in contents(folder), 60)
        with dashboard(web=f"127.0.0.1:{port}") as (server, _), client_of(server) as device, busy(device):
            wait_until("it is back", lambda: b"is joined again after" in contents(folder), 60)
            size = len(contents(folder))
            wait_until("packets", lambda: len(contents(folder)) > size + 4000, 60)
            run.terminate()
            assert run.wait(60) == 0
    finally:
        run.kill()
        run.communicate()
    shown = subprocess.run(
        ["tshark", "-r", str(path), "-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment"],
        env=environment, capture_output=True, text=True, check=True, timeout=60,
    ).stdout.splitlines()  # fmt: skip
    names = [line.partition("\t")[0] for line in shown]
    assert set(names) == {"usbip0", "notes0", "events0"}
    at = max(number for number, line in enumerate(shown) if "is joined again after" in line)
    assert "usbip0" in names[at + 1 :]
    assert "notes0" not in names[at + 1 :]
    assert os.path.getsize(path) > 0
