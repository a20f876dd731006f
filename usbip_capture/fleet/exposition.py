"""Metrics in the text format of Prometheus, version 0.0.4, as they are read. Pure.

Ref: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

#: Samples of one server; more are not read.
MAX_SAMPLES = 200_000
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]{0,199})(?:\{(.*)\})?[ \t]+([^ \t]+)(?:[ \t]+-?[0-9]+)?[ \t]*")
_LABEL = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*(?:,|$)')
_ESCAPE = re.compile(r"\\(.)")
_LINE_FEED = "n"


class Sample(NamedTuple):
    """value: neither infinite nor NaN."""

    name: str
    labels: Mapping[str, str]
    value: float


def samples(text: str) -> Iterator[Sample]:
    """All that can be understood, in their order; other lines are passed over."""
    left = MAX_SAMPLES
    for line in text.split("\n"):
        found = None if line.startswith("#") else _SAMPLE.fullmatch(line.rstrip("\r"))
        if found is None:
            continue
        labels = _labels(found[2] or "")
        value = _value(found[3])
        if labels is None or value is None:
            continue
        yield Sample(found[1], labels, value)
        left -= 1
        if not left:
            return


def _labels(text: str) -> dict[str, str] | None:
    made: dict[str, str] = {}
    at = 0
    while at < len(text):
        label = _LABEL.match(text, at)
        if label is None:
            return None
        made[label[1]] = _ESCAPE.sub(_unescaped, label[2])
        at = label.end()
    return made


def _unescaped(found: re.Match[str]) -> str:
    return "\n" if found[1] == _LINE_FEED else found[1]


def _value(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
