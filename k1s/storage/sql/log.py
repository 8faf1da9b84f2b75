"""The revision log in SQLite: append, read, sweep. Blocking calls.

Owns: the two connections (one writes, one reads, so that a read never waits for a commit). Called by: sql/backend, sql/writer
and sql/compact, each connection from one thread at a time. Never does: check revisions against each other (sql/plan does),
decide what to forget (sql/compact does).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from k1s.storage.errors import Closed
from k1s.storage.index import Version
from k1s.storage.interface import Event
from k1s.storage.sql import file, table
from k1s.storage.sql.dialects import FETCH, SQLITE
from k1s.storage.sql.table import Head, Row

P = ParamSpec("P")
T = TypeVar("T")


class Loaded(NamedTuple):
    """What stands in the log at open."""

    current: list[tuple[str, Version]]
    last: int
    meta: dict[str, int]


class Replayed(NamedTuple):
    """An event read from the log, and the revision it replaced."""

    event: Event
    prev_rev: int


class Log:
    """A database file. `options`: see sql/file.connect."""

    def __init__(self, path: Path, *, synchronous: str = "FULL", max_bytes: int = 0) -> None:
        self.path = path
        self._synchronous = synchronous
        self._max_bytes = max_bytes
        self._lock = file.Lock(path)
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    def open(self) -> Loaded:
        """Lock, check, open, read what is current. Raises Corrupt, StoreFull."""
        return self._guard(self._open)

    def close(self) -> None:
        for connection in (self._reader, self._writer):  # the writer last: it takes the WAL away
            if connection is not None:
                connection.close()
        self._reader = self._writer = None
        self._lock.release()

    # The writer's thread.

    def commit(self, wanted: Sequence[int], rows: Sequence[Row], meta: Mapping[str, int]) -> dict[int, bytes]:
        """Read the values of `wanted` revisions, then write rows and meta in one transaction, on disk when this returns."""
        return self._guard(self._commit, wanted, rows, meta)

    def sweep(self, low: int, high: int, limit: int) -> int:
        """Delete what the rows in (low, high] made superfluous, `limit` of them at a time. Returns how far it came."""
        return self._guard(self._sweep, low, high, limit)

    def vacuum(self, pages: int, spare: int) -> int:
        """Give at most `pages` free pages back to the file system, keeping `spare`; returns how many more there are to give."""
        return self._guard(self._vacuum, pages, spare)

    # The reader's thread.

    def values(self, revisions: Iterable[int]) -> dict[int, bytes]:
        """Values by revision; a revision that is gone is missing."""
        return self._guard(lambda: _values(self._need(self._reader), list(revisions)))

    def changes(self, low: int, high: int, bounds: tuple[str, str]) -> list[Head]:
        """What happened to keys within bounds in (low, high], in order."""
        return self._guard(lambda: [Head(*r) for r in self._need(self._reader).execute(SQLITE.changes, (low, high, *bounds))])

    def events(self, low: int, high: int, bounds: tuple[str, str], *, count: int, size: int) -> tuple[list[Replayed], int]:
        """Events in (low, high], until `count` or `size` bytes are reached, and the revision up to which they are complete."""
        return self._guard(self._events, low, high, bounds, count, size)

    def backup(self, target: Path) -> None:
        """Copy what is committed to a new file, while writes go on. Raises StoreFull, StoreError (the file exists)."""
        try:
            file.copy(self._need(self._reader), target)
        except (sqlite3.Error, OSError) as error:
            raise file.translate(error, target) from error

    def size(self) -> int:
        """Bytes in the database file, without the WAL."""
        return self.path.stat().st_size

    def _guard(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except (sqlite3.Error, OSError) as error:
            raise file.translate(error, self.path) from error

    def _need(self, connection: sqlite3.Connection | None) -> sqlite3.Connection:
        if connection is None:
            raise Closed(f"{self.path} is not open")
        return connection

    def _open(self) -> Loaded:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            self._writer = file.connect(self.path, synchronous=self._synchronous, max_bytes=self._max_bytes)
            loaded = self._load(self._writer)
            self._reader = file.connect_reader(self.path)
        except BaseException:
            self.close()
            raise
        return loaded

    def _load(self, connection: sqlite3.Connection) -> Loaded:
        meta: dict[str, int] = dict(connection.execute(SQLITE.all_meta))
        current: dict[str, Version] = {}
        last = 0
        newest: dict[str, int] = {}  # the newest row of each key, tombstones too
        relink: list[tuple[int, int]] = []
        for rev, key, create_rev, prev_rev, deleted in connection.execute(SQLITE.heads):
            before = newest.get(key, 0)
            if before and before != prev_rev and (prev_rev or key in current):
                # The row between was a volatile write that a crash lost: link past it, or compaction never finds `before`.
                relink.append((before, rev))
            elif not before and prev_rev and rev > meta.get(table.COMPACTED, 0):
                relink.append((0, rev))
            newest[key] = last = rev
            if deleted:
                current.pop(key, None)
            else:
                current[key] = Version(rev, create_rev)
        try:
            self._commit_all(connection, [(SQLITE.relink, relink)] if relink else [])
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            # A full disk is no reason not to start; the next start links them.
        return Loaded(list(current.items()), last, meta)

    def _commit(self, wanted: Sequence[int], rows: Sequence[Row], meta: Mapping[str, int]) -> dict[int, bytes]:
        connection = self._need(self._writer)
        found = _values(connection, wanted) if wanted else {}
        if rows or meta:
            self._commit_all(connection, [(SQLITE.insert, rows), (SQLITE.put_meta, list(meta.items()))])
        return found

    def _commit_all(self, connection: sqlite3.Connection, work: Sequence[tuple[str, Sequence[Sequence[object]]]]) -> None:
        if not work:
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, parameters in work:
                if parameters:
                    connection.executemany(statement, parameters)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _sweep(self, low: int, high: int, limit: int) -> int:
        connection = self._need(self._writer)
        rows = connection.execute(SQLITE.sweep, (low, high, limit)).fetchall()
        dead = [(prev_rev,) for _, prev_rev, _ in rows if prev_rev] + [(rev,) for rev, _, deleted in rows if deleted]
        reached = int(rows[-1][0]) if len(rows) == limit else high
        self._commit_all(connection, [(SQLITE.delete, dead), (SQLITE.put_meta, [(table.SWEPT, reached)])])
        return reached

    def _vacuum(self, pages: int, spare: int) -> int:
        connection = self._need(self._writer)
        before = _free_pages(connection) - spare
        if before <= 0:
            return 0
        # Not execute(): it takes one step of a statement that has no columns, and a step gives back one page.
        connection.executescript(f"PRAGMA incremental_vacuum({min(pages, before)})")
        left = _free_pages(connection) - spare
        return max(0, left) if left < before else 0

    def _events(self, low: int, high: int, bounds: tuple[str, str], count: int, size: int) -> tuple[list[Replayed], int]:
        found: list[Replayed] = []
        taken = 0
        cursor = self._need(self._reader).execute(SQLITE.events, (low, high, *bounds))
        try:
            for rev, key, value, previous, create_rev, deleted, prev_rev in cursor:
                found.append(Replayed(Event(rev, key, value, previous or b"", create_rev, bool(deleted)), prev_rev))
                taken += len(value) + len(previous or b"")
                if len(found) >= count or taken >= size:
                    return found, rev
        finally:
            cursor.close()  # an open cursor would pin the WAL
        return found, high


def _values(connection: sqlite3.Connection, revisions: Sequence[int]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for start in range(0, len(revisions), FETCH):
        piece = tuple(revisions[start : start + FETCH])
        # Padded to the statement's fixed length; no row has revision 0.
        found.update(connection.execute(SQLITE.values, piece + (0,) * (FETCH - len(piece))))
    return found


def _free_pages(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])
