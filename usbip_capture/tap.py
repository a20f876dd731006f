"""The tap: a Device around a Device, through which every URB passes on its way to a capture."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from functools import partial

from usbip_capture.device import Around, Device, Transfer
from usbip_capture.system.compiling import mypyc_attr
from usbip_capture.usb.status import ECONNRESET, ESHUTDOWN
from usbip_capture.usb.urb import Completion, Urb


@mypyc_attr(allow_interpreted_subclasses=True)
class Tap(metaclass=ABCMeta):
    """Notified of each URB, on the thread that moves it: must not block, and stamps the time by itself."""

    @abstractmethod
    def submitted(self, urb: Urb) -> int:
        """A URB is about to be submitted. Returns the id that its completion is reported with; 0: not recorded."""

    @abstractmethod
    def completed(self, urb_id: int, urb: Urb, completion: Completion) -> None:
        """A URB came back."""

    @abstractmethod
    def unlink(self, urb_id: int, message: bytes) -> None:
        """A CMD_UNLINK for this URB goes out. urb_id 0: a RET_UNLINK has come, or the URB is not recorded."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Tapped(Around):
    """`device`, with every URB shown to `tap`."""

    def __init__(self, device: Device, tap: Tap) -> None:
        super().__init__(device)
        self._tap = tap
        self._closed = False
        self._released = False  # closed while it was there
        device.on_unlink = self._unlink

    def submit(self, transfer: Transfer) -> None:
        if self._closed:  # never on any wire
            self._device.submit(transfer)
            return
        # The id is also kept here: a tap of a device within this one has its own in `tapped_as`.
        transfer.tapped_as = urb_id = self._tap.submitted(transfer.urb)
        if transfer.done is None:  # as `intercept`, without its call
            transfer.done = partial(self._completed, urb_id, transfer)
        else:
            transfer.intercept(partial(self._completed, urb_id, transfer))
        self._device.submit(transfer)

    def close(self) -> None:
        if not self._closed:
            self._released = self._device.alive
            self._closed = True
        super().close()

    def _completed(self, urb_id: int, transfer: Transfer, completion: Completion) -> None:
        if transfer.into is not None and not isinstance(completion.data, bytes):
            # The tap keeps the data for longer than the owner of the memory does.
            completion = Completion(completion.status, completion.actual_length, bytes(completion.data))
        if self._released and completion.status == -ESHUTDOWN:
            # Closed between its recording and its submission: unlinked, as all that is in flight then.
            completion = Completion(-ECONNRESET, start_frame=completion.start_frame, packets=completion.packets)
        self._tap.completed(urb_id, transfer.urb, completion)

    def _unlink(self, message: bytes, transfer: Transfer | None) -> None:
        waits = transfer is not None and transfer.completion is None
        self._tap.unlink(transfer.tapped_as if transfer is not None and waits else 0, message)
