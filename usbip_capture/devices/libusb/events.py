"""Who handles the events of libusb: a thread for that, or one that waits for its client and does so meanwhile.

To have another thread go on takes longer than all else that a short transfer takes. So who reads a client's
requests handles events as well, while it waits for the next one; one thread at a time does so, and for all devices.
The module `usb1` comes from `binding`.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from usbip_capture.device import Waiter
from usbip_capture.errors import UsbipError

log = logging.getLogger(__name__)

#: Seconds that each of those who handle events may need to come back from libusb.
_PATIENCE = 2.0
#: Seconds that the thread for events may need to stop, and until it is asked again when it did not.
_PARKING, _ASK_AGAIN = 0.1, 1.0
#: Seconds that libusb may wait for events that are due: while another thread closes a device it has none for us.
_DUE = 0.001
#: Seconds until libusb is called again when it has failed.
_PAUSE = 0.1
# Of a descriptor whose device is gone; libusb takes it off its list, and it is reported for ever.
_BROKEN = sum(getattr(select, name, 0) for name in ("POLLERR", "POLLHUP", "POLLNVAL"))


class EventHandling:
    """Of one context. ended: nobody handles events any more."""

    def __init__(self, usb1: Any, context: Any) -> None:
        self.ended = False
        self.descriptors = 0  # counts how often libusb may have got others
        self._usb1 = usb1
        self._context = context
        self._next = _unguarded(context.handleEvents)
        self._now = partial(_unguarded(context.handleEventsTimeout), _DUE)
        self._runner: threading.Thread | None = None
        self._handler = 0  # the thread that is in libusb, or in what that calls
        self._afterwards: dict[Callable[[], None], None] = {}  # of that thread
        self._changed = threading.Condition()
        self._asked = False  # whether who handles events comes round
        self._waiter: ClientWaiter | None = None
        self._is_parked = False  # the thread, while there is a waiter
        self._ask_again = 0.0  # of time.monotonic()

    def start(self) -> None:
        """Have the thread. Raises UsbipError if none can be had."""
        with self._changed:
            if self._runner is not None or self.ended:
                return
            thread = threading.Thread(target=self._run, name="libusb-events", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise UsbipError(f"no thread for libusb: {error}: end other programs") from error
            self._runner = thread

    @property
    def is_mine(self) -> bool:
        """Whether this thread handles events now, so that it is in a callback."""
        return self._handler == threading.get_ident()

    def afterwards(self, call: Callable[[], None]) -> bool:
        """See `Handle.afterwards`."""
        if self._handler != threading.get_ident():
            return False
        self._afterwards[call] = None
        return True

    def answers(self, timeout: float) -> bool:
        """Whether who handles events comes round within `timeout` seconds; True if nobody does yet."""
        with self._changed:
            if self._runner is None or self.ended:
                return True
            self._asked = True
            self._context.interruptEventHandler()
            return self._changed.wait_for(lambda: not self._asked or self.ended, timeout)

    def renew(self) -> None:
        """The descriptors that libusb waits for may be others now."""
        self.descriptors += 1
        if self._waiter is not None:
            self._context.interruptEventHandler()

    def end(self) -> bool:
        """Have events handled no more; False if libusb does not return in time, or has called who calls this."""
        thread = self._runner
        with self._changed:
            self.ended = True
            self._changed.notify_all()
        if self.is_mine:
            return False
        if thread is None:
            return True
        self._context.interruptEventHandler()
        with self._changed:
            is_free = self._changed.wait_for(lambda: self._waiter is None, _PATIENCE)
        thread.join(_PATIENCE)
        return is_free and not thread.is_alive()

    def forked(self) -> None:
        """In a child process: nobody handles events here."""
        self.ended = True
        self._changed = threading.Condition()

    # -- on the thread that handles them

    def handle(self, call: Callable[[], object]) -> None:
        """Call libusb, which calls back, then what was to be done afterwards."""
        self._handler = threading.get_ident()
        if self._asked:
            with self._changed:
                self._asked = False
                self._changed.notify_all()
        try:
            try:
                call()
            except self._usb1.USBErrorInterrupted:
                pass
            except self._usb1.USBError as error:
                log.error("libusb cannot handle events: %s", error)
                threading.Event().wait(_PAUSE)
            while self._afterwards:
                done, _ = self._afterwards.popitem()
                try:
                    done()
                except Exception:
                    log.exception("what was to be done after events of libusb failed")
        finally:
            self._handler = 0

    def handle_now(self) -> None:
        """Those that have come."""
        self.handle(self._now)

    def _run(self) -> None:
        while not self.ended:
            if self._waiter is None:
                self.handle(self._next)
            else:
                with self._changed:
                    self._is_parked = True
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._waiter is None or self.ended)
                    self._is_parked = False

    # -- for a thread that waits

    def waiter(self, fileno: int) -> Waiter | None:
        """See `Device.waiter`; None, too, if another thread waits already."""
        before, ended = self._waiter, self.ended  # by other threads, between this look and the next
        if before is not None or ended or self._runner is None or not hasattr(select, "poll"):
            return None
        if time.monotonic() < self._ask_again:
            return None
        made = ClientWaiter(self, self._context, fileno)
        with self._changed:
            before, ended = self._waiter, self.ended
            if before is not None or ended or self.is_mine or not made.renewed():
                return None
            self._waiter = made
            self._context.interruptEventHandler()
            if self._changed.wait_for(lambda: self._is_parked or self.ended, _PARKING):
                return made
        self._ask_again = time.monotonic() + _ASK_AGAIN
        self.leave(made)
        return None

    def is_waiting(self, waiter: ClientWaiter) -> bool:
        """Whether it has not left."""
        return self._waiter is waiter

    def leave(self, waiter: ClientWaiter) -> None:
        """The thread handles events again."""
        with self._changed:
            if self._waiter is waiter:
                self._waiter = None
                self._changed.notify_all()

    def leave_here(self) -> None:
        """For a thread that is to wait for a transfer: if it is the one that waits for a client, it does so no more."""
        waiter = self._waiter
        if waiter is not None and waiter.thread == threading.get_ident():
            self.leave(waiter)


class ClientWaiter(Waiter):
    """Waits for a client's descriptor, and for those of `context`. thread: the one that waits."""

    def __init__(self, events: EventHandling, context: Any, fileno: int) -> None:
        self.thread = threading.get_ident()
        self._events = events
        self._context = context
        self._fileno = fileno
        self._descriptors = -1
        self._poll: Callable[[], list[tuple[int, int]]] = list

    def renewed(self) -> bool:
        """Wait for what libusb has now; False where it does not show that."""
        self._descriptors = self._events.descriptors
        poller = select.poll()
        poller.register(self._fileno, select.POLLIN)
        try:
            for fileno, kind in self._context.getPollFDList() or ():
                poller.register(fileno, kind)
        except (NotImplementedError, OSError):
            return False
        self._poll = poller.poll
        return True

    def wait(self) -> bool:
        events, own = self._events, self._fileno
        while not events.ended and events.is_waiting(self):
            if self._descriptors != events.descriptors and not self.renewed():
                return False
            is_readable = is_due = False
            for fileno, mask in self._poll():
                if fileno == own:
                    is_readable = True
                    continue
                is_due = True
                if mask & _BROKEN:
                    self._descriptors = -1
            if is_due:
                events.handle_now()
            if is_readable:
                return True
        return False

    def end(self) -> None:
        self._events.leave(self)


def _unguarded(method: Callable[..., object]) -> Callable[..., object]:
    """A method of a context without usb1's care that it is not closed meanwhile, for which `EventHandling.end` cares.

    That costs ten calls for each transfer.
    """
    bare = getattr(method, "__wrapped__", None)
    return method if bare is None else partial(bare, method.__self__)  # type: ignore[attr-defined]
