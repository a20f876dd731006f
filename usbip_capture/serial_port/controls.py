"""Control requests of a driver, run on a device: those of one list together in flight."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from usbip_capture.device import Device, Transfer
from usbip_capture.errors import ServerLost
from usbip_capture.uart.driver import Driver, Request
from usbip_capture.usb.setup import clear_halt
from usbip_capture.usb.status import EPIPE, GONE, status_name
from usbip_capture.usb.urb import Completion, Urb

log = logging.getLogger(__name__)

#: Seconds for the answer to a control request, and for the server to take one back.
TIMEOUT = 5.0
_GRACE = 0.25


def run(device: Device, driver: Driver, requests: Sequence[Request], *, quiet: bool = False) -> None:
    """Send `requests`, wait for all of them, and let `driver` have the answers.

    Raises ServerLost for the first that failed; a stall of an optional one is none. quiet: nothing is raised.
    """
    transfers = [(request, Transfer(Urb.control(request.setup.pack(), request.data))) for request in requests]
    for _, transfer in transfers:
        device.submit(transfer)
    failed = ""
    for request, transfer in transfers:
        completion = _wait(device, transfer)
        if completion is None:
            failed = failed or f"no answer within {TIMEOUT:g} s to control request {request.setup.pack().hex(' ')}"
        elif completion.status and not (request.optional and completion.status == -EPIPE):
            failed = failed or f"control request {request.setup.pack().hex(' ')}: {status_name(completion.status)}"
        elif request.reads and not completion.status:
            driver.answered(request, bytes(completion.data))
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


def _wait(device: Device, transfer: Transfer) -> Completion | None:
    if not device.wait(transfer, TIMEOUT):
        device.cancel(transfer)
        if not device.wait(transfer, _GRACE):
            device.abandon(transfer)
            device.wait(transfer)
        return None
    return transfer.completion
