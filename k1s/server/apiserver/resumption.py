"""A watch that begins before the cache's memory: its past is read from the store's log.

Owns: Resumption. Called by: handlers/watch, through its watcher. Never does: read ahead of its client.

Pieces of the log (bounded by the store) are turned into the changes that the cache would have told, with the state before each,
so that selectors see arrivals and departures; then the cache's ring takes over. So watches go on across a restart of the
server, and for as long as the log is not compacted; after that the watch is told 410 Expired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import orjson

from k1s.api.catalog import Resource
from k1s.api.errors import ApiError
from k1s.server.apiserver.entries import Change, Entry, splice
from k1s.server.apiserver.object_store import ObjectStore
from k1s.server.apiserver.resource_cache import ResourceCache
from k1s.server.apiserver.watch_cache import WatchCache
from k1s.server.apiserver.watcher import Watcher
from k1s.storage.interface import Event

# Revisions of the log, of whatever resource, that are looked through for one piece.
SPAN = 10_000


class Resumption:
    """`attached` is called once the watcher is in its cache."""

    def __init__(
        self,
        objects: ObjectStore,
        hub: WatchCache,
        resource: Resource,
        watcher: Watcher,
        after: int,
        attached: Callable[[], None],
    ) -> None:
        self._objects, self._hub, self._resource = objects, hub, resource
        self._watcher, self._position, self._attached = watcher, after, attached

    async def piece(self) -> bytes | None:
        """Lines of what happened next; None once the cache tells."""
        while True:
            cache = self._hub.cache(self._resource)
            if self._position >= cache.ring_start:
                # No await between the look and the place among the watchers: nothing falls between.
                cache.watch(self._watcher, self._position)
                self._attached()
                return None
            try:
                # Not beyond what the cache shows: the rest comes from there.
                upto = min(self._hub.revision, self._position + SPAN)
                events, complete = await self._objects.history(self._resource, self._position, upto)
            except ApiError as error:
                self._watcher.end()
                return self._watcher.fault(orjson.dumps(error.status()))
            self._position = max(self._position, complete)
            lines = [line for change in changes(cache, events) if (line := self._watcher.told(change)) is not None]
            if lines:
                return b"".join(lines)


def changes(cache: ResourceCache, events: Sequence[Event]) -> Iterator[Change]:
    """Events of the log as the cache would have told them."""
    start, head = len(cache.prefix), cache.head
    for event in events:
        key, revision = event.key[start:], event.revision
        previous = None
        if event.previous:
            previous = Entry(key, splice(event.previous, head, revision), revision, event.create_revision)
        if not event.deleted:
            entry = Entry(key, splice(event.value, head, revision), revision, event.create_revision)
            yield Change("ADDED" if event.created else "MODIFIED", entry, previous, revision)
        elif previous is not None:
            yield Change("DELETED", previous, previous, revision)
