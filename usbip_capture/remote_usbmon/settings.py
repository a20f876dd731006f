"""What is captured of the devices of another machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class UsbmonSettings:
    """snaplen: bytes of each packet that cross the network. descriptors: those that its kernel has come first.

    reconnect: wait for a device that was unplugged, and for a machine that was lost.
    """

    snaplen: int
    descriptors: bool = True
    reconnect: bool = True
