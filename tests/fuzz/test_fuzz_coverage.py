"""Every parser under a coverage-guided fuzzer, and every input that was a bug once.

How long each target is fuzzed: its part of USBIP_CAPTURE_FUZZ_SECONDS; continuous integration sets 60, without it each
has half a second.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
KEPT = sorted(CORPUS.glob("*/*"))
SECONDS = float(os.environ.get("USBIP_CAPTURE_FUZZ_SECONDS", "0")) * 0.8 / len(TARGETS)


@pytest.mark.parametrize("path", KEPT, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_what_was_a_bug_once(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_are_taken(target: str) -> None:
    for seed in seeds(target):
        TARGETS[target](seed)


def test_every_kept_input_has_its_target() -> None:
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= set(TARGETS)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_coverage_guided(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris has no wheel for this Python")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "tests.fuzz.coverage", target, str(max(1, round(SECONDS)))]
    done = subprocess.run(
        command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-6000:]
    executed = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
    assert executed, done.stderr[-2000:]
    assert int(executed[1]) > 10
