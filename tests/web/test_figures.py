"""Figures as browsers get them: true, once for all, and none waits for another one."""

from __future__ import annotations

import json
import threading
import time
from typing import Any, cast

import pytest

from tests.fakes.local_bus import FakeBus
from tests.waiting import wait_until
from tests.web.dashboards import dashboard
from tests.web.test_devices_api import attach, loop
from tests.web.websocket import Refused, websocket
from usbip_capture.server.events import LEASED, REFUSED
from usbip_capture.server.figures import DeviceFigures, Figures
from usbip_capture.usb.urb import Completion, TransferType, Urb
from usbip_capture.web import live_figures
from usbip_capture.web.api import figures
from usbip_capture.web.history import LENGTH, History
from usbip_capture.web.live_figures import Listener
from usbip_capture.web.roles import LOOK

PATH = "/api/v1/figures"
IN, OUT = Urb(TransferType.BULK, 0x81, 512), Urb(TransferType.BULK, 0x02, 512)


class Counting:
    """As `Operations`, as far as a history asks it."""

    def __init__(self) -> None:
        self.figures = Figures()
        self.now = 1000.0

    def count(self) -> Figures:
        return self.figures

    def history(self) -> History:
        return History(cast("Any", self), lambda: self.now, lambda: self.now)

    def device(self, busid: str = "1-1") -> DeviceFigures:
        info = FakeBus().plug(busid).info
        return self.figures.of(info)


def test_rates_are_what_was_moved_by_the_time_that_has_passed() -> None:
    counting = Counting()
    history = counting.history()
    device, other = counting.device(), counting.device("1-2")
    for _ in range(3):
        device.add(IN, Completion(0, 100), 5)
    other.add(OUT, Completion(0, 30), 5)
    counting.now += 0.5
    sample = history.sample()
    assert (sample.time, sample.rate, sample.urbs) == (1000.5, (600.0, 60.0), 8.0)
    assert {busid: rate for busid, (rate, _) in sample.devices.items()} == {"1-1": (600.0, 0.0), "1-2": (0.0, 60.0)}
    counting.now += 2.0  # this machine was busy
    device.add(IN, Completion(0, 100), 5)
    assert history.sample().rate == (50.0, 0.0)
    assert history.series().rates == [(600.0, 60.0), (50.0, 0.0)]
    assert history.series("1-2").rates == [(0.0, 60.0), (0.0, 0.0)]
    assert history.series("9-9").rates == [(0.0, 0.0), (0.0, 0.0)]


def test_ten_minutes_are_kept_in_their_order() -> None:
    counting = Counting()
    history = counting.history()
    device = counting.device()
    for number in range(LENGTH + 7):
        if number == LENGTH:
            counting.device("1-2").add(IN, Completion(0, 10), 5)
        device.add(IN, Completion(0, number), 5)
        counting.now += 1.0
        history.sample()
    series = history.series("1-1")
    assert len(series.times) == len(series.rates) == LENGTH
    assert [rate[0] for rate in series.rates] == list(range(7, LENGTH + 7))
    assert series.times[0] == 1008.0
    assert [rate[0] for rate in history.series("1-2").rates[-8:]] == [0, 10, 0, 0, 0, 0, 0, 0]


def test_a_device_that_was_plugged_in_again_has_no_rate_below_zero() -> None:
    counting = Counting()
    history = counting.history()
    bus = FakeBus()
    counting.figures.of(bus.plug("1-1").info).add(IN, Completion(0, 100), 5)
    counting.now += 1
    history.sample()
    counting.figures.of(bus.plug("1-1").info).add(IN, Completion(0, 10), 5)
    counting.now += 1
    sample = history.sample()
    assert (sample.rate, sample.devices["1-1"][0]) == ((10.0, 0.0), (10.0, 0.0))


def test_a_browser_gets_the_history_and_then_what_happens() -> None:
    with dashboard() as (server, made):
        token = made.side.tokens.add("browser", LOOK)
        with websocket(made.urls[0], PATH, token) as browser:
            first = browser.receive()
            assert (first["type"], first["interval"]) == ("history", 0.5)
            assert len(first["times"]) == len(first["in"]) == len(first["out"])
            before = browser.receive()
            assert (before["type"], before["devices"]["1-1"]["state"], before["clients"]) == ("figures", "free", 0)
            device = attach(server)
            loop(device, b"x" * 100)
            found = until(browser, lambda message: message["devices"]["1-1"]["urbs"] == 3)
            assert found["devices"]["1-1"]["state"] == "in use"
            assert found["devices"]["1-1"]["client"].startswith("127.0.0.1:")
            assert (found["clients"], found["memory"] > 1 << 20, found["captures"]) == (1, True, {})
            assert found["changed"] > before["changed"]
            device.close()
            after = until(browser, lambda message: message["devices"]["1-1"]["state"] == "free")
            assert after["changed"] > found["changed"]
            assert until(browser, lambda message: message["in"] == 0)["skipped"] == 0
        wait_until("nobody listens any more", lambda: not made.side.live._listeners)
        with pytest.raises(Refused, match="401"), websocket(made.urls[0], PATH, "wrong"):
            pass


def until(browser: Any, condition: Any) -> Any:
    for _ in range(200):
        message = browser.receive()
        if condition(message):
            return message
    raise AssertionError("it does not come")


def test_a_browser_that_reads_nothing_holds_up_nobody_and_learns_what_it_has_missed() -> None:
    bus = FakeBus()
    for port in range(1, 65):
        bus.plug(f"1-{port}")
    with dashboard(bus=bus) as (_, made):
        token = made.side.tokens.add("browser", LOOK)
        with websocket(made.urls[0], PATH, token, buffer=4096) as slow, websocket(made.urls[0], PATH, token) as quick:
            wait_until("both listen", lambda: len(made.side.live._listeners) == 2)
            skipping = made.side.live._listeners[0]
            frames = 0
            quick.receive()
            while skipping.skipped <= 3:
                made.side.history.sample()
                quick.receive()
                frames += 1
                assert frames < 300, "what waits for one who does not read is bounded"
            assert slow.receive()["type"] == "history"
            missed = until(slow, lambda message: message["skipped"] > 3)
            assert missed["devices"]["1-64"]["state"] == "free"


def test_a_browser_that_takes_nothing_for_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_TIMEOUT", 0.2)
    bus = FakeBus()
    for port in range(1, 65):
        bus.plug(f"1-{port}")
    with dashboard(bus=bus) as (_, made):
        token = made.side.tokens.add("browser", LOOK)
        with websocket(made.urls[0], PATH, token, buffer=4096):
            wait_until("it listens", lambda: made.side.live._listeners)
            wait_until("it is given up", lambda: bool(made.side.history.sample()) and not made.side.live._listeners, 60)


def test_one_message_is_made_for_all_browsers(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    encode = live_figures._encoded

    def counted(message: Any) -> str:
        if message["type"] == "figures":
            encoded.append(message["time"])
        return encode(message)

    monkeypatch.setattr(live_figures, "_encoded", counted)
    with dashboard() as (_, made):
        made.side.history.sample()
        assert not encoded, "nobody listens"
        token = made.side.tokens.add("browser", LOOK)
        stack = [websocket(made.urls[0], PATH, token) for _ in range(5)]
        browsers = [one.__enter__() for one in stack]
        try:
            for browser in browsers:
                browser.receive()
            times = [[browser.receive()["time"] for _ in range(2)] for browser in browsers]
            assert len(encoded) == len(set(encoded))
            assert {time for some in times for time in some} <= set(encoded)
        finally:
            for one in stack:
                one.__exit__(None, None, None)


def test_what_comes_and_goes_between_two_samples_is_a_change() -> None:
    """A page may have fetched it meanwhile, and would show it for ever."""
    bus = FakeBus()
    with dashboard(bus=bus) as (server, made):
        live, sample = made.side.live, made.side.history.latest
        before = cast("int", live._message(sample)["changed"])
        bus.plug("1-2")
        wait_until("it is exported", lambda: len(server.devices) == 2)
        bus.unplug("1-2")
        wait_until("it is gone", lambda: len(server.operations.devices) == 1)
        after = cast("int", live._message(sample)["changed"])
        assert after > before
        server.events.emit(REFUSED, text="nothing that a page fetches")
        assert live._message(sample)["changed"] == after
        for _ in range(1000):
            server.events.emit(LEASED)
        assert live._message(sample)["changed"] == after + 1
        assert live._message(sample)["changed"] == after + 1


def test_the_newest_frame_waits_and_those_before_are_counted() -> None:
    import asyncio

    async def used() -> list[Any]:
        listener = Listener(asyncio.get_running_loop())
        for number in range(4):
            listener.put(f'{{"n":{number}')
        taken = [json.loads(await listener.take())]
        listener.put('{"n":9')
        return [*taken, json.loads(await listener.take())]

    assert asyncio.run(used()) == [{"n": 3, "skipped": 3}, {"n": 9, "skipped": 3}]


def test_a_sampler_goes_on_after_what_fails(caplog: pytest.LogCaptureFixture) -> None:
    counting = Counting()
    history = History(cast("Any", counting))
    called: list[float] = []
    twice = threading.Event()

    def fails(sample: Any) -> None:
        called.append(time.monotonic())
        if len(called) > 1:
            twice.set()
        raise ValueError("a test's")

    history.listen(fails)
    history.start()
    assert twice.wait(30)
    history.close()
    history.close()
    assert caplog.text.count("the figures of the dashboard cannot be taken") == 1
