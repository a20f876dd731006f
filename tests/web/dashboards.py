"""A server with its dashboard, over a bus that the test has, and clients of its interfaces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from tests.fakes.local_bus import FakeBus
from usbip_capture import LocalServer, serve
from usbip_capture.servers.configuration import configuration_path
from usbip_capture.web.dashboard import Dashboard
from usbip_capture.web.roles import ADMINISTER

ANY = "127.0.0.1:0"


def configured(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    """The configuration file with this text; configuration, state and cache are in the folder."""
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(folder / variable))
    made = Path(configuration_path())
    made.parent.mkdir(parents=True)
    made.write_text(text)
    return made


@contextmanager
def dashboard(**settings: Any) -> Iterator[tuple[LocalServer, Dashboard]]:
    """Exports all of a bus that has the demo device at 1-1, or `devices`, as `serve` has them."""
    bus = settings.pop("bus", None) or FakeBus()
    if isinstance(bus, FakeBus) and not bus.plugged:
        bus.plug("1-1")
    exported = settings.pop("devices", ["all"])
    given = {"listen": ANY, "web": ANY, **settings}
    with serve(exported, bus=bus, **given) as server:
        yield server, cast("Dashboard", server.dashboard)


@contextmanager
def asking(made: Dashboard, role: str = ADMINISTER, **options: Any) -> Iterator[httpx.Client]:
    """A program with a token of this role."""
    name = f"test-{role}"
    if made.side.tokens.named(name) is not None:
        made.side.tokens.remove(name)
    token = made.side.tokens.add(name, role)
    headers = {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=made.urls[0], headers=headers, timeout=60, trust_env=False, **options) as client:
        yield client


@contextmanager
def browser(made: Dashboard, **options: Any) -> Iterator[httpx.Client]:
    """What has no token yet, keeps cookies, and names its origin."""
    headers = {"origin": made.urls[0].rstrip("/")}
    with httpx.Client(base_url=made.urls[0], headers=headers, timeout=60, trust_env=False, **options) as client:
        yield client
