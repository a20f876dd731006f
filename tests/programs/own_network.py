"""Programs that run in a network namespace of their own, where they can make others and their addresses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.programs.commands import ROOT


def in_own_network(module: str, *arguments: str, timeout: float) -> str:
    """What `python -W error -m module` prints there. Skips where there can be no such networks."""
    if reason := _missing():
        pytest.skip(reason)
    ran = subprocess.run(
        ["unshare", "-rn", sys.executable, "-W", "error", "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _missing() -> str:
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
