"""Settings for the whole suite, and how it is divided among processes."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import settings

# The same examples on every machine and every run.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

# No test looks for servers on the network by accident, or reads or changes what the user's own captures remember.
os.environ["USBIP_CAPTURE_DISCOVERY"] = "off"
os.environ.pop("USBIP_CAPTURE_SERVERS", None)
os.environ.pop("LG_COORDINATOR", None)
# A busy machine is not a server that does not answer; what is about that says how long it waits.
os.environ["USBIP_CAPTURE_CONNECT_TIMEOUT"] = "20"
# Hundreds of programs are started, and would compile what they import each time where nothing is kept of it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Where the suite runs in the background of a script, or with nohup, programs that it starts would not hear of these.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
_folders = tempfile.TemporaryDirectory(prefix="usbip-capture-tests-")
_numbers = count()


def _own_folders() -> dict[str, str]:
    base = os.path.join(_folders.name, str(next(_numbers)))
    kinds = ("cache", "config", "runtime", "state")
    return {f"XDG_{kind.upper()}_{'DIR' if kind == 'runtime' else 'HOME'}": os.path.join(base, kind) for kind in kinds}


os.environ.update(_own_folders())


@pytest.fixture(autouse=True)
def _nothing_is_remembered_between_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, folder in _own_folders().items():
        monkeypatch.setenv(name, folder)


@pytest.fixture(scope="session", autouse=True)
def _folders_of_the_tests() -> Iterator[None]:
    yield
    _folders.cleanup()


# -- which tests run, and which of them side by side (pytest -n 2)

# One guest, one pointer on one screen, and one server that is announced, at a time; what takes longest begins first.
_TOGETHER = {
    "kernel/": "kernel",
    "wireshark/test_window_": "windows",
    "wireshark/test_wireshark_": "windows",
    "integration/test_discover": "announced",
    "integration/test_list_names": "announced",
    "integration/test_announcement": "announced",
}
_ORDER = ("kernel", "wireshark", "web", "integration", "fuzz", "contract", "unit")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked `long` too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        later = [item for item in items if item.get_closest_marker("long")]
        if later:
            config.hook.pytest_deselected(items=later)
            items[:] = [item for item in items if item not in later]
    if hasattr(config, "workerinput"):  # one of several processes
        items.sort(key=lambda item: _turn(item.nodeid))


def pytest_collection_finish() -> None:
    """What the tests themselves are stays: nothing that is garbage is looked for in it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped,unused-ignore]

    class ByFile(LoadScopeScheduling):  # type: ignore[misc,unused-ignore]
        """The tests of a file share what it has set up, so one process runs them one after the other."""

        def _split_scope(self, nodeid: str) -> str:
            place = nodeid.partition("::")[0].removeprefix("tests/")
            return next((group for start, group in _TOGETHER.items() if place.startswith(start)), place)

    config.option.loadscopereorder = False
    return ByFile(config, log)


def _turn(nodeid: str) -> int:
    room = nodeid.removeprefix("tests/").partition("/")[0]
    return _ORDER.index(room) if room in _ORDER else len(_ORDER)
