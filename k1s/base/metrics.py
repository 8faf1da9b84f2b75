"""Counters, gauges and histograms in the Prometheus text format.

Owns: the registry and its exposition. Called by: everything that counts; served by apiserver and agent at /metrics.
Never does: background work, unbounded label sets (callers pass labels from closed sets).
Source of the format: Prometheus exposition format 0.0.4.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TypeVar

LATENCY_BUCKETS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 10.0, 30.0, 60.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, ...]
_M = TypeVar("_M", bound="Counter | Histogram")


class Counter:
    """A sum that only grows, one per tuple of label values."""

    kind = "counter"

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self.name, self.text, self.labels = name, text, tuple(labels)
        self._values: dict[Labels, float] = {}

    def add(self, *labels: str, value: float = 1.0) -> None:
        self._values[labels] = self._values.get(labels, 0.0) + value

    def value(self, *labels: str) -> float:
        return self._values.get(labels, 0.0)

    def put(self, labels: Labels, value: float) -> None:
        """What somebody counted elsewhere."""
        self._values[labels] = value

    def lines(self) -> list[str]:
        return [f"{self.name}{_label_text(self.labels, k)} {_number(v)}" for k, v in sorted(self._values.items())]


class Gauge(Counter):
    """A value that goes up and down; `read` gives one computed at scrape time."""

    kind = "gauge"

    def __init__(self, name: str, text: str, labels: Sequence[str], read: Callable[[], float] | None = None) -> None:
        super().__init__(name, text, labels)
        self._read = read
        # Labels and their values that one computed at scrape time always has.
        self.fixed: tuple[Labels, Labels] = ((), ())

    def set(self, *labels: str, value: float) -> None:
        self._values[labels] = value

    def clear(self) -> None:
        """Forget every value, before those that are true now are set."""
        self._values.clear()

    def lines(self) -> list[str]:
        if self._read is not None:
            return [f"{self.name}{_label_text(*self.fixed)} {_number(self._read())}"]
        return super().lines()


class Histogram:
    """Observations in buckets (upper bounds, seconds unless the name says otherwise)."""

    kind = "histogram"

    def __init__(self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]) -> None:
        self.name, self.text, self.labels, self.buckets = name, text, tuple(labels), tuple(buckets)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, *labels: str, value: float, count: int = 1) -> None:
        """`count` observations of the same value."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self.buckets) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(self.buckets, value)] += count
        self._sums[labels] += value * count

    def put(self, labels: Labels, counts: Sequence[int], total: float) -> None:
        """What somebody observed elsewhere: how many in each bucket, and their sum."""
        self._counts[labels] = list(counts)
        self._sums[labels] = total

    def lines(self) -> list[str]:
        out: list[str] = []
        for key, counts in sorted(self._counts.items()):
            total = 0
            for bound, count in zip((*map(_number, self.buckets), "+Inf"), counts, strict=True):
                total += count
                out.append(f"{self.name}_bucket{_label_text((*self.labels, 'le'), (*key, bound))} {total}")
            out.append(f"{self.name}_sum{_label_text(self.labels, key)} {_number(self._sums[key])}")
            out.append(f"{self.name}_count{_label_text(self.labels, key)} {total}")
        return out


class Alias(Counter):
    """What a histogram says, under a second name."""

    kind = "histogram"

    def __init__(self, name: str, text: str, source: Histogram) -> None:
        super().__init__(name, text, source.labels)
        self._source = source

    def lines(self) -> list[str]:
        return [self.name + line[len(self._source.name) :] for line in self._source.lines()]


class Registry:
    """All metrics of one process part, in the order of their making."""

    def __init__(self) -> None:
        self._metrics: dict[str, Counter | Histogram] = {}

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return self._add(Counter(name, text, labels))

    def gauge(self, name: str, text: str, labels: Sequence[str] = (), read: Callable[[], float] | None = None) -> Gauge:
        return self._add(Gauge(name, text, labels, read))

    def histogram(
        self, name: str, text: str, labels: Sequence[str] = (), buckets: Sequence[float] = LATENCY_BUCKETS
    ) -> Histogram:
        return self._add(Histogram(name, text, labels, buckets))

    def register(self, metric: _M) -> _M:
        """Take up a metric that somebody else made."""
        return self._add(metric)

    def _add(self, metric: _M) -> _M:
        if metric.name in self._metrics:
            raise ValueError(f"metric {metric.name} exists already")
        self._metrics[metric.name] = metric
        return metric

    def exposition(self) -> bytes:
        out: list[str] = []
        for metric in self._metrics.values():
            out.append(f"# HELP {metric.name} {metric.text}")
            out.append(f"# TYPE {metric.name} {metric.kind}")
            out.extend(metric.lines())
        return ("\n".join(out) + "\n").encode()


def _label_text(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    escaped = (v.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for v in values)
    return "{" + ",".join(f'{n}="{v}"' for n, v in zip(names, escaped, strict=True)) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
