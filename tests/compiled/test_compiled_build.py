"""The compiled build is what it says, and keeps its memory whole. `install.py --test` runs this against it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module

import pytest

from hatch_build import MODULES
from tests.programs.extcap_launcher import ROOT
from usbip_capture.system.compiling import build

NAMES = [f"usbip_capture.{name.replace('/', '.')}" for name in MODULES.split()]


@pytest.mark.parametrize("name", NAMES)
def test_a_module_of_the_hot_path_is_compiled(name: str) -> None:
    assert build() == "compiled"
    assert not (import_module(name).__file__ or "").endswith(".py")


@pytest.mark.parametrize("name", NAMES)
def test_no_native_class_has_weak_references(name: str) -> None:
    """mypyc gives them to classes with a base that is not compiled, and does not clear them when an object dies."""
    module = import_module(name)
    for thing in vars(module).values():
        # mypyc's own mark of what it has made as a type of C, rather than by calling `type`.
        if isinstance(thing, type) and thing.__module__ == name and "__internal_mypyc_setup" in vars(thing):
            assert not thing.__weakrefoffset__, thing


def test_memory_stays_whole() -> None:
    """Sessions, captures and forks with the collector at work at each object, and each block of memory checked."""
    environment = {**os.environ, "PYTHONMALLOC": "debug", "PYTHONFAULTHANDLER": "1"}
    command = [sys.executable, "-X", "dev", "-W", "error", str(ROOT / "tests/programs/stressed_memory.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "compiled\nwhole\n"
