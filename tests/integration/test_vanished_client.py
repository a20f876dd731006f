"""A client that vanished, with a real network that is taken away from it: its device is free again within 30 s."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.programs.commands import ROOT

PROGRAM = "tests.programs.vanishing_client"


def namespaces() -> str:
    """Why there can be no networks here; empty if there can."""
    missing = [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]
    if missing:
        return f"{missing[0]} is not installed"
    tried = subprocess.run(
        ["unshare", "-rn", "ip", "link", "add", "name", "probe", "type", "veth"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no network of one's own: {tried.stderr.strip()}" if tried.returncode else ""


@pytest.mark.long
@pytest.mark.parametrize("size", [0, 1 << 16, 4 << 20], ids=["idle", "not acknowledged", "more than the system takes"])
def test_a_client_that_vanished_is_noticed_within_half_a_minute(size: int) -> None:
    """Counted are the kernel's own timers, which no load of this machine makes longer."""
    if reason := namespaces():
        pytest.skip(reason)
    ran = subprocess.run(
        ["unshare", "-rn", sys.executable, "-m", PROGRAM, str(size)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert 10 < float(ran.stdout) < 30
