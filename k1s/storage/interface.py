"""The Store: keys and bytes on one log of revisions.

Owns: the protocol every backend keeps (tests/contract/test_store.py) and its value types.
Called by: server/apiserver/object_store and watch_cache, server/app. Never does: know what the bytes mean.

Semantics are etcd's, narrowed: one revision counter for the whole store, each write is one revision, compare-and-swap on a
key's modification revision. A value is never changed by the store. Keys are `/registry/...` paths.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class KeyValue(NamedTuple):
    """A key's value at a revision. `create_revision`: when this life of the key began."""

    key: str
    value: bytes
    create_revision: int
    revision: int


class Event(NamedTuple):
    """One change. `value` is b"" for a deletion; `previous` is the value before (b"" for a creation)."""

    revision: int
    key: str
    value: bytes
    previous: bytes
    create_revision: int
    deleted: bool

    @property
    def created(self) -> bool:
        return not self.deleted and self.create_revision == self.revision


@dataclass(frozen=True, slots=True)
class Origin:
    """Who wrote, how, and because of what: kept for history, undo and "why".

    `actor`: user name; `verb`: API verb (create, update, patch, delete, ...);
    `cause`: the revision that woke the writer, 0 if none.
    """

    actor: str = ""
    verb: str = ""
    cause: int = 0


class Listing(NamedTuple):
    """A consistent page. `revision` is the one the page was read at, `remaining` how many keys follow it."""

    revision: int
    items: list[KeyValue]
    remaining: int


class Store(Protocol):
    """See the module docstring. All methods raise Closed before `open` and after `close`."""

    async def open(self) -> None:
        """Open or create. Raises Corrupt for a foreign, damaged or locked file."""

    async def close(self) -> None:
        """Flush what is volatile and close; idempotent. Open watches end."""

    @property
    def revision(self) -> int:
        """The newest revision that is committed and visible."""

    @property
    def compacted_revision(self) -> int:
        """Reads at and watches after a revision below this raise Expired."""

    async def get(self, key: str, *, revision: int = 0) -> KeyValue | None:
        """The value of a key now, or as it was at `revision` (Expired, FutureRevision)."""

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Listing:
        """Keys under `prefix` in byte order, those greater than `after`, at most `limit` (0: all)."""

    async def create(self, key: str, value: bytes, *, origin: Origin, volatile: bool = False) -> int:
        """Write a key that has no value; returns the new revision once it is durable. Raises KeyExists.

        `volatile`: the write may be lost in a crash (leases, events); it still gets a revision and an event.
        """

    async def update(self, key: str, value: bytes, *, expected: int, origin: Origin, volatile: bool = False) -> int:
        """Replace the value whose revision is `expected`. Raises KeyNotFound, RevisionConflict."""

    async def delete(self, key: str, *, expected: int = 0, origin: Origin, volatile: bool = False) -> int:
        """Delete; `expected` 0 means any revision. Returns the deletion's revision. KeyNotFound, RevisionConflict."""

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[Sequence[Event]]:
        """Every event under `prefix` with a revision > `after`, in order, without gap or duplicate, in batches.

        Raises Expired if `after` < compacted_revision - or if the reader falls further behind than the backend's bound.
        """

    async def history(self, prefix: str, *, after: int, upto: int, durable: bool = False) -> tuple[Sequence[Event], int]:
        """A piece of what happened under `prefix` in (after, upto], and the revision up to which the piece is complete.

        `durable`: nothing under the prefix is ever written volatile, so what a crash may have lost is none of it. Raises Expired.
        """

    async def compact(self, revision: int) -> None:
        """Forget history below `revision` (never current values). Returns soon; the work runs in small batches."""
