"""Several devices into one capture, each on a thread of its own: what is wrong with one ends that one only."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from usbip_capture.errors import UsbipError

log = logging.getLogger(__name__)


class Part(NamedTuple):
    """run: captures one device, until it ends or is stopped. refuse: called instead if no thread can be had for it."""

    run: Callable[[], None]
    refuse: Callable[[], None]


def run_together(parts: Sequence[Part], name: str) -> list[UsbipError]:
    """Run all of them, the first one on this thread; what they have raised, in the order in which they did.

    name: of the threads. Returns when all have ended.
    """
    errors: list[UsbipError] = []
    threads = []
    for part in parts[1:]:
        thread = threading.Thread(target=_run, args=(part, errors), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as refused:
            part.refuse()
            errors.append(UsbipError(f"a device is not captured: this system starts no more threads: {refused}"))
        else:
            threads.append(thread)
    for part in parts[:1]:
        _run(part, errors)
    for thread in threads:
        thread.join()
    return errors


def _run(part: Part, errors: list[UsbipError]) -> None:
    try:
        part.run()
    except UsbipError as error:
        errors.append(error)
    except Exception as error:  # nobody else hears of it
        log.exception("the capture of a device ended by a fault of this program")
        errors.append(UsbipError(f"the capture of a device ended by a fault of this program: {error!r}"))
