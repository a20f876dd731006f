"""The library's page stays true: its examples run; the reference is what the docstrings say."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/library.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=[f"example-{number}" for number in range(len(BLOCKS))])
def test_examples_run(code: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    for capture in tmp_path.iterdir():
        assert capture.stat().st_size > 1000


def test_the_reference_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "docs/make_reference.py"))
    if sys.version_info[:2] != (3, 11):
        pytest.skip("signatures are written a little differently by each version of Python; checked with 3.11")
    assert made["TARGET"].read_text() == made["reference"](), "run python docs/make_reference.py"
