"""What a batch of writes does: pure.

Owns: compare-and-swap and the numbering of revisions. Called by: sql/writer. Never does: I/O, change the state it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from k1s.storage.errors import KeyExists, KeyNotFound
from k1s.storage.index import Version
from k1s.storage.interface import Origin
from k1s.storage.sql.table import Row


class Kind(Enum):
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(slots=True, eq=False)
class Write:
    """One call of create, update or delete, and who waits for it."""

    kind: Kind
    key: str
    value: bytes
    expected: int
    origin: Origin
    volatile: bool
    done: asyncio.Future[int]


@dataclass(frozen=True, slots=True)
class Conflict:
    """The key stands at `current`, not at the revision that was expected."""

    key: str
    current: Version


Outcome = Row | Conflict | KeyExists | KeyNotFound


@dataclass(slots=True)
class Plan:
    """`outcomes` answers the writes in order; `rows` are those to append, `volatile` which of their revisions may wait."""

    outcomes: list[Outcome] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    volatile: set[int] = field(default_factory=set)

    def wanted(self) -> set[int]:
        """Revisions whose values the answer needs: what is replaced, and what stands where a write conflicts."""
        own = {row.rev for row in self.rows}
        revisions = {row.prev_rev for row in self.rows if row.prev_rev}
        revisions |= {outcome.current.revision for outcome in self.outcomes if isinstance(outcome, Conflict)}
        return revisions - own


def plan_batch(writes: Sequence[Write], current: Callable[[str], Version | None], revision: int, at: int) -> Plan:
    """Apply the writes one after the other on top of `current`, numbering from `revision` + 1."""
    plan = Plan()
    changed: dict[str, Version | None] = {}
    for write in writes:
        version = changed[write.key] if write.key in changed else current(write.key)
        outcome = _decide(write, version, revision + 1, at)
        plan.outcomes.append(outcome)
        if isinstance(outcome, Row):
            revision += 1
            changed[write.key] = None if outcome.deleted else Version(revision, outcome.create_rev)
            plan.rows.append(outcome)
            if write.volatile:
                plan.volatile.add(revision)
    return plan


def _decide(write: Write, version: Version | None, revision: int, at: int) -> Outcome:
    key, origin = write.key, write.origin
    if write.kind is Kind.CREATE:
        if version is not None:
            return KeyExists(key)
        return Row(revision, key, revision, 0, 0, at, origin.actor, origin.verb, origin.cause, write.value)
    if version is None:
        return KeyNotFound(key)
    if version.revision != write.expected and (write.expected or write.kind is Kind.UPDATE):
        return Conflict(key, version)
    deleted = int(write.kind is Kind.DELETE)
    return Row(
        revision,
        key,
        version.create_revision,
        version.revision,
        deleted,
        at,
        origin.actor,
        origin.verb,
        origin.cause,
        write.value,
    )
