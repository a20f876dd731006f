"""Control requests of a driver, run on a device: those of one list together in flight, if the driver does not mind."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from usbip_capture.device import Device, Transfer
from usbip_capture.errors import DeviceGone, ServerLost, TransferFailed, TransferTimeout, UsbipError
from usbip_capture.uart.driver import Driver, Request
from usbip_capture.usb.setup import clear_halt
from usbip_capture.usb.status import EPIPE, GONE, TIMED_OUT, status_name
from usbip_capture.usb.urb import Completion, Urb

log = logging.getLogger(__name__)

#: Seconds for the answers to a list of control requests.
TIMEOUT = 5.0


def run(device: Device, driver: Driver, requests: Sequence[Request], *, quiet: bool = False) -> None:
    """Send `requests`, wait at most TIMEOUT seconds for all of them, and let `driver` have the answers.

    Raises TransferFailed, DeviceGone or ServerLost for the first that failed; a stall of an optional one is none.
    quiet: nothing is raised.
    """
    deadline = time.monotonic() + TIMEOUT
    batches = [[request] for request in requests] if driver.one_at_a_time else [requests]
    for batch in batches:
        transfers = [(request, Transfer(Urb.control(request.setup.pack(), request.data))) for request in batch]
        for _, transfer in transfers:
            device.submit(transfer)
        late = [t for _, t in transfers if not device.wait(t, max(deadline - time.monotonic(), 0.0))]
        device.unlink(late)
        errors = [_error(device, driver, request, transfer, transfer in late) for request, transfer in transfers]
        failed = next(filter(None, errors), None)
        if failed is not None:
            if not quiet:
                raise failed
            break


def send(device: Device, requests: Sequence[Request]) -> None:
    """Send `requests` and wait for nothing; what fails is logged."""
    for request in requests:

        def done(completion: Completion, request: Request = request) -> None:
            bad = completion.status and completion.status not in GONE
            if bad and not (request.optional and completion.status == -EPIPE):
                raw = request.setup.pack().hex(" ")
                log.warning("%s: control request %s: %s", device.info, raw, status_name(completion.status))

        device.submit(Transfer(Urb.control(request.setup.pack(), request.data), done, awaited=False))


def send_clear_halt(device: Device, endpoint: int) -> None:
    """Let an endpoint go on after a stall; waits for nothing."""
    send(device, [Request(clear_halt(endpoint), optional=True)])


def _error(device: Device, driver: Driver, request: Request, transfer: Transfer, late: bool) -> UsbipError | None:
    """What was wrong, if anything; else the driver has the answer."""
    completion = transfer.completion
    assert completion is not None
    status = completion.status
    complaint = f"device {device.info} does not do what its serial port should"
    what = f"control request {request.setup.pack().hex(' ')}"
    if late:
        return TransferTimeout(f"{complaint}: no answer within {TIMEOUT:g} s to {what}", status, seconds=TIMEOUT)
    if status in GONE and device.loss:
        return ServerLost(f"{complaint}: {what}: {device.loss}")
    if status in GONE:
        return DeviceGone(f"{complaint}: {what}: {status_name(status)}", status)
    if status and not (request.optional and status == -EPIPE):
        kind = TransferTimeout if status in TIMED_OUT else TransferFailed
        return kind(f"{complaint}: {what}: {status_name(status)}", status)
    if request.reads and not status:
        driver.answered(request, bytes(completion.data))
    return None
