"""Wakes whoever waits for the next event on an event loop: one thread for all of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from usbip_capture.server.events import Event, Events

#: Events that are taken from the ring at a time.
MOST = 200


class EventFeed:
    """Follows `events` until `close`, or until they end."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._lock = threading.Lock()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._subscription = events.subscribe(1)  # what does not fit is in the ring
        self._thread = threading.Thread(target=self._run, name="usbip-web-events", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether nothing more comes."""
        return self._subscription.closed

    async def after(self, number: int, timeout: float) -> Sequence[Event]:
        """The events that follow this number, the oldest first; none after `timeout` seconds, or if it is closed."""
        waiting = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting.add(waiting)
        try:
            if not self._events.last > number and not self.closed:
                await asyncio.wait_for(waiting[1].wait(), timeout)
        except asyncio.TimeoutError:
            pass
        finally:
            with self._lock:
                self._waiting.discard(waiting)
        return self._events.after(number, MOST)

    def close(self) -> None:
        """Wake all who wait: nothing more comes. May be called again."""
        self._subscription.close()
        self._thread.join()

    def _run(self) -> None:
        while not self._subscription.closed:
            self._subscription.take(1)
            self._wake()

    def _wake(self) -> None:
        with self._lock:
            waiting = list(self._waiting)
        for loop, woken in waiting:
            try:
                loop.call_soon_threadsafe(woken.set)
            except RuntimeError:  # the loop is closed: nobody waits on it
                pass
