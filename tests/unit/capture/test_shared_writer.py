"""Who joins a shared capture, at whatever moment, has each URB from then on once, and what was learnt before first."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.pcapng_reader import CapturedRecord, read_capture
from usbip_capture.capture.channel import IN_FLIGHT, UsbChannel
from usbip_capture.capture.shared_writer import SharedWriter
from usbip_capture.capture.sinks import Sink
from usbip_capture.demo.device import INFO
from usbip_capture.usb.setup import get_descriptor, set_configuration
from usbip_capture.usb.urb import Buffer, Completion, TransferType, Urb

LABEL = "seen before"
OUT, IN, BY_FILTER = 0x02, 0x81, "bulk"


class Fan(Sink):
    """Keeps what is written, and what each of those who joined has of it."""

    def __init__(self) -> None:
        super().__init__("the test")
        self.all = b""
        self.seen: list[bytearray] = []

    def write(self, buffers: Sequence[Buffer]) -> None:
        raw = b"".join(buffers)
        self.all += raw
        for one in self.seen:
            one += raw

    def close(self) -> None:
        """Nothing is open."""

    def begin(self, blocks: bytes) -> None:
        self.seen.append(bytearray(blocks))


def records(raw: bytes) -> list[CapturedRecord]:
    with TemporaryDirectory() as folder:
        path = Path(folder, "x.pcapng")
        path.write_bytes(raw)
        return list(read_capture(path))


def keys(found: list[CapturedRecord]) -> list[tuple[str, str, int, bytes]]:
    """Interface, event, id and data of each URB."""
    return [(one.interface.name, chr(one.usb.type), one.usb.id, one.usb.data) for one in found if one.usb]


def bulk(number: int) -> Urb:
    return Urb(TransferType.BULK, OUT, 2, number.to_bytes(2, "little"))


def work(channels: list[UsbChannel], steps: list[int], writer: SharedWriter, fan: Fan) -> None:
    """0 and 1: submit to a device; 2 and 3: complete the oldest one of it; 4: somebody joins."""
    out: list[list[tuple[int, Urb]]] = [[], []]
    for number, step in enumerate(steps):
        which = step % 2
        if step < 2:
            urb = bulk(number)
            out[which].append((channels[which].submitted(urb), urb))
        elif step < 4 and out[which]:
            urb_id, urb = out[which].pop(0)
            channels[which].completed(urb_id, urb, Completion(0, 2))
        elif step == 4:
            assert writer.show_so_far(LABEL, fan.begin)


def configured(channel: UsbChannel) -> None:
    for setup, data in ((get_descriptor(1, 0, 0, 18), bytes(18)), (set_configuration(1), b"")):
        urb = Urb.control(setup.pack())
        channel.completed(channel.submitted(urb), urb, Completion(0, len(data), data))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=60), st.sampled_from(["", BY_FILTER, "status == 0"]))
def test_at_any_moment(steps: list[int], capture_filter: str) -> None:
    fan = Fan()
    with closing(SharedWriter(fan, capture_filter=capture_filter)) as writer:
        channels = [writer.add_usb_interface(INFO, server="pi") for _ in range(2)]
        for channel in channels:
            configured(channel)
        work(channels, [*steps, 4], writer, fan)
    whole = keys(records(fan.all))
    assert len(fan.seen) == steps.count(4) + 1
    for seen in fan.seen:
        found = records(bytes(seen))
        first = [one for one in found if LABEL in one.comments]
        out = [one for one in found if IN_FLIGHT in one.comments]
        rest = keys(found)[len(first) + len(out) :]
        assert whole[len(whole) - len(rest) :] == rest
        before = whole[: len(whole) - len(rest)]
        assert len(first) == (0 if capture_filter == BY_FILTER else 2 * 4)
        # What is out at that moment, and nothing else, is shown as being so.
        ended = {(name, urb_id) for name, event, urb_id, _ in before if event != "S"}
        assert keys(out) == sorted(
            (one for one in before if one[1] == "S" and (one[0], one[2]) not in ended), key=lambda one: one[0]
        )


def test_what_was_learnt_ends_with_the_session() -> None:
    fan = Fan()
    with closing(SharedWriter(fan)) as writer:
        channel = writer.add_usb_interface(INFO, server="pi")
        configured(channel)
        channel.rest()
        assert writer.show_so_far(LABEL, fan.begin)
    assert not writer.show_so_far(LABEL, fan.begin)
    assert [keys(records(bytes(seen))) for seen in fan.seen] == [[]]


def test_threads_that_submit_while_others_join() -> None:
    fan = Fan()
    with closing(SharedWriter(fan)) as writer:
        channels = [writer.add_usb_interface(INFO, server="pi") for _ in range(2)]

        def use(channel: UsbChannel) -> None:
            for number in range(600):
                urb = bulk(number)
                channel.completed(channel.submitted(urb), urb, Completion(0, 2))

        threads = [threading.Thread(target=use, args=(channel,)) for channel in channels]
        for thread in threads:
            thread.start()
        for _ in range(20):
            assert writer.show_so_far(LABEL, fan.begin)
            assert writer.flush(60)
        for thread in threads:
            thread.join(60)
    whole = keys(records(fan.all))
    assert len(whole) == 2400
    for seen in fan.seen:
        found = records(bytes(seen))
        rest = keys(found)[sum(IN_FLIGHT in one.comments for one in found) :]
        assert whole[len(whole) - len(rest) :] == rest
