"""The README stays true: its Python examples run, the files it names exist, its commands have the options they use."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
ROOMS = re.findall(r"^\| (`[^|]*) \|", (ROOT / "docs/code-map.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("code", EXAMPLES, ids=[f"example-{i}" for i in range(len(EXAMPLES))])
def test_python_examples_run(code: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", code]
    subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True, timeout=60)
    (capture,) = tmp_path.glob("*.pcapng")
    assert capture.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"
    assert len(capture.read_bytes()) > 1000


def test_rooms_exist() -> None:
    named = [name for row in ROOMS for name in re.findall(r"`([^`]*)`", row)]
    assert len(named) > 10
    for name in named:
        assert any((base / name).exists() for base in (ROOT, ROOT / "usbip_capture", ROOT / "tests")), name
