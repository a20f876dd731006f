"""Actions at their time, whatever one of them does."""

from __future__ import annotations

import threading

import pytest

from usbip_capture.system.timetable import Timetable

TIMEOUT = 30.0


def test_an_action_that_raises_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    timetable = Timetable("test")
    ticks = threading.Semaphore(0)
    later = threading.Event()

    def fails() -> None:
        ticks.release()
        raise ZeroDivisionError

    timetable.every(0.001, fails)
    for _ in range(3):
        assert ticks.acquire(timeout=TIMEOUT)
    timetable.after(0.001, later.set)
    assert later.wait(TIMEOUT)
    timetable.close()
    assert "what was due on test failed" in caplog.text


def test_without_a_thread_nothing_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    timetable, ran = Timetable("test"), threading.Event()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            timetable.after(0.0, lambda: None)
    timetable.after(0.0, ran.set)  # threads can be had again
    assert ran.wait(TIMEOUT)
    timetable.close()


def test_close_need_not_wait_for_what_runs() -> None:
    timetable, runs, goes_on = Timetable("test"), threading.Event(), threading.Event()

    def action() -> None:
        runs.set()
        goes_on.wait(TIMEOUT)

    timetable.after(0.0, action)
    assert runs.wait(TIMEOUT)
    timetable.close(wait=False)
    goes_on.set()
    timetable.close()
