"""Long recordings are compared in memory that does not grow with them, and in work that only does as they do."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders.long_captures import KINDS, write
from tests.growth import assert_grows_linearly
from usbip_capture.comparing import differences, lanes
from usbip_capture.comparing.differences import DATA, MISSING, Comparison, compare
from usbip_capture.comparing.html import html_page
from usbip_capture.comparing.text import lines, summary
from usbip_capture.replayed.recording import read_recordings

#: Bytes that other tests of the process, and what Python keeps of them, may be in between.
NOISE = 32 << 10


def compared(first: Path, second: Path) -> Comparison:
    (one,), (other,) = read_recordings(first), read_recordings(second)
    return compare(one.exchanges, other.exchanges, (one.known, other.known))


def page_of(first: Path, second: Path) -> tuple[Comparison, str]:
    found = compared(first, second)
    return found, html_page(found, "a", "b")


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_the_recordings(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("usbip_capture.replayed.storage._IN_MEMORY", 1 << 12)
    monkeypatch.setattr("usbip_capture.recorded.rows._PAGE", 256)
    monkeypatch.setattr(lanes, "_WINDOW", 16)
    count = 100 if kind == "large" else 800
    paths = [write(tmp_path / f"{n}.pcapng", kind, n * count) for n in (1, 2)]

    def held(path: Path) -> int:
        tracemalloc.start()
        try:
            found, page = page_of(path, path)
            assert summary(found).startswith("equal")
            assert "differs" not in page.partition("</style>")[2]
            gc.collect()
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    held(paths[0])  # what is found out about the first stays
    one, two = held(paths[0]), held(paths[1])
    more = 2 * (paths[1].stat().st_size - paths[0].stat().st_size)
    assert two - one < 0.03 * more + NOISE, f"{two - one} bytes of memory for {more} bytes of captures"


@pytest.mark.parametrize("kind", KINDS)
def test_work_grows_as_the_recordings_do(kind: str, tmp_path: Path) -> None:
    def prepare(n: int) -> Callable[[], object]:
        path = write(tmp_path / f"{n}.pcapng", kind, n)
        return lambda: page_of(path, path)

    assert_grows_linearly(prepare, 30 if kind == "large" else 500)


def test_what_only_one_of_them_has_is_counted_whatever_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences, "MAX_DIFFERENCES", 5)
    found = compared(write(tmp_path / "a", "requests", 100), write(tmp_path / "b", "requests", 40))
    assert found.kinds == {MISSING: 60}
    assert found.both == 40
    assert len(found.differences) == 5
    assert list(lines(found))[-1] == "and 55 more"


def test_differences_are_kept_without_their_data(tmp_path: Path) -> None:
    path = write(tmp_path / "a", "keys", 50)
    raw = path.read_bytes()
    other = tmp_path / "b"
    at = raw.rindex((49).to_bytes(8, "little"))
    other.write_bytes(raw[:at] + b"\xff" + raw[at + 1 :])
    found = compared(path, other)
    (difference,) = found.differences
    assert difference.kind == DATA
    assert difference.first is not None
    assert not difference.first.data
    assert list(lines(found)) == [
        "packets 99 / 99: interrupt 0x81: byte 0: from 0 on 31 00 00 00 00 00 00 00, ff 00 00 00 00 00 00 00"
    ]


def test_a_page_has_what_is_around_a_difference(tmp_path: Path) -> None:
    path = write(tmp_path / "a", "keys", 50)
    raw = path.read_bytes()
    other = tmp_path / "b"
    at = raw.index((20).to_bytes(8, "little"))
    other.write_bytes(raw[:at] + b"\xff" + raw[at + 1 :])
    rows = page_of(path, other)[1].partition("<tbody>")[2]
    assert rows.count("<tr") == 9  # the difference, three before and after it, and two gaps
    assert "17 equal" in rows
    assert "26 equal" in rows
