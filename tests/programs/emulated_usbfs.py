"""Starts programs on the emulated usbfs of `tests/fakes/usbfs_emulator.py`, where that can be."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def on_emulated_usbfs(device: str, *program: str) -> list[str]:
    """The command that starts `program` on a machine with this device at 1-1; skips the test where there is none."""
    python = "/usr/bin/python3"  # the system's, which has PyGObject and UMockdev
    if not shutil.which("umockdev-wrapper") or not os.path.exists(python):
        pytest.skip("umockdev is not installed")
    check = "import gi; gi.require_version('UMockdev', '1.0'); import sys; sys.exit(sys.version_info < (3, 10))"
    if subprocess.run([python, "-c", check], check=False, capture_output=True).returncode:
        pytest.skip("the system's Python has no UMockdev (gir1.2-umockdev-1.0, python3-gi)")
    return ["umockdev-wrapper", python, str(ROOT / "tests/fakes/usbfs_emulator.py"), device, "--", *program]
