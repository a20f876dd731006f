"""Long recordings: their data stay in the capture, memory does not grow with it, and work only as it does."""

from __future__ import annotations

import gc
import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders.long_captures import KINDS, REQUEST, requests, serial, write
from tests.growth import assert_grows_linearly
from usbip_capture.device import Transfer
from usbip_capture.errors import CaptureError
from usbip_capture.replayed.device import ReplayedDevice
from usbip_capture.replayed.recording import read_recordings
from usbip_capture.usb.urb import Completion, TransferType, Urb

TIMEOUT = 60.0
CONFIGURE = bytes((0, 9, 1, 0, 0, 0, 0, 0))

#: Bytes that other tests of the process, and what Python keeps of them, may be in between.
NOISE = 32 << 10


def answered(device: ReplayedDevice, urb: Urb) -> Completion:
    transfer = Transfer(urb)
    device.submit(transfer)
    assert device.wait(transfer, TIMEOUT)
    assert transfer.completion is not None
    return transfer.completion


def replay(device: ReplayedDevice, kind: str, count: int) -> None:
    """All of it is asked again, and answered as it was."""
    assert not answered(device, Urb(TransferType.CONTROL, 0, 0, setup=CONFIGURE)).status
    for number in range(count):
        for urb, _, expected in KINDS[kind](number):
            completion = answered(device, urb)
            assert (completion.status, bytes(completion.data)) == (0, bytes(expected.data))
    assert not device.outcome.divergences
    assert not device.unused


def held(path: Path, kind: str, count: int) -> int:
    """Bytes of memory that a recording has needed when all of it was asked."""
    tracemalloc.start()
    try:
        device = ReplayedDevice(path, speed=0)
        replay(device, kind, count)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        device.close()


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_the_recording(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("usbip_capture.replayed.storage._IN_MEMORY", 1 << 12)
    monkeypatch.setattr("usbip_capture.recorded.rows._PAGE", 256)
    monkeypatch.setattr("usbip_capture.recorded.matching._MAX_SEARCHES", 8)
    count = 100 if kind == "large" else 800
    paths = [write(tmp_path / f"{n}.pcapng", kind, n * count) for n in (1, 2)]
    held(paths[0], kind, count)  # what is found out about the first recording stays
    one, two = held(paths[0], kind, count), held(paths[1], kind, 2 * count)
    more = paths[1].stat().st_size - paths[0].stat().st_size
    assert two - one < 0.03 * more + NOISE, f"{two - one} bytes of memory for {more} bytes of capture"


@pytest.mark.parametrize("kind", KINDS)
def test_work_grows_as_the_recording_does(kind: str, tmp_path: Path) -> None:
    def prepare(n: int) -> Callable[[], object]:
        path = write(tmp_path / f"{n}.pcapng", kind, n)

        def run() -> None:
            device = ReplayedDevice(path, speed=0)
            replay(device, kind, n)
            device.close()

        return run

    assert_grows_linearly(prepare, 30 if kind == "large" else 700)


def test_what_is_asked_backwards_is_found_in_linear_time(tmp_path: Path) -> None:
    def prepare(n: int) -> Callable[[], object]:
        path = write(tmp_path / f"{n}.pcapng", "requests", n)
        device = ReplayedDevice(path, speed=0)

        def run() -> None:
            for number in reversed(range(n)):
                ((urb, _, _),) = requests(number)
                assert not answered(device, urb).status
            device.close()

        return run

    assert_grows_linearly(prepare, 700)


def test_what_is_asked_that_is_not_recorded_costs_the_same_in_any_recording(tmp_path: Path) -> None:
    def prepare(n: int) -> Callable[[], object]:
        device = ReplayedDevice(write(tmp_path / f"{n}.pcapng", "serial", n), speed=0)
        strange = [Urb(TransferType.CONTROL, 0, 0, setup=REQUEST + bytes((i, 9, 9, 9, 0, 0))) for i in range(20)]

        def run() -> None:
            for urb in strange:
                assert answered(device, urb).status
            device.close()

        return run

    assert_grows_linearly(prepare, 5000)


@pytest.mark.parametrize("in_memory", [0, 1 << 30], ids=["in a file", "in memory"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_wherever_it_is_kept(
    kind: str, packed: bool, in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "kept.pcapng", kind, 100)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    monkeypatch.setattr("usbip_capture.replayed.storage._IN_MEMORY", in_memory)
    device = ReplayedDevice(path, speed=0)
    replay(device, kind, 100)
    device.close()


def test_a_recording_outlives_the_name_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("usbip_capture.replayed.storage._IN_MEMORY", 0)
    path = write(tmp_path / "removed.pcapng", "serial", 50)
    device = ReplayedDevice(path, speed=0)
    path.unlink()
    replay(device, "serial", 50)
    device.close()


def test_a_file_that_is_shortened_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("usbip_capture.replayed.storage._IN_MEMORY", 0)
    path = write(tmp_path / "shortened.pcapng", "serial", 50)
    (recording,) = read_recordings(path)
    with open(path, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(CaptureError, match=r"shortened\.pcapng was shortened while it was in use"):
        list(recording.exchanges)


def test_a_file_that_is_shortened_unplugs_its_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("usbip_capture.replayed.storage._IN_MEMORY", 0)
    path = write(tmp_path / "shortened.pcapng", "serial", 3000)
    device = ReplayedDevice(path, speed=0)
    lost: list[str] = []
    device.watch(lost.append)
    assert not answered(device, Urb(TransferType.CONTROL, 0, 0, setup=CONFIGURE)).status
    assert not answered(device, serial(0)[0][0]).status
    with open(path, "r+b") as file:
        file.truncate(1000)
    for urb, _, _ in serial(2999):
        answered(device, urb)
    assert not device.alive
    assert len(lost) == 1
    assert "was shortened while it was in use" in lost[0]


def test_what_was_not_asked_is_counted_without_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "unused.pcapng", "serial", 500)
    device = ReplayedDevice(path, speed=0)
    assert not answered(device, Urb(TransferType.CONTROL, 0, 0, setup=CONFIGURE)).status
    for number in range(0, 500, 2):
        answered(device, serial(number)[0][0])
    unused = device.unused
    assert len(unused) == 250
    assert [exchange.sent for exchange in unused] == [serial(number)[0][1] for number in range(1, 500, 2)]
    assert unused[0].sent == serial(1)[0][1]
    assert unused[-1].sent == serial(499)[0][1]
    monkeypatch.setattr(type(device._matching._exchanges), "at", None)
    assert len(device.unused) == 250
    device.close()
