"""Settings for the whole suite."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import settings

# The same examples on every machine and every run.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

# No test looks for servers on the network by accident, or reads or changes what the user's own captures remember.
os.environ["USBIP_CAPTURE_DISCOVERY"] = "off"
os.environ.pop("USBIP_CAPTURE_SERVERS", None)
# Where the suite runs in the background of a script, programs that it starts would not hear of Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
_folders = tempfile.TemporaryDirectory(prefix="usbip-capture-tests-")
_numbers = count()


def _own_folders() -> dict[str, str]:
    base = os.path.join(_folders.name, str(next(_numbers)))
    return {"XDG_CACHE_HOME": os.path.join(base, "cache"), "XDG_CONFIG_HOME": os.path.join(base, "config")}


os.environ.update(_own_folders())


@pytest.fixture(autouse=True)
def _nothing_is_remembered_between_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, folder in _own_folders().items():
        monkeypatch.setenv(name, folder)


@pytest.fixture(scope="session", autouse=True)
def _folders_of_the_tests() -> Iterator[None]:
    yield
    _folders.cleanup()
