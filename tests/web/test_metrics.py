"""What Prometheus gets: judged by its own tools, and scraped by a real one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.local_bus import FakeBus
from tests.programs.prometheus import prometheus, queried
from tests.waiting import wait_until
from tests.web.dashboards import asking, dashboard
from tests.web.test_devices_api import attach, loop
from usbip_capture.usb.status import EPIPE
from usbip_capture.usb.urb import Completion, TransferType, Urb
from usbip_capture.web.prometheus import CONTENT_TYPE, COUNTER, Exposition
from usbip_capture.web.roles import LOOK

promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
HOSTILE = 'a "quoted" \\ back\nslash \x00\x1b[31m\u2028 \ud800 é'


def scraped(made: Any) -> httpx.Response:
    with asking(made, LOOK) as client:
        return client.get("/metrics")


def samples(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def judge(metrics: bytes) -> None:
    """By Prometheus' own tool."""
    command = ["promtool", "check", "metrics"]
    checked = subprocess.run(command, input=metrics, capture_output=True, timeout=60, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def hostile_bus() -> FakeBus:
    bus = FakeBus()
    plugged = bus.plug("1-1", serial=HOSTILE)
    plugged.product = HOSTILE
    bus.plug("1-2", classes=(9,), bDeviceClass=9)
    return bus


@promtool
def test_promtool_finds_nothing_wrong() -> None:
    with dashboard(bus=hostile_bus()) as (server, made):
        device = attach(server)
        loop(device, b"x" * 100)
        answer = scraped(made)
        assert answer.headers["content-type"] == CONTENT_TYPE
        judge(answer.content)
        device.close()


def test_what_devices_have_done_by_endpoint() -> None:
    with dashboard() as (server, made):
        device = attach(server)
        loop(device, b"x" * 100)
        figures = next(iter(server.operations.count().devices.values()))
        figures.add(Urb(TransferType.BULK, 0x84, 9), Completion(-EPIPE), 1 << 50)  # longer than all bounds
        wait_until("all is counted", lambda: figures.totals.urbs == 4)
        found = samples(scraped(made).text)
        labels = 'busid="1-1",endpoint="0x84",direction="in",type="bulk"'
        assert found[f"usbip_urbs_total{{{labels}}}"] == 2
        assert found[f"usbip_bytes_total{{{labels}}}"] == 100
        assert found[f"usbip_urb_errors_total{{{labels}}}"] == 1
        assert found[f"usbip_urb_duration_seconds_count{{{labels}}}"] == 2
        assert found[f'usbip_urb_duration_seconds_bucket{{{labels},le="+Inf"}}'] == 2
        buckets = [
            value for name, value in found.items() if name.startswith(f"usbip_urb_duration_seconds_bucket{{{labels}")
        ]
        assert buckets == sorted(buckets)
        assert buckets[-2] == 1
        assert found['usbip_device_in_use{busid="1-1"}'] == found['usbip_device_exported{busid="1-1"}'] == 1
        assert found["usbip_clients"] == 1
        assert [name for name in found if name.startswith("usbip_device_info")] == [
            'usbip_device_info{busid="1-1",vid="303a",pid="4001",product="Demo device",serial=""}'
        ]
        device.close()


def test_labels_are_escaped_and_numbers_exact() -> None:
    made = Exposition()
    made.family("x_total", COUNTER, "Of a test.")
    made.sample(1 << 60, {"text": HOSTILE})
    made.sample(1.5e-5)
    assert str(made) == (
        "# HELP x_total Of a test.\n# TYPE x_total counter\n"
        f'x_total{{text="a \\"quoted\\" \\\\ back\\nslash ??[31m? ? é"}} {1 << 60}\nx_total 1.5e-05\n'
    )


@promtool
def test_captures_that_run() -> None:
    with dashboard() as (server, made), asking(made) as client:
        label = f'{{capture="{client.post("/api/v1/captures", json={}).json()["capture"]["id"]}"}}'
        attach(server).close()
        packets = f"usbip_capture_packets_total{label}"
        wait_until("it has packets", lambda: samples(client.get("/metrics").text)[packets])
        answer = client.get("/metrics")
        found = samples(answer.text)
        assert found[f"usbip_capture_bytes_total{label}"] > found[packets] > 0
        assert found[f"usbip_capture_dropped_total{label}"] == 0
        assert found["usbip_captures"] == 1
        judge(answer.content)


def test_who_has_no_token_gets_no_metrics() -> None:
    with dashboard() as (_, made):
        assert httpx.get(f"{made.urls[0]}metrics", timeout=60, trust_env=False).status_code == 401


@pytest.mark.skipif(not (shutil.which("prometheus") and shutil.which("promtool")), reason="Prometheus is not installed")
def test_a_real_prometheus_scrapes_it(tmp_path: Path) -> None:
    with dashboard(bus=hostile_bus()) as (server, made):
        device = attach(server)
        loop(device, b"x" * 100)
        host, web_port = made.addresses[0]
        configuration = (
            "global: {scrape_interval: 1s}\n"
            "scrape_configs:\n"
            "  - job_name: usbip\n"
            f"    authorization: {{credentials: {made.side.tokens.add('prometheus', LOOK)}}}\n"
            f"    static_configs: [{{targets: ['{host}:{web_port}']}}]\n"
        )
        with prometheus(tmp_path, configuration) as port:
            found = wait_until("it is scraped", lambda: queried(port, "usbip_urbs_total"), 60)
            by_endpoint = {one["metric"]["endpoint"]: one["value"][1] for one in found}
            assert by_endpoint == {"0x00": "1", "0x04": "1", "0x84": "1"}
            assert [one["value"][1] for one in queried(port, "up")] == ["1"]
            (info,) = queried(port, "usbip_device_info")
            assert info["metric"]["product"] == 'a "quoted" \\ back\nslash ??[31m? ? é'
            quantile = "histogram_quantile(0.5, usbip_urb_duration_seconds_bucket{endpoint='0x84'})"
            assert 0 < float(queried(port, quantile)[0]["value"][1]) < 60
        device.close()
