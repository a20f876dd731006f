"""Metrics in the text format of Prometheus, version 0.0.4. Pure.

Ref: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
from collections.abc import Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"
_ESCAPES = {"\\": r"\\", '"': r"\"", "\n": r"\n"}
#: What a strict reader of lines may take for an end of one.
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")


class Exposition:
    """The metrics, one family after the other: `family`, then its samples."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._name = ""

    def family(self, name: str, kind: str, meaning: str) -> None:
        """kind: GAUGE, COUNTER or HISTOGRAM."""
        self._name = name
        self._lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]

    def sample(self, value: float, labels: Mapping[str, str] | None = None, ending: str = "") -> None:
        """Of the family. ending: of a histogram's series, such as `_sum`."""
        self._lines.append(f"{self._name}{ending}{_written(labels or {})} {_number(value)}")

    def histogram(self, counts: Mapping[float, int], number: int, total: float, labels: Mapping[str, str]) -> None:
        """counts: up to each bound, and beyond the one before. number, total: of all values, and their sum."""
        reached = 0
        for bound, count in counts.items():
            reached += count
            self.sample(reached, {**labels, "le": _number(bound)}, "_bucket")
        self.sample(number, {**labels, "le": "+Inf"}, "_bucket")
        self.sample(total, labels, "_sum")
        self.sample(number, labels, "_count")

    def __str__(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)


def _written(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_CONTROL.sub("?", value).translate(_TABLE)}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(value)


_TABLE = str.maketrans(_ESCAPES)
