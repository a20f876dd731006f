"""When the writer's thread is woken: not for what comes while it is awake, and for all else."""

from __future__ import annotations

import io
import threading
from functools import partial

import pytest

from tests.builders.recording import INFO, run
from tests.waiting import wait_until
from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.event_queue import EventQueue
from usbip_capture.capture.recorder import COALESCE
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.system.compiling import build


def has_written(writer: PcapWriter, packets: int) -> bool:
    return writer.written == packets


def wait_for_sleep(channel: UsbChannel) -> None:
    wait_until("the writer sleeps until it is woken", lambda: channel._queue.idle)


@pytest.mark.skipif(build() == "compiled", reason="it patches methods, and compiled code calls those directly")
def test_the_writer_is_not_woken_while_something_comes_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """URBs that come in each of its short sleeps; then nothing, until it sleeps until it is woken."""
    short_sleeps = 0
    roused = threading.Semaphore(0)
    sleep, rouse = EventQueue.sleep, EventQueue.rouse

    def watched_sleep(queue: EventQueue, seconds: float) -> bool:
        nonlocal short_sleeps
        if seconds == COALESCE:
            short_sleeps += 1
            if short_sleeps <= 5:
                run(channel)
        return sleep(queue, seconds)

    def watched_rouse(queue: EventQueue) -> None:
        roused.release()
        rouse(queue)

    with PcapWriter(io.BytesIO()) as writer:
        channel = writer.add_usb_interface(INFO, server="pi")
        run(channel)
        wait_until("it is written", lambda: writer.written == 2)
        wait_for_sleep(channel)
        monkeypatch.setattr(EventQueue, "sleep", watched_sleep)
        monkeypatch.setattr(EventQueue, "rouse", watched_rouse)
        run(channel)
        wait_until("all is written", lambda: writer.written == 14)
        wait_for_sleep(channel)
        assert roused.acquire(blocking=False)
        assert not roused.acquire(blocking=False)
        # The last one is that in which nothing came.
        assert short_sleeps == 6


def test_each_one_that_finds_the_writer_asleep_wakes_it() -> None:
    with PcapWriter(io.BytesIO()) as writer:
        channel = writer.add_usb_interface(INFO, server="pi")
        for count in range(1, 20):
            wait_for_sleep(channel)
            run(channel)
            wait_until("it is written", partial(has_written, writer, 2 * count))


def test_whoever_flushes_meets_the_writer_at_any_moment() -> None:
    """Many at once, each for what it has just captured: none waits for the next one to wake the writer."""
    with PcapWriter(io.BytesIO()) as writer:
        channel = writer.add_usb_interface(INFO, server="pi")
        done: list[bool] = []

        def work() -> None:
            for _ in range(50):
                run(channel)
                done.append(writer.flush(30))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert done == [True] * 200
        assert writer.written == 400
