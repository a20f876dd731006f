"""Programs that use other people's USB/IP clients."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest


def run_program(module: str, program: str, port: int, folder: Path) -> str:
    """What `program` prints, which uses `module`."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"PyPI's {module} is not installed")
    (folder / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py", str(port)], cwd=folder, env=dict(os.environ), capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
