"""Control requests of a driver, run on a device: those of one list together in flight, if the driver does not mind."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from usbip_capture.device import Device, Transfer
from usbip_capture.errors import ServerLost
from usbip_capture.uart.driver import Driver, Request
from usbip_capture.usb.setup import clear_halt
from usbip_capture.usb.status import EPIPE, GONE, status_name
from usbip_capture.usb.urb import Completion, Urb

log = logging.getLogger(__name__)

#: Seconds for the answers to a list of control requests, and for the server to unlink one.
TIMEOUT = 5.0
_GRACE = 0.25


def run(device: Device, driver: Driver, requests: Sequence[Request], *, quiet: bool = False) -> None:
    """Send `requests`, wait at most TIMEOUT seconds for all of them, and let `driver` have the answers.

    Raises ServerLost for the first that failed; a stall of an optional one is none. quiet: nothing is raised.
    """
    deadline = time.monotonic() + TIMEOUT
    batches = [[request] for request in requests] if driver.one_at_a_time else [requests]
    failed = ""
    for batch in batches:
        transfers = [(request, Transfer(Urb.control(request.setup.pack(), request.data))) for request in batch]
        for _, transfer in transfers:
            device.submit(transfer)
        for request, transfer in transfers:
            wrong = _outcome(driver, request, _wait(device, transfer, deadline))
            failed = failed or wrong
        if failed:
            break
    if failed and not quiet:
        raise ServerLost(f"device {device.info} does not do what its serial port should: {failed}")


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


def _outcome(driver: Driver, request: Request, completion: Completion | None) -> str:
    """What was wrong, if anything; else the driver has the answer."""
    what = f"control request {request.setup.pack().hex(' ')}"
    if completion is None:
        return f"no answer within {TIMEOUT:g} s to {what}"
    if completion.status and not (request.optional and completion.status == -EPIPE):
        return f"{what}: {status_name(completion.status)}"
    if request.reads and not completion.status:
        driver.answered(request, bytes(completion.data))
    return ""


def _wait(device: Device, transfer: Transfer, deadline: float) -> Completion | None:
    if not device.wait(transfer, max(deadline - time.monotonic(), 0.0)):
        device.cancel(transfer)
        if not device.wait(transfer, _GRACE):
            device.abandon(transfer)
            device.wait(transfer)
        return None
    return transfer.completion
