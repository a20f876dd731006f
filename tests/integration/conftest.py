"""Fixtures of tests that run our programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.extcap_launcher import render_launcher


@pytest.fixture(scope="module")
def extcap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_launcher(tmp_path_factory.mktemp("extcap"))
