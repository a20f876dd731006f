"""The example project of docs/labgrid.md, run as its reader does, with labgrid's pytest plug-in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs.commands import ROOT
from tests.programs.labgrid_site import Site

EXAMPLE = ROOT / "docs/labgrid-example"
PYTEST = ("-m", "pytest", "-v", "-p", "no:cacheprovider", "--lg-env", "env.yaml", "--lg-log", "captures")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Where it ran, and what pytest printed."""
    site = Site(tmp_path_factory.mktemp("site"))
    project = Path(shutil.copytree(EXAMPLE, site.folder / "project"))
    try:
        exporter = site.exporter("lab", (EXAMPLE / "exporter.yaml").read_text())
        exporter.machine.plug("9.8", "1209:0002")
        for place in ("bench", "board"):
            site.place(place, f"*/{place}/NetworkUsbipDevice")
            site.client("-p", place, "acquire")
        site.folder = project
        yield project, site.run(*PYTEST).stdout
    finally:
        site.close()


def test_all_of_it_passes(ran: tuple[Path, str]) -> None:
    _, printed = ran
    assert "4 passed" in printed, printed


def test_each_test_has_its_capture_beside_the_log(ran: tuple[Path, str]) -> None:
    project, printed = ran
    names = sorted(path.name for path in (project / "captures").iterdir())
    tests = ["test_console", "test_echo", "test_identity", "test_identity_of_a_recording"]
    assert names == ["console_board", *(f"test_bench.py-{name}.pcapng" for name in tests)], printed
