"""The page about the command line stays true: its commands run, one after the other, and print what it shows."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.programs.commands import ROOT, run_line
from usbip_capture.cli import exits
from usbip_capture.cli.commands import COMMANDS
from usbip_capture.cli.main import main

PAGE = (ROOT / "docs/commands.md").read_text()
BLOCKS = "".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL))
EXAMPLES = [part.partition("\n") for part in re.split(r"^\$ ", BLOCKS, flags=re.MULTILINE)[1:]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands")


@pytest.mark.parametrize(("line", "output"), [(line, output) for line, _, output in EXAMPLES])
def test_examples_print_what_the_page_shows(line: str, output: str, folder: Path) -> None:
    if "jq" in line and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    done = run_line(line, folder)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if " discover" in line:
        return  # who is there is up to the network
    pattern = re.escape(output.rstrip("\n")).replace(r"\.\.\.", ".*")
    assert re.fullmatch(pattern, done.stdout.rstrip("\n"), re.DOTALL), done.stdout


def test_files_of_the_examples(folder: Path) -> None:
    if not (folder / "demo.pcapng").exists():
        pytest.skip("the examples have not run")
    for name in ("demo.pcapng", "keys.pcapng", "probe.pcapng"):
        assert (folder / name).read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"
    assert (folder / "demo.pcapng.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert len(list(folder.glob("ring_*.pcapng"))) == 3
    assert "syslog0" in (folder / "stats.txt").read_text() or "URB" in (folder / "stats.txt").read_text()


def test_the_exit_codes() -> None:
    assert exits.table() in PAGE


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_complete_and_teaches(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"usbip-capture {name}" in shown
    assert f"`{name}`" in PAGE or f"usbip-capture {name}" in PAGE
    if name not in ("convert", "demo", "stats", "selftest"):
        assert "examples:" in shown
