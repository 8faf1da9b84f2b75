"""DSN -> Store.

Owns: the spelling of datastore endpoints. Called by: server/app. Never does: open the store (`await store.open()` does).

`memory://` keeps nothing. `sqlite:///var/lib/k1s/server/db/state.db` or a plain path is SQLite, with options after `?`:
`synchronous=full|normal` (normal: the last commits may be lost when the power goes), `max-bytes=N` (writes beyond are refused).
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl

from k1s.base.clock import REAL_CLOCK, Clock
from k1s.storage.errors import StoreError
from k1s.storage.interface import Store


def open_store(dsn: str, *, clock: Clock = REAL_CLOCK) -> Store:
    """The store that a DSN names, not opened yet. Raises StoreError for one that cannot be used."""
    scheme, separator, rest = dsn.partition("://")
    if not separator:
        scheme, rest = "sqlite", dsn
    if scheme == "memory":
        from k1s.storage.memory import MemoryStore

        return MemoryStore()

    from k1s.storage.sql.dialects import dialect_for

    dialect_for(scheme)
    from k1s.storage.sql.backend import SqlStore

    path, _, query = rest.partition("?")
    if not path:
        raise StoreError(f"{dsn!r} names no file; use sqlite:///path/to/state.db")
    options = dict(parse_qsl(query, keep_blank_values=True))
    synchronous = options.pop("synchronous", "full").upper()
    limit = options.pop("max-bytes", "0")
    if synchronous not in ("FULL", "NORMAL") or not limit.isdecimal() or options:
        raise StoreError(f"{dsn!r}: the options are synchronous=full|normal and max-bytes=N")
    return SqlStore(Path(path), clock=clock, synchronous=synchronous, max_bytes=int(limit))
