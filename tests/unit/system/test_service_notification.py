"""What a service manager hears of us, over a real socket as systemd has it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from usbip_capture.system.service_notification import ALIVE, READY, notify, watchdog_period


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = str(tmp_path / "notify") if request.param == "path" else f"@usbip-capture-test-{os.getpid()}"
        sock.bind(name if request.param == "path" else "\0" + name[1:])
        sock.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield sock


def test_it_hears_of_us(manager: socket.socket) -> None:
    assert notify(READY, "STATUS=2 devices")
    assert manager.recv(1000) == b"READY=1\nSTATUS=2 devices"
    assert notify(ALIVE)
    assert manager.recv(1000) == b"WATCHDOG=1"


@pytest.mark.parametrize("name", ["", "relative", "/not/there", "@" + "x" * 200])
def test_without_one_nothing_happens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    assert not notify(READY)
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not notify(READY)


def test_one_that_does_not_listen_costs_no_time(manager: socket.socket) -> None:
    sent = 0
    while notify(ALIVE):
        sent += 1
        assert sent < 100_000
    assert manager.recv(1000) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("usec", "pid", "period"),
    [("10000000", "own", 10.0), ("10000000", "", 10.0), ("10000000", "1", 0.0), ("", "", 0.0), ("-1", "", 0.0),
     ("x", "own", 0.0)],
)  # fmt: skip
def test_how_often(usec: str, pid: str, period: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert watchdog_period() == period
