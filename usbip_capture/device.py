"""The waist of the package: a `Device` runs `Transfer`s, wherever the USB device lives.

Simulated and remote devices are Devices; the PyUSB backend, the probe and the server use Devices; the tap is a
Device around a Device.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Sequence

from usbip_capture.errors import LocalProtocolError
from usbip_capture.system.compiling import mypyc_attr
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.status import ECONNRESET, is_known
from usbip_capture.usb.urb import Completion, Urb

log = logging.getLogger(__name__)

#: Seconds that a server has to unlink a URB, or to answer it after all.
UNLINK_GRACE = 0.25
#: Seconds in which another thread is through with a transfer that it finishes, or submits, just now.
_PASSING = 1.0


@mypyc_attr(allow_interpreted_subclasses=True)
class Transfer:
    """One URB on its way. The caller makes it; the device finishes it exactly once.

    done: called with the completion, from any thread, before `completion` is set.
    awaited: the caller will call `Device.wait`; without `done` that is taken for granted. A transfer that is not
    awaited makes the device look for its completion by itself.
    into: memory as long as the URB, where the device may put the data of an IN transfer; the completion's data is
    then a part of it, until its owner changes it. Without, and where that gains nothing, data has memory of its own.
    tapped_as: the id that a tap knows its URB by, 0 if none does.
    """

    __slots__ = ("_signal", "awaited", "completion", "done", "into", "tapped_as", "urb")

    def __init__(
        self,
        urb: Urb,
        done: Callable[[Completion], None] | None = None,
        awaited: bool | None = None,
        into: memoryview | None = None,
    ) -> None:
        self.urb = urb
        self.into = into
        self.completion: Completion | None = None
        self.awaited = done is None if awaited is None else awaited
        self.tapped_as = 0
        self.done = done
        self._signal: threading.Lock | None = None

    def intercept(self, seen: Callable[[Completion], None]) -> None:
        """Have `seen` called with the completion before anybody else learns of it: for devices around devices."""
        rest = self.done
        if rest is None:
            self.done = seen
            return

        def first(completion: Completion) -> None:
            try:
                seen(completion)
            finally:
                rest(completion)

        self.done = first

    def finish(self, completion: Completion) -> None:
        """Called by the device, once; a callback that raises is logged. Raises LocalProtocolError when called again."""
        if self.completion is not None:
            raise LocalProtocolError(f"{self.urb!r} was finished twice")
        try:
            if self.done is not None:
                self.done(completion)
        except Exception:
            log.exception("the callback of %r failed", self.urb)
        finally:
            self.done = None  # which may refer to this transfer, and its data not stay for that
            self.completion = completion
            if self._signal is not None:
                self.wake()

    def wake(self) -> None:
        """Let a thread in `sleep` look again."""
        signal = self._signal
        if signal is not None:
            try:
                signal.release()
            except RuntimeError:  # it is awake already
                pass

    def arm(self) -> threading.Lock:
        """From now on `wake` is remembered until the next `sleep`; one thread at a time."""
        signal = self._signal
        if signal is None:
            signal = threading.Lock()
            signal.acquire()
            self._signal = signal
        return signal

    def sleep(self, timeout: float | None) -> None:
        """Block until finished, woken or `timeout` seconds are over; one thread at a time."""
        # Armed before the look at `completion`, which is set before the look at `_signal`: no wake-up is lost.
        signal = self.arm()
        if self.completion is None:
            signal.acquire(timeout=-1 if timeout is None else timeout)


@mypyc_attr(allow_interpreted_subclasses=True)
class Waiter(metaclass=ABCMeta):
    """See `Device.waiter`: transfers finish on the thread that waits; those of other devices may, too."""

    @abstractmethod
    def wait(self) -> bool:
        """Until the descriptor is readable: True; False if this cannot wait any more, and `end` is to be called."""

    @abstractmethod
    def end(self) -> None:
        """To be called before the thread waits for anything else. May be called again."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Device(metaclass=ABCMeta):
    """Runs URBs. May finish a transfer before `submit` returns, and from any thread; never loses one.

    on_unlink: called with the messages that unlink transfers, where there is a wire: of a CMD_UNLINK with its transfer
    before it is sent, of a RET_UNLINK without one when it has come. From any thread.
    """

    info: DeviceInfo
    closed = False  # by us, while it was there
    on_unlink: Callable[[bytes, Transfer | None], None] | None = None

    @property
    @abstractmethod
    def alive(self) -> bool:
        """False once the device was closed or is gone."""

    @property
    def loss(self) -> str:
        """Why it is not alive any more, as far as that is known."""
        return ""

    @abstractmethod
    def submit(self, transfer: Transfer) -> None:
        """Start a transfer. A device that is gone finishes it with -ESHUTDOWN; nothing is raised for that."""

    @abstractmethod
    def cancel(self, transfer: Transfer) -> None:
        """Ask for a transfer back. It finishes in its own time, unlinked or complete, whichever won the race."""

    def wait(self, transfer: Transfer, timeout: float | None = None) -> bool:
        """Block until `transfer` is finished: True; False after `timeout` seconds. Spurious False is not allowed."""
        if transfer.completion is None:
            transfer.sleep(timeout)
        return transfer.completion is not None

    @abstractmethod
    def watch(self, on_lost: Callable[[str], None]) -> None:
        """Call `on_lost` with the reason, from any thread, once the device is gone by itself. Some never do."""

    @abstractmethod
    def close(self) -> None:
        """Release the device: what is pending is unlinked (-ECONNRESET), what is submitted later gets -ESHUTDOWN.

        Never raises; may be called again.
        """

    def afterwards(self, call: Callable[[], None]) -> bool:
        """For who is just called by a transfer that finishes: have `call` called when those that end with it have, too.

        Once, by this thread, however often it was asked for. False: there is no such moment, and it will not be called.
        """
        return False

    def waiter(self, fileno: int) -> Waiter | None:
        """For a thread that waits for this descriptor to be readable: what waits for it, and handles the events of the
        device meanwhile, so that no other thread has to. None: nothing of this kind, or not now.
        """
        return None

    @abstractmethod
    def abandon(self, transfer: Transfer) -> None:
        """Finish a cancelled transfer with -ECONNRESET now: the peer never answered. No effect when finished.

        Its `into` is not written to any more when this returns, if its owner does not wait for it meanwhile.
        """

    def unlink(self, transfers: Sequence[Transfer], grace: float = UNLINK_GRACE) -> None:
        """Cancel transfers, and abandon those that are not finished within `grace` seconds, for all of them together.

        All that were submitted are finished when this returns.
        """
        for transfer in transfers:
            self.cancel(transfer)
        deadline = time.monotonic() + grace
        for transfer in transfers:
            if not self.wait(transfer, max(deadline - time.monotonic(), 0.0)):
                self.abandon(transfer)
                self.wait(transfer, _PASSING)

    def run(self, urb: Urb, timeout: float | None = None, grace: float = 1.0) -> Completion:
        """Submit, wait, and cancel when `timeout` seconds are over; a reply that wins that race counts.

        Returns a completion of -ECONNRESET if the transfer was unlinked.
        """
        transfer = Transfer(urb)
        self.submit(transfer)
        if not self.wait(transfer, timeout):
            self.unlink([transfer], grace)
            return after_unlink(transfer)
        completion = transfer.completion
        if completion is None:
            raise LocalProtocolError(f"{self!r} lost {urb!r}")
        return completion


@mypyc_attr(allow_interpreted_subclasses=True)
class Around(Device):
    """Around `device`, to which it passes everything on; a subclass does something besides."""

    def __init__(self, device: Device) -> None:
        self.info = device.info
        self._device = device

    @property
    def alive(self) -> bool:
        return self._device.alive

    @property
    def closed(self) -> bool:  # type: ignore[override]
        return self._device.closed

    @property
    def loss(self) -> str:
        return self._device.loss

    def submit(self, transfer: Transfer) -> None:
        self._device.submit(transfer)

    def cancel(self, transfer: Transfer) -> None:
        self._device.cancel(transfer)

    def abandon(self, transfer: Transfer) -> None:
        self._device.abandon(transfer)

    def wait(self, transfer: Transfer, timeout: float | None = None) -> bool:
        return self._device.wait(transfer, timeout)

    def watch(self, on_lost: Callable[[str], None]) -> None:
        self._device.watch(on_lost)

    def afterwards(self, call: Callable[[], None]) -> bool:
        return self._device.afterwards(call)

    def waiter(self, fileno: int) -> Waiter | None:
        return self._device.waiter(fileno)

    def close(self) -> None:
        self._device.close()


def after_unlink(transfer: Transfer) -> Completion:
    """How a transfer ended that was cancelled, and is finished.

    Some servers answer CMD_UNLINK with a RET_SUBMIT that has no data and a number of their own: -ECONNRESET as well.
    """
    completion = transfer.completion
    if completion is None:
        raise LocalProtocolError(f"{transfer.urb!r} was lost")
    if completion.actual_length or is_known(completion.status):
        return completion
    return Completion(-ECONNRESET, packets=completion.packets)
