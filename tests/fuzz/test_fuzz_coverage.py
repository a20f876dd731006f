"""Every parser under a coverage-guided fuzzer, and every input that was a bug once.

How long each target is fuzzed: its part of USBIP_CAPTURE_FUZZ_SECONDS; continuous integration sets 60, without it each
has a second.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """The process that instruments what is imported, once for all targets; it works in a folder of its own."""
    pytest.importorskip("atheris", reason="atheris has no wheel for this Python")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "tests.fuzz.coverage"]
    folder, pipe = tmp_path_factory.mktemp("fuzz"), subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_coverage_guided(target: str, fuzzer: subprocess.Popen[str], tmp_path: Path) -> None:
    assert fuzzer.stdin is not None
    assert fuzzer.stdout is not None
    log = tmp_path / "log"
    fuzzer.stdin.write(f"{target} {max(1, round(SECONDS))} {log}\n")
    fuzzer.stdin.flush()
    code, printed = fuzzer.stdout.readline(), log.read_text(errors="replace")
    assert code == "0\n", printed[-6000:]
    executed = re.search(r"stat::number_of_executed_units: (\d+)", printed)
    assert executed, printed[-2000:]
    assert int(executed[1]) > 10
