"""Fixtures of captures."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_until("the threads of the test end", lambda: set(threading.enumerate()) <= before)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "capture.pcapng"
