"""Any session of a simulated device: recorded, replayed, recorded again, and compared: equal."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from struct import pack
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from usbip_capture.capture.writer import PcapWriter
from usbip_capture.comparing.differences import compare
from usbip_capture.comparing.text import lines
from usbip_capture.demo.device import BULK_IN, BULK_OUT, CDC_IN, CDC_OUT, DESCRIPTORS, INFO, KEYS_IN
from usbip_capture.device import Device, Transfer
from usbip_capture.replayed.device import ReplayedDevice
from usbip_capture.replayed.recording import Recording, read_recordings
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.tap import Tapped
from usbip_capture.usb.setup import Setup
from usbip_capture.usb.urb import DIR_IN, Completion, TransferType, Urb

TIMEOUT = 60.0
_STORE = 0x10
_LOOPS = {BULK_OUT: BULK_IN, CDC_OUT: CDC_IN}
Step = tuple[Any, ...]
Results = list[tuple[int, bytes]]


class StoringDevice(SimulatedDevice):
    """Sends back what it is sent, and keeps what it is asked to keep."""

    def __init__(self) -> None:
        super().__init__(INFO, DESCRIPTORS)
        self._stored: dict[int, bytes] = {}

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        if setup.bRequest != _STORE:
            return None
        if not setup.bmRequestType & DIR_IN:
            self._stored[setup.wValue] = data
            return b""
        return self._stored.get(setup.wValue)

    def received(self, address: int, data: bytes) -> None:
        self.loop_back(address, _LOOPS[address], data)


class Host:
    """Takes the steps of a session, one after the other, as a program does."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.results: Results = []

    def run(self, urb: Urb) -> Completion:
        transfer = Transfer(urb)
        self._device.submit(transfer)
        assert self._device.wait(transfer, TIMEOUT), urb
        assert transfer.completion is not None
        self.results.append((transfer.completion.status, bytes(transfer.completion.data)))
        return transfer.completion

    def control(self, kind: int, request: int, value: int, index: int, content: bytes | int) -> None:
        length = content if isinstance(content, int) else len(content)
        sent = b"" if isinstance(content, int) else content
        setup = pack("<BBHHH", kind, request, value, index, length)
        self.run(Urb(TransferType.CONTROL, kind & DIR_IN, length, sent, setup))

    def loop(self, address: int, data: bytes, size: int) -> None:
        self.run(Urb(TransferType.BULK, address, len(data), data))
        got = 0
        while got < len(data):
            got += self.run(Urb(TransferType.BULK, _LOOPS[address], size)).actual_length

    def key(self, source: SimulatedDevice | None, code: int) -> None:
        """The device sends it by itself; a replayed one does as well."""
        if source is not None:
            source.feed(KEYS_IN, bytes([0, 0, code, 0, 0, 0, 0, 0]))
        self.run(Urb(TransferType.INTERRUPT, KEYS_IN, 8))

    def unlink(self, address: int) -> None:
        transfer = Transfer(Urb(TransferType.BULK, address, 64))
        self._device.submit(transfer)
        self._device.cancel(transfer)
        assert self._device.wait(transfer, TIMEOUT)

    def unplug(self, source: SimulatedDevice | None, address: int) -> None:
        """While the host waits for data."""
        transfer = Transfer(Urb(TransferType.BULK, address, 64))
        self._device.submit(transfer)
        if source is not None:
            source.unplug()
        assert self._device.wait(transfer, TIMEOUT)
        assert transfer.completion is not None
        self.results.append((transfer.completion.status, b""))

    def take(self, step: Step, source: SimulatedDevice | None) -> None:
        name, *given_ = step
        if name in ("key", "unplug"):
            getattr(self, name)(source, *given_)
        else:
            getattr(self, name)(*given_)


_VALUES = st.integers(0, 3)
_DATA = st.binary(min_size=1, max_size=700)
_STEPS = st.one_of(
    st.tuples(st.just("control"), st.just(0x40), st.just(_STORE), _VALUES, st.just(0), st.binary(max_size=40)),
    st.tuples(st.just("control"), st.just(0xC0), st.just(_STORE), _VALUES, st.just(0), st.integers(0, 64)),
    st.tuples(st.just("control"), st.just(0xC0), st.just(0x77), _VALUES, st.just(0), st.integers(0, 8)),
    st.tuples(st.just("control"), st.just(0x80), st.just(6), st.integers(0x300, 0x308), st.just(0x409), st.just(255)),
    st.tuples(st.just("control"), st.just(0x01), st.just(11), st.just(0), st.just(3), st.just(0)),
    st.tuples(st.just("control"), st.just(0x02), st.just(1), st.just(0), st.sampled_from([0x84, 0x82]), st.just(0)),
    st.tuples(st.just("loop"), st.sampled_from([BULK_OUT, CDC_OUT]), _DATA, st.sampled_from([512, 1024, 4096])),
    st.tuples(st.just("key"), st.integers(0, 255)),
    st.tuples(st.just("unlink"), st.sampled_from([BULK_IN, CDC_IN])),
)
_LAST = st.tuples(st.just("unplug"), st.sampled_from([BULK_IN, CDC_IN]))
#: As each system does with each device.
_FIRST: list[Step] = [
    ("control", 0x80, 6, 0x0100, 0, 18),
    ("control", 0x80, 6, 0x0200, 0, 9),
    ("control", 0x80, 6, 0x0200, 0, 255),
    ("control", 0x00, 9, 1, 0, 0),
]


def session(device: Device, steps: list[Step], source: SimulatedDevice | None) -> tuple[Results, Recording]:
    """What its host gets, and the recording of that."""
    target = io.BytesIO()
    with PcapWriter(target) as writer:
        tapped = Tapped(device, writer.add_usb_interface(INFO, server="bench"))
        host = Host(tapped)
        try:
            for step in _FIRST + steps:
                host.take(step, source)
        finally:
            tapped.close()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.pcapng"
        path.write_bytes(target.getvalue())
        (recording,) = read_recordings(path)
    return host.results, recording


def assert_equal(first: Recording, second: Recording) -> None:
    assert first.known == second.known
    assert not list(lines(compare(first.exchanges, second.exchanges, (first.known, second.known))))
    assert not list(lines(compare(second.exchanges, first.exchanges, (second.known, first.known))))


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_STEPS, max_size=12), st.lists(_LAST, max_size=1), st.sampled_from(["strict", "loose"]))
def test_recorded_replayed_and_recorded_again(first: list[Step], last: list[Step], match: str) -> None:
    # At once, whoever waits at last may be the one that gave up before.
    steps = [step for step in first if not last or step[0] != "unlink"] + last
    source = StoringDevice()
    results, recording = session(source, steps, source)
    replayed = ReplayedDevice(recording, match=match, speed=0)
    again, second = session(replayed, steps, None)
    assert again == results
    assert not last or not replayed.alive
    assert not replayed.outcome.divergences
    assert not replayed.outcome.repeated
    assert not replayed.unused
    assert_equal(recording, second)
