"""The log's one table, and the small one for what must survive beside it.

Owns: the shape of a row and the names in `meta`. Called by: sql/dialects, sql/log, sql/plan. Never does: SQL of a driver.

`value` stands last: SQLite reads a row from its front, so that the scan at start and compaction never touch the overflow pages
of large values. `rev` is the primary key and there is no other index: the current revision of each key is known in memory.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One revision. `prev_rev` is the revision this one replaces, 0 for a creation; `at` in milliseconds since the epoch."""

    rev: int
    key: str
    create_rev: int
    prev_rev: int
    deleted: int
    at: int
    actor: str
    verb: str
    cause: int
    value: bytes


class Head(NamedTuple):
    """A row without its value and origin."""

    rev: int
    key: str
    create_rev: int
    prev_rev: int
    deleted: int


# Names in `meta`, each a whole number.
COMPACTED = "compacted"  # history below this revision is forgotten
SWEPT = "swept"  # up to here the rows that compaction forgets are deleted
CEILING = "ceiling"  # no revision above this was handed out to a volatile write
FLUSHED = "flushed"  # volatile writes up to here are in the log
GAP_FROM = "gap_from"  # a crash lost volatile writes between these two: who saw them must list again
GAP_TO = "gap_to"
