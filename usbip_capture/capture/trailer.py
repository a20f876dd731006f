"""The statistics at the end of a capture, or at the end of each file of one that is written into several.

Ref: IETF draft-ietf-opsawg-pcapng, 4.6 (Interface Statistics Block)
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.log_channel import LogChannel
from usbip_capture.records.pcapng import Section
from usbip_capture.usb.urb import Buffer


@dataclass(slots=True)
class Part:
    """What is in the current file of several. packets: by interface. interfaces: how many are described in it."""

    packets: dict[int, int] = field(default_factory=dict)
    interfaces: int = 0


class Trailer:
    """Makes the statistics blocks. Each counts what the files before have not.

    is_filtered: whether there is a capture filter; how much it let pass is counted then.
    """

    def __init__(self, section: Section, *, is_filtered: bool) -> None:
        self._section = section
        self._is_filtered = is_filtered
        self._started_ns = 0
        self._counted: dict[int, tuple[int, int]] = {}  # dropped and filtered, by interface

    def blocks(
        self, channels: Iterable[UsbChannel | LogChannel], part: Part | None, *, is_last: bool = True
    ) -> list[Buffer]:
        """A block for each interface that is described in the output. part: None if all is in one file."""
        end_ns = time.time_ns()
        blocks: list[Buffer] = []
        for channel in channels:
            number = channel.interface_id
            if not channel.described or (part is not None and number >= part.interfaces):
                continue  # the last packet may have come before it
            dropped, filtered, received = channel.dropped, channel.filtered, channel.received
            if part is not None:
                before = self._counted.get(number, (0, 0))
                self._counted[number] = dropped, filtered
                dropped, filtered = dropped - before[0], filtered - before[1]
                received = part.packets.get(number, 0) + dropped + filtered
            blocks.append(
                self._section.statistics(
                    number,
                    start_ns=max(channel.start_ns, self._started_ns),
                    end_ns=end_ns,
                    received=received,
                    dropped=dropped,
                    accepted=received - filtered if self._is_filtered else None,
                    comments=[remark.text for remark in channel.remarks] if is_last else (),
                )
            )
        if part is not None:
            self._started_ns = end_ns
        return blocks
