"""The reference Store: everything in dicts, plain enough to be right by reading.

Owns: its data. Called by: `k1s.storage.open` for memory://, tests, demos. Never does: keep anything over a restart.

It keeps every version since the compacted revision and compacts itself: beyond 2 * KEEP_REVISIONS the older half is forgotten.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence

from k1s.storage.errors import Closed, Expired, FutureRevision, KeyExists, KeyNotFound, RevisionConflict
from k1s.storage.fanout import Fanout
from k1s.storage.interface import Event, KeyValue, Listing, Origin

KEEP_REVISIONS = 10_000
# As in etcd, an empty store stands at revision 1: 0 has a meaning of its own in requests.
FIRST_REVISION = 1


class MemoryStore:
    """See k1s.storage.interface.Store."""

    def __init__(self) -> None:
        self._current: dict[str, KeyValue] = {}
        self._versions: dict[str, list[tuple[int, KeyValue | None]]] = {}
        self._log: list[Event] = []
        self._revision = FIRST_REVISION
        self._compacted = 0
        self._open = False
        self._fanout = Fanout(self._history, self._check_kept)

    async def open(self) -> None:
        self._fanout.start(self._revision)
        self._open = True

    async def close(self) -> None:
        self._open = False
        self._fanout.close()

    @property
    def revision(self) -> int:
        self._check_open()
        return self._revision

    @property
    def compacted_revision(self) -> int:
        self._check_open()
        return self._compacted

    async def get(self, key: str, *, revision: int = 0) -> KeyValue | None:
        self._check_readable(revision)
        return self._at(key, revision) if revision else self._current.get(key)

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Listing:
        self._check_readable(revision)
        at = revision or self._revision
        found = (self._at(key, at) for key in sorted(self._versions) if key.startswith(prefix) and key > after)
        items = [item for item in found if item is not None]
        page = items[:limit] if limit else items
        return Listing(at, page, len(items) - len(page))

    async def create(self, key: str, value: bytes, *, origin: Origin, volatile: bool = False) -> int:
        self._check_open()
        if key in self._current:
            raise KeyExists(key)
        revision = self._revision + 1
        return self._append(KeyValue(key, value, revision, revision), deleted=False)

    async def update(self, key: str, value: bytes, *, expected: int, origin: Origin, volatile: bool = False) -> int:
        current = self._expect(key, expected, always=True)
        return self._append(KeyValue(key, value, current.create_revision, self._revision + 1), deleted=False)

    async def delete(self, key: str, *, expected: int = 0, origin: Origin, volatile: bool = False) -> int:
        current = self._expect(key, expected)
        return self._append(KeyValue(key, b"", current.create_revision, self._revision + 1), deleted=True)

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[Sequence[Event]]:
        self._check_open()
        return self._fanout.watch(prefix, after)

    async def history(self, prefix: str, *, after: int, upto: int, durable: bool = False) -> tuple[Sequence[Event], int]:
        self._check_open()
        self._check_kept(after)
        return await self._history(prefix, after, upto)

    async def compact(self, revision: int) -> None:
        self._check_open()
        if revision > self._revision:
            raise FutureRevision(revision, self._revision)
        if revision > self._compacted:
            self._forget(revision)

    def _expect(self, key: str, expected: int, *, always: bool = False) -> KeyValue:
        self._check_open()
        current = self._current.get(key)
        if current is None:
            raise KeyNotFound(key)
        if current.revision != expected and (expected or always):
            raise RevisionConflict(current, expected)
        return current

    def _append(self, written: KeyValue, *, deleted: bool) -> int:
        key, value, create_revision, revision = written
        before = self._current.get(key)
        if deleted:
            del self._current[key]
        else:
            self._current[key] = written
        self._versions.setdefault(key, []).append((revision, None if deleted else written))
        self._revision = revision
        event = Event(revision, key, value, before.value if before else b"", create_revision, deleted)
        self._log.append(event)
        self._fanout.publish([event])
        if len(self._log) > 2 * KEEP_REVISIONS:
            self._forget(self._log[-KEEP_REVISIONS].revision)
        return revision

    def _at(self, key: str, revision: int) -> KeyValue | None:
        versions = self._versions.get(key, [])
        position = bisect_right(versions, revision, key=lambda version: version[0])
        return versions[position - 1][1] if position else None

    def _forget(self, revision: int) -> None:
        self._compacted = revision
        self._log = [event for event in self._log if event.revision > revision]
        for key, versions in list(self._versions.items()):
            position = bisect_right(versions, revision, key=lambda version: version[0])
            if position:
                seen = versions[position - 1]
                kept = ([] if seen[1] is None else [seen]) + versions[position:]
                if kept:
                    self._versions[key] = kept
                else:
                    del self._versions[key]

    async def _history(self, prefix: str, after: int, upto: int) -> tuple[Sequence[Event], int]:
        start = bisect_right(self._log, after, key=lambda event: event.revision)
        return [e for e in self._log[start:] if e.revision <= upto and e.key.startswith(prefix)], upto

    def _check_open(self) -> None:
        if not self._open:
            raise Closed("the store is not open")

    def _check_kept(self, revision: int) -> None:
        if revision < self._compacted:
            raise Expired(revision, self._compacted)

    def _check_readable(self, revision: int) -> None:
        self._check_open()
        if revision:
            self._check_kept(revision)
            if revision > self._revision:
                raise FutureRevision(revision, self._revision)
