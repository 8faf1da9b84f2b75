"""Pure arithmetic on what was measured: percentiles, units, whether a budget is kept.

Called by: every part of bench. Never does: measure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0..1) of the values do not exceed (nearest rank). ValueError without values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    return percentile(values, 0.5)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the budget table. `most`: the budget is an upper bound, else a lower one."""

    name: str
    what: str
    budget: float
    unit: str
    most: bool


@dataclass(frozen=True, slots=True)
class Result:
    """What came out for a row: a figure with a note, or none with the reason in the note."""

    row: Row
    measured: float | None
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "skipped"
        kept = self.measured <= self.row.budget if self.row.most else self.measured >= self.row.budget
        return "ok" if kept else "missed"


def shown(value: float, unit: str) -> str:
    """A figure with as many digits as mean something."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}".replace(" /s", "/s")


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table, which is also readable on a terminal."""
    lines = [("what", "budget", "measured", "", "note")]
    for result in results:
        row = result.row
        lines.append(
            (
                row.what,
                ("<= " if row.most else ">= ") + shown(row.budget, row.unit),
                "-" if result.measured is None else shown(result.measured, row.unit),
                result.verdict,
                result.note,
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    out = []
    for number, line in enumerate(lines):
        cells = [line[column].ljust(widths[column]) for column in range(4)]
        out.append("| " + " | ".join([*cells, line[4]]) + " |")
        if number == 0:
            out.append("| " + " | ".join(["-" * width for width in widths] + ["---"]) + " |")
    return "\n".join(out)


ROWS = (
    Row("memory", "resident memory, server + agent", 130, "MiB", True),
    Row("idle-cpu", "idle CPU", 1, "% of a core", True),
    Row("idle-disk", "idle bytes to disk", 0.5, "KB/s", True),
    Row("start-readyz", "start to /readyz, warm", 1.5, "s", True),
    Row("start-node", "start to node Ready, warm", 3, "s", True),
    Row("create-1", "create ConfigMap (1 KiB), 1 client", 300, "/s", False),
    Row("create", "create ConfigMap (1 KiB), 16 clients", 2000, "/s", False),
    Row("create-64", "create ConfigMap (1 KiB), 64 clients", 2000, "/s", False),
    Row("get-1", "GET one object, 1 client", 1500, "/s", False),
    Row("get-16", "GET one object, 16 clients", 4000, "/s", False),
    Row("get", "GET one object, 64 clients", 4000, "/s", False),
    Row("list", "LIST 15,000 ConfigMaps (25 MB), 4 clients", 40, "/s", False),
    Row("list-gzip", "the same with Accept-Encoding: gzip", 40, "/s", False),
    Row("watchers", "1,000 watchers see a change, 100 writes/s, median", 50, "ms", True),
    Row("memory-pods", "memory per 1,000 cached pods of 4 KiB", 8, "MiB", True),
    Row("list-selected", "list 50 of 5,000 pods by a label's value, median", 10, "ms", True),
    Row("list-unselected", "the same by notin", 20, "ms", True),
    Row("pod", "pod create -> Ready, image present", 0.4, "s", True),
    Row("deployment-up", "Deployment of 20: all Ready", 4, "s", True),
    Row("deployment-down", "Deployment of 20: all gone", 4, "s", True),
)
