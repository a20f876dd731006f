"""Settings for the whole suite."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

# The same examples on every machine and every run.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

# No test looks for servers on the network by accident, or reads or changes what the user's own captures remember.
os.environ["USBIP_CAPTURE_DISCOVERY"] = "off"
os.environ.pop("USBIP_CAPTURE_SERVERS", None)
_folders = tempfile.TemporaryDirectory(prefix="usbip-capture-tests-")
os.environ["XDG_CACHE_HOME"] = os.path.join(_folders.name, "cache")
os.environ["XDG_CONFIG_HOME"] = os.path.join(_folders.name, "config")


@pytest.fixture(scope="session", autouse=True)
def _folders_of_the_tests() -> Iterator[None]:
    yield
    _folders.cleanup()
