"""Fixtures of tests that run our programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.syslog_senders import Device
from tests.programs.extcap_launcher import render_launcher


@pytest.fixture(scope="module")
def extcap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_launcher(tmp_path_factory.mktemp("extcap"))


@pytest.fixture
def device() -> Iterator[Device]:
    """A device that offers its log."""
    found = Device()
    yield found
    found.close()
