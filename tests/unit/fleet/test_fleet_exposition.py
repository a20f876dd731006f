"""Metrics are read as they were written, and nothing that anybody sends does harm."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.fleet import exposition
from usbip_capture.fleet.exposition import samples
from usbip_capture.web.prometheus import COUNTER, Exposition

TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")))


@given(st.dictionaries(st.sampled_from(["busid", "product", "le"]), TEXTS), st.floats(allow_nan=False))
def test_what_we_write_is_read(labels: dict[str, str], value: float) -> None:
    made = Exposition()
    made.family("x_total", COUNTER, "Of a test.")
    made.sample(value, {**labels, "text": 'a "b" \\ c\nd'})
    found = list(samples(str(made)))
    if math.isinf(value):
        assert found == []
    else:
        assert found == [("x_total", {**labels, "text": 'a "b" \\ c\nd'}, value)]


@given(st.text() | st.from_regex(r'[a-z]+(\{[a-z]="[^"]*",?.*\})? +[0-9.eE+-]+'))
def test_anything_may_come(text: str) -> None:
    for sample in samples(text):
        assert sample.name
        assert math.isfinite(sample.value)


def test_spaces_time_stamps_and_lines_that_mean_nothing() -> None:
    text = (
        '# HELP x y\nx 1 1395066363000\r\ny{ a = "1" , b="2",}  2.5e3 \n\nbroken{a=1} 3\nz NaN\nz +Inf\nz\n-1\nlast{} 9'
    )
    assert list(samples(text)) == [("x", {}, 1.0), ("y", {"a": "1", "b": "2"}, 2500.0), ("last", {}, 9.0)]


def test_there_is_an_end() -> None:
    text = "x 1\n" * (exposition.MAX_SAMPLES + 5)
    assert sum(1 for _ in samples(text)) == exposition.MAX_SAMPLES


def test_a_line_without_end_costs_what_it_is_long() -> None:
    for text in ('x{a="' + "\\" * 200_000, "x{" + 'a="b",' * 50_000 + "} 1 2 3", "x{" + " " * 200_000 + "} y"):
        assert list(samples(text)) == []
