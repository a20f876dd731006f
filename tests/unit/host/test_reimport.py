"""Importing again: what was released a moment ago, where a lost device may be, how long it is tried."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import pytest

from usbip_capture.errors import DeviceNotFound, UsbipError
from usbip_capture.host.reimport import SETTLING_TIME, Released, import_first, places, retry
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.usb.info import DeviceInfo, Speed

INFO = DeviceInfo("1-1.2", 1, 5, Speed.FULL, 0x303A, 0x4004)
SERVER = ServerAddress.parse("pi")


class Attempts:
    """Fails so many times."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.pauses: list[float] = []

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise DeviceNotFound(f"{self.left} left")
        return "found"


def test_it_is_tried_until_it_succeeds() -> None:
    attempts = Attempts(3)
    assert retry(attempts, 60.0, interval=7.0, pause=attempts.pauses.append) == "found"
    assert attempts.pauses == [7.0] * 3


def test_it_is_tried_until_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def pause(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(DeviceNotFound, match="5 left"):
        retry(Attempts(10), 2.0, interval=0.6, pause=pause)


def test_no_time_is_one_attempt_at_least() -> None:
    assert retry(Attempts(0), 0.0) == "found"


def test_a_pause_that_is_broken_off_is_the_end() -> None:
    with pytest.raises(DeviceNotFound, match="8 left"):
        retry(Attempts(9), pause=lambda seconds: True)


def test_a_fault_of_this_program_is_not_tried_again() -> None:
    def attempt() -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError):
        retry(attempt, 60.0, pause=lambda seconds: pytest.fail("again"))


class Importing:
    """A server's address whose devices are these."""

    def __init__(self, *there: Selector) -> None:
        self.there = there
        self.asked: list[Selector] = []

    def import_device(self, selector: Selector) -> Selector:
        self.asked.append(selector)
        if selector not in self.there:
            raise DeviceNotFound(f"no {selector}")
        return selector


def test_at_its_place_first_then_elsewhere_by_its_vid_pid() -> None:
    here, elsewhere = places(INFO, "42")
    assert (here, elsewhere) == (Selector("1-1.2", serial="42"), Selector(vid_pid=(0x303A, 0x4004), serial="42"))
    server = Importing(elsewhere)
    assert import_first(server, [here, elsewhere]) is elsewhere  # type: ignore[arg-type, comparison-overlap]
    assert server.asked == [here, elsewhere]


def test_the_last_error_counts_and_choices_are_made_as_needed() -> None:
    made: list[str] = []

    def choices() -> Iterator[Selector]:
        for busid in ("1-1", "1-2"):
            made.append(busid)
            yield Selector(busid)

    with pytest.raises(UsbipError, match="no 1-2"):
        import_first(Importing(), choices())  # type: ignore[arg-type]
    assert import_first(Importing(Selector("1-1")), choices()) == Selector("1-1")  # type: ignore[arg-type, comparison-overlap]
    assert made == ["1-1", "1-2", "1-1"]


def test_what_was_released_is_known_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    released = Released()
    released.add(SERVER, INFO)
    released.add(ServerAddress.parse("other"), INFO)
    assert released.of(SERVER) == [INFO]
    assert released.take(SERVER, INFO.busid)
    assert not released.take(SERVER, INFO.busid)
    assert released.of(SERVER) == []
    released.add(SERVER, INFO)
    now[0] += SETTLING_TIME + 0.1
    assert not released.take(SERVER, INFO.busid)
    assert released.of(ServerAddress.parse("other")) == []


def test_the_garbage_collector_may_release_while_it_is_asked() -> None:
    released = Released()

    class Collected:
        def __del__(self) -> None:
            released.add(SERVER, INFO)

    with released._lock:  # as if in the middle of `of`
        cycle: list[object] = [Collected()]
        cycle.append(cycle)
        del cycle
        gc.collect()
    assert released.of(SERVER) == [INFO]
