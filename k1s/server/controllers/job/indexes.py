"""Sets of completion indexes in the API's compressed notation ("1,3-5,7").

Owns: parse, format, and the index of a pod. Called by: job/*. Never does: I/O.
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import meta
from k1s.client.interface import Object

INDEX = "batch.kubernetes.io/job-completion-index"
FAILURE_COUNT = "batch.kubernetes.io/job-index-failure-count"
IGNORED_COUNT = "batch.kubernetes.io/job-index-ignored-failure-count"


def parse(text: str | None, completions: int) -> set[int]:
    """The indexes below `completions`; what cannot be read is skipped, as upstream."""
    out: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            out.update(range(int(first), min(int(last or first), completions - 1) + 1))
    return out


def format(indexes: Iterable[int]) -> str:
    runs: list[tuple[int, int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][1] == index - 1:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    # Two neighbours are written "1,2", three "1-3".
    return ",".join(_run(first, last) for first, last in runs)


def _run(first: int, last: int) -> str:
    if first == last:
        return str(first)
    return f"{first},{last}" if last == first + 1 else f"{first}-{last}"


def index_of(pod: Object) -> int:
    """The pod's completion index, -1 if it has none."""
    return _number(pod, INDEX, -1)


def failures_of(pod: Object) -> int:
    """How often this index had failed before this pod."""
    return _number(pod, FAILURE_COUNT, 0)


def ignored_of(pod: Object) -> int:
    return _number(pod, IGNORED_COUNT, 0)


def _number(pod: Object, annotation: str, default: int) -> int:
    text = meta.annotations(pod).get(annotation, "")
    return int(text) if text.isdigit() else default
