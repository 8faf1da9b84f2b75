"""The seam between databases: statement text and what a driver's errors mean.

Owns: one `Dialect` per database. Called by: sql/log, open. Never does: run a statement, import a driver it was not asked for.
SQLite is filled. PostgreSQL and MySQL are refused by name (docs/adr/0001-sqlite-without-sqlalchemy.md says what they need).
"""

from __future__ import annotations

from dataclasses import dataclass

from k1s.storage.errors import StoreError

# Marks a file as ours ("k1s" and a NUL) and says which layout it has.
APPLICATION_ID = 0x6B317300
LAYOUT = 1
# How many revisions one statement fetches; a fixed number, so that the statement is prepared once.
FETCH = 128


@dataclass(frozen=True, slots=True)
class Dialect:
    """Statement text. Parameters are positional, in the order of table.Row and of the method that uses them."""

    name: str
    tables: tuple[str, ...]
    insert: str
    put_meta: str
    all_meta: str
    heads: str
    values: str
    changes: str
    events: str
    sweep: str
    delete: str
    relink: str


SQLITE = Dialect(
    name="sqlite",
    tables=(
        "CREATE TABLE log (rev INTEGER PRIMARY KEY, key TEXT NOT NULL, create_rev INTEGER NOT NULL, prev_rev INTEGER NOT NULL,"
        " deleted INTEGER NOT NULL, at INTEGER NOT NULL, actor TEXT NOT NULL, verb TEXT NOT NULL, cause INTEGER NOT NULL,"
        " value BLOB NOT NULL)",
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    ),
    insert="INSERT INTO log VALUES (?,?,?,?,?,?,?,?,?,?)",
    put_meta="INSERT INTO meta VALUES (?,?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    all_meta="SELECT name, value FROM meta",
    heads="SELECT rev, key, create_rev, prev_rev, deleted FROM log ORDER BY rev",
    values="SELECT rev, value FROM log WHERE rev IN (" + ",".join("?" * FETCH) + ")",
    changes=(
        "SELECT rev, key, create_rev, prev_rev, deleted FROM log WHERE rev > ? AND rev <= ? AND key >= ? AND key < ? ORDER BY rev"
    ),
    events=(
        "SELECT l.rev, l.key, l.value, p.value, l.create_rev, l.deleted, l.prev_rev"
        " FROM log l LEFT JOIN log p ON p.rev = l.prev_rev"
        " WHERE l.rev > ? AND l.rev <= ? AND l.key >= ? AND l.key < ? ORDER BY l.rev"
    ),
    sweep="SELECT rev, prev_rev, deleted FROM log WHERE rev > ? AND rev <= ? ORDER BY rev LIMIT ?",
    delete="DELETE FROM log WHERE rev = ?",
    relink="UPDATE log SET prev_rev = ? WHERE rev = ?",
)

_NOT_YET = {"postgres": "PostgreSQL", "postgresql": "PostgreSQL", "mysql": "MySQL", "mariadb": "MySQL"}


def dialect_for(scheme: str) -> Dialect:
    """The dialect of a DSN's scheme. Raises StoreError for one that this build cannot speak."""
    if scheme == "sqlite":
        return SQLITE
    if scheme in _NOT_YET:
        raise StoreError(f"{_NOT_YET[scheme]} is not supported yet as a datastore; use sqlite:///path/to/state.db")
    raise StoreError(f"unknown datastore {scheme!r}; use sqlite:///path/to/state.db or memory://")
