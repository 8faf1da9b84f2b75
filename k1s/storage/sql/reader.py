"""Reads: now, at a revision, and history for watches.

Owns: putting the index, the volatile rows and the log together. Called by: sql/backend, fanout. Never does: change state.

A read takes its answer's revisions from the index in one step of the event loop, then fetches their values in the reader's
thread. A value that a compaction takes away in between was superseded: the read starts over with the index of that moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k1s.storage.errors import Corrupt
from k1s.storage.index import Version, prefix_range
from k1s.storage.interface import Event, KeyValue, Listing
from k1s.storage.sql.log import Log
from k1s.storage.sql.state import State
from k1s.storage.sql.table import Head
from k1s.storage.sql.threads import Worker

# A piece of history for one watch.
HISTORY_EVENTS = 512
HISTORY_BYTES = 4 * 1024 * 1024


class Reader:
    """See the module docstring."""

    def __init__(self, log: Log, worker: Worker, state: State) -> None:
        self._log, self._worker, self._state = log, worker, state

    async def get(self, key: str) -> KeyValue | None:
        while (version := self._state.index.get(key)) is not None:
            items = await self._items([(key, version)])
            if items is not None:
                return items[0]
        return None

    async def get_at(self, key: str, revision: int) -> KeyValue | None:
        found = await self._fetch_at(await self._versions_at((key, key + "\0"), revision), revision)
        return found[0] if found else None

    async def page(self, prefix: str, after: str, limit: int) -> Listing:
        while True:
            at = self._state.revision
            start, end = self._state.index.bounds(prefix, after)
            stop = min(end, start + limit) if limit else end
            items = await self._items(self._state.index.slice(start, stop))
            if items is not None:
                return Listing(at, items, end - stop)

    async def page_at(self, prefix: str, after: str, limit: int, revision: int) -> Listing:
        versions = await self._versions_at(prefix_range(prefix), revision)
        wanted = [item for item in versions if item[0] > after]
        page = wanted[:limit] if limit else wanted
        return Listing(revision, await self._fetch_at(page, revision), len(wanted) - len(page))

    async def history(self, prefix: str, after: int, upto: int) -> tuple[Sequence[Event], int]:
        """Events in (after, upto], a piece at a time, and the revision up to which they are complete."""
        held = dict(self._state.unflushed)
        replayed, complete = await self._worker.run(
            self._log.events, after, upto, prefix_range(prefix), count=HISTORY_EVENTS, size=HISTORY_BYTES
        )
        events = {
            event.revision: event._replace(previous=held[prev_rev].value) if prev_rev in held else event
            for event, prev_rev in replayed
        }
        rows = [row for row in held.values() if after < row.rev <= complete and row.key.startswith(prefix)]
        before = await self._values(row.prev_rev for row in rows if row.prev_rev)
        for row in rows:
            previous = before.get(row.prev_rev, b"")
            events[row.rev] = Event(row.rev, row.key, row.value, previous, row.create_rev, bool(row.deleted))
        return [events[revision] for revision in sorted(events)], complete

    async def _values(self, revisions: Iterable[int]) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        stored: list[int] = []
        for revision in revisions:
            row = self._state.unflushed.get(revision)
            if row is None:
                stored.append(revision)
            else:
                found[revision] = row.value
        if stored:
            found.update(await self._worker.run(self._log.values, stored))
        return found

    async def _items(self, versions: Sequence[tuple[str, Version]]) -> list[KeyValue] | None:
        """The values of these versions; None if a compaction took one of them."""
        values = await self._values(version.revision for _, version in versions)
        if len(values) < len(versions):
            return None
        return [KeyValue(key, values[v.revision], v.create_revision, v.revision) for key, v in versions]

    async def _fetch_at(self, versions: Sequence[tuple[str, Version]], revision: int) -> list[KeyValue]:
        found = await self._items(versions)
        self._state.check_readable(revision)
        if found is None:
            raise Corrupt(f"{self._log.path}: a value at revision {revision} is gone although it is not compacted")
        return found

    async def _versions_at(self, bounds: tuple[str, str], revision: int) -> list[tuple[str, Version]]:
        """Keys within bounds as they stood at `revision`: those of now, with what happened since taken back."""
        state, (low, high) = self._state, bounds
        state.check_readable(revision)
        now = state.revision
        versions = dict(state.index.between(low, high))
        held = [
            Head(row.rev, row.key, row.create_rev, row.prev_rev, row.deleted)
            for row in state.unflushed.values()
            if row.rev > revision and low <= row.key < high
        ]
        if now > revision:
            stored = await self._worker.run(self._log.changes, revision, now, bounds)
            state.check_readable(revision)
            changes = {head.rev: head for head in (*stored, *held)}
            for rev in sorted(changes, reverse=True):
                head = changes[rev]
                if head.create_rev == head.rev or not head.prev_rev:
                    versions.pop(head.key, None)
                else:
                    versions[head.key] = Version(head.prev_rev, head.create_rev)
        return sorted(versions.items())
