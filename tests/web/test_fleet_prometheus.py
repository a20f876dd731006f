"""The configuration for Prometheus and the dashboard for Grafana of `docs/fleet.md`, in a real Prometheus."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.fakes.local_bus import FakeBus
from tests.programs.commands import ROOT
from tests.programs.prometheus import prometheus, queried
from tests.waiting import wait_until
from tests.web.dashboards import asking, dashboard
from tests.web.test_devices_api import attach, loop
from usbip_capture.device import Device
from usbip_capture.web.roles import LOOK

PAGE = (ROOT / "docs/fleet.md").read_text()
GRAFANA = json.loads((ROOT / "docs/grafana-fleet.json").read_text())
TARGETS = [(panel["title"], target["expr"]) for panel in GRAFANA["panels"] for target in panel["targets"]]
#: What Grafana puts in place of its variables: all servers, and four times the scrape interval or more.
VARIABLES = {"$server": ".*", "$__rate_interval": "1m"}
needed = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="Prometheus is not installed"
)


class Scraped(NamedTuple):
    """port: of Prometheus. devices: attached, one of each server."""

    port: int
    devices: list[Device]
    buses: list[FakeBus]

    def series(self, query: str) -> list[dict[str, Any]]:
        return queried(self.port, query)

    def work(self) -> None:
        for device in self.devices:
            loop(device, b"x" * 100)


def configuration(folder: Path, targets: list[str], tokens: list[str]) -> str:
    """The one of the page, with other addresses, files and a shorter interval."""
    text: str = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]
    text = text.replace("scrape_interval: 15s", "scrape_interval: 1s")
    names = re.findall(r"/etc/prometheus/(\w+)\.token", text)
    addresses = re.findall(r'\["([0-9.:]+)"\]', text)
    assert len(names) == len(addresses) == len(targets)
    for name, address, target, token in zip(names, addresses, targets, tokens, strict=True):
        (folder / f"{name}.token").write_text(token)
        text = text.replace(address, target).replace(f"/etc/prometheus/{name}.token", str(folder / f"{name}.token"))
    return text


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """Two servers with two devices each, one in use, one that was unplugged, and a capture that runs."""
    folder = tmp_path_factory.mktemp("prometheus")
    with ExitStack() as stack:
        targets, tokens, devices, buses = [], [], [], []
        for name in ("pi", "lab"):
            bus = FakeBus()
            bus.plug("1-1", serial=f"{name}-1")
            bus.plug("1-2", serial=f"{name}-2")
            captures = str(folder / f"captures-{name}")
            server, made = stack.enter_context(dashboard(bus=bus, captures=captures))
            stack.enter_context(asking(made)).post("/api/v1/captures", json={})
            targets.append("{}:{}".format(*made.addresses[0]))
            tokens.append(made.side.tokens.add(f"prometheus-{name}", LOOK))
            stack.callback(made.side.tokens.remove, f"prometheus-{name}")
            devices.append(attach(server))
            stack.callback(devices[-1].close)
            buses.append(bus)
        port = stack.enter_context(prometheus(folder, configuration(folder, targets, tokens)))
        scraped = Scraped(port, devices, buses)
        wait_until("both are scraped", lambda: len(scraped.series('up{job="usbip"} == 1')) == 2, 60)
        for bus in buses:
            bus.unplug("1-2")
        gone = "count(last_over_time(usbip_device_info[1d])) - count(usbip_device_info)"
        wait_until("what was unplugged is noticed", lambda: _value(scraped.series(gone)) == 2, 60)
        yield scraped


def _value(series: list[dict[str, Any]]) -> float:
    return float(series[0]["value"][1]) if series else 0.0


def asked(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


@needed
@pytest.mark.parametrize(("title", "expression"), TARGETS)
def test_each_query_of_the_grafana_dashboard_returns_series(title: str, expression: str, scraped: Scraped) -> None:
    least = 2 if " by (instance" in expression and "sum(count" not in expression else 0  # of each server

    def returns() -> bool:
        scraped.work()
        found = [one for one in scraped.series(asked(expression)) if one["value"][1] not in ("NaN", "+Inf", "-Inf")]
        return bool(found) and len({one["metric"].get("instance") for one in found}) >= least

    wait_until(f"{title} has series", returns, 60)


@needed
@pytest.mark.parametrize(
    ("title", "expected"),
    [("Servers", 2), ("Servers that do not answer", 0), ("Devices", 2), ("In use", 2), ("Missing", 2)],
)
def test_what_the_numbers_are(title: str, expected: int, scraped: Scraped) -> None:
    (expression,) = [expression for name, expression in TARGETS if name == title]
    assert _value(scraped.series(asked(expression))) == expected


@needed
def test_the_variables_of_the_dashboard_have_values(scraped: Scraped) -> None:
    (server,) = [one for one in GRAFANA["templating"]["list"] if one["name"] == "server"]
    found = re.fullmatch(r"label_values\((\w+), (\w+)\)", server["query"]["query"])
    assert found is not None
    assert len({one["metric"][found[2]] for one in scraped.series(found[1])}) == 2


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    """Ref: Grafana, dashboard JSON model: what every panel has; ids are different, and nothing overlaps."""
    panels = GRAFANA["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
    for panel in panels:
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert {target["refId"] for target in panel["targets"]}
    names = {variable["name"] for variable in GRAFANA["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(GRAFANA)))
    assert used - {"__rate_interval", "__all"} == names
