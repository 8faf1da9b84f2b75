"""The store as the API server sees it: what is sealed on disk is open here.

Owns: EncryptedStore, a Store around the real one. Called by: server/app (put between the two). Never does: choose keys (ring).
What no rule covers costs one comparison. The watch cache above holds plain values.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

from k1s.server.apiserver.encryption.ring import MARK, Ring
from k1s.storage.errors import RevisionConflict
from k1s.storage.interface import Event, KeyValue, Listing, Origin, Store

_SIZE = len(MARK)


class EncryptedStore:
    """See k1s.storage.interface.Store. Reads raise EncryptionError for what cannot be opened."""

    def __init__(self, store: Store, ring: Ring) -> None:
        self.inner, self._ring = store, ring

    async def open(self) -> None:
        await self.inner.open()

    async def close(self) -> None:
        await self.inner.close()

    @property
    def revision(self) -> int:
        return self.inner.revision

    @property
    def compacted_revision(self) -> int:
        return self.inner.compacted_revision

    async def get(self, key: str, *, revision: int = 0) -> KeyValue | None:
        found = await self.inner.get(key, revision=revision)
        return None if found is None else self._item(found)

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Listing:
        listing = await self.inner.list(prefix, after=after, limit=limit, revision=revision)
        if all(item.value[:_SIZE] != MARK for item in listing.items):
            return listing
        return listing._replace(items=[self._item(item) for item in listing.items])

    def create(self, key: str, value: bytes, *, origin: Origin, volatile: bool = False) -> Coroutine[Any, Any, int]:
        if key.startswith(self._ring.prefixes):
            return self._create(key, value, origin=origin, volatile=volatile)
        return self.inner.create(key, value, origin=origin, volatile=volatile)

    async def _create(self, key: str, value: bytes, *, origin: Origin, volatile: bool) -> int:
        generation = self._ring.begin()
        try:
            return await self.inner.create(key, self._ring.seal(key, value), origin=origin, volatile=volatile)
        finally:
            self._ring.end(generation)

    def update(
        self, key: str, value: bytes, *, expected: int, origin: Origin, volatile: bool = False
    ) -> Coroutine[Any, Any, int]:
        if key.startswith(self._ring.prefixes):
            return self._update(key, value, expected=expected, origin=origin, volatile=volatile)
        return self.inner.update(key, value, expected=expected, origin=origin, volatile=volatile)

    async def _update(self, key: str, value: bytes, *, expected: int, origin: Origin, volatile: bool) -> int:
        generation = self._ring.begin()
        try:
            sealed = self._ring.seal(key, value)
            return await self.inner.update(key, sealed, expected=expected, origin=origin, volatile=volatile)
        except RevisionConflict as lost:
            raise RevisionConflict(self._item(lost.current), expected) from None
        finally:
            self._ring.end(generation)

    def delete(self, key: str, *, expected: int = 0, origin: Origin, volatile: bool = False) -> Coroutine[Any, Any, int]:
        return self.inner.delete(key, expected=expected, origin=origin, volatile=volatile)

    async def watch(self, prefix: str, *, after: int) -> AsyncIterator[Sequence[Event]]:
        async for events in self.inner.watch(prefix, after=after):
            yield self._events(events)

    async def history(self, prefix: str, *, after: int, upto: int, durable: bool = False) -> tuple[Sequence[Event], int]:
        events, complete = await self.inner.history(prefix, after=after, upto=upto, durable=durable)
        return self._events(events), complete

    async def compact(self, revision: int) -> None:
        await self.inner.compact(revision)

    def _events(self, events: Sequence[Event]) -> Sequence[Event]:
        for event in events:
            if event.value[:_SIZE] == MARK or event.previous[:_SIZE] == MARK:
                return [self._event(event) for event in events]
        return events

    def _event(self, event: Event) -> Event:
        ring = self._ring
        return event._replace(value=ring.open(event.key, event.value), previous=ring.open(event.key, event.previous))

    def _item(self, item: KeyValue) -> KeyValue:
        if item.value[:_SIZE] != MARK:
            return item
        return item._replace(value=self._ring.open(item.key, item.value))
