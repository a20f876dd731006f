"""Any session of a simulated device: recorded, replayed, recorded again, and compared: equal."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.storing_device import STORE, Results, Step, StoringDevice, captured
from usbip_capture.comparing.differences import compare
from usbip_capture.comparing.text import lines
from usbip_capture.demo.device import BULK_IN, BULK_OUT, CDC_IN, CDC_OUT
from usbip_capture.device import Device
from usbip_capture.replayed.device import ReplayedDevice
from usbip_capture.replayed.recording import Recording, read_recordings
from usbip_capture.simulated.device import SimulatedDevice

_VALUES = st.integers(0, 3)
_DATA = st.binary(min_size=1, max_size=700)
_STEPS = st.one_of(
    st.tuples(st.just("control"), st.just(0x40), st.just(STORE), _VALUES, st.just(0), st.binary(max_size=40)),
    st.tuples(st.just("control"), st.just(0xC0), st.just(STORE), _VALUES, st.just(0), st.integers(0, 64)),
    st.tuples(st.just("control"), st.just(0xC0), st.just(0x77), _VALUES, st.just(0), st.integers(0, 8)),
    st.tuples(st.just("control"), st.just(0x80), st.just(6), st.integers(0x300, 0x308), st.just(0x409), st.just(255)),
    st.tuples(st.just("control"), st.just(0x01), st.just(11), st.just(0), st.just(3), st.just(0)),
    st.tuples(st.just("control"), st.just(0x02), st.just(1), st.just(0), st.sampled_from([0x84, 0x82]), st.just(0)),
    st.tuples(st.just("loop"), st.sampled_from([BULK_OUT, CDC_OUT]), _DATA, st.sampled_from([512, 1024, 4096])),
    st.tuples(st.just("key"), st.integers(0, 255)),
    st.tuples(st.just("unlink"), st.sampled_from([BULK_IN, CDC_IN])),
)
_LAST = st.tuples(st.just("unplug"), st.sampled_from([BULK_IN, CDC_IN]))


def session(device: Device, steps: list[Step], source: SimulatedDevice | None) -> tuple[Results, Recording]:
    """What its host gets, and the recording of that."""
    results, raw = captured(device, steps, source)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.pcapng"
        path.write_bytes(raw)
        (recording,) = read_recordings(path)
    return results, recording


def assert_equal(first: Recording, second: Recording) -> None:
    assert first.known == second.known
    assert not list(lines(compare(first.exchanges, second.exchanges, (first.known, second.known))))
    assert not list(lines(compare(second.exchanges, first.exchanges, (second.known, first.known))))


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
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
