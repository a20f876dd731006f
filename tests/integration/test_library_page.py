"""The pages for programmers stay true: its examples run; the reference is that of the docstrings."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs.usbip_ports import environment

ROOT = Path(__file__).parents[2]
PAGES = {page: (ROOT / "docs" / page).read_text() for page in ("library.md", "serial.md", "server.md")}
BLOCKS = [
    pytest.param(code, id=f"{page}-{number}")
    for page, text in PAGES.items()
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
]


@pytest.mark.parametrize("code", BLOCKS)
def test_examples_run(code: str, tmp_path: Path) -> None:
    if "import serial" in code:
        pytest.importorskip("serial", reason="pyserial, of the extra `serial`, is not installed")
    if "usbip_capture.serve(" in code:
        pytest.importorskip("usb1", reason="libusb1, of the extra `server`, is not installed")
    folder, site = tmp_path / "captures", tmp_path / "site"
    folder.mkdir()
    site.mkdir()
    command = [sys.executable, "-W", "error", "-c", code]
    env = environment(site)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    for capture in folder.iterdir():
        assert capture.stat().st_size > 1000


def test_the_reference_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "docs/make_reference.py"))
    if sys.version_info[:2] != (3, 11):
        pytest.skip("signatures are written a little differently by each version of Python; checked with 3.11")
    assert made["TARGET"].read_text() == made["reference"](), "run python docs/make_reference.py"
