"""Who is connected to a server, as others see it."""

from __future__ import annotations

from itertools import count
from typing import NamedTuple

from usbip_capture.net.listening import Peer


class Client(NamedTuple):
    """Who is connected. since, imported: seconds since 1970; busid is empty and imported 0 without a device.

    urbs, bytes: URBs that the device has answered, and what they moved; bytes_in, bytes_out: 0 if that is not counted.
    number: no other client's in this process.
    """

    peer: Peer
    since: float
    busid: str = ""
    imported: float = 0.0
    urbs: int = 0
    bytes: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    number: int = 0


_numbers = count(1)


def next_number() -> int:
    """For one that connects."""
    return next(_numbers)
