"""The server's memory: every stored object, kept current by one watch of the store.

Owns: WatchCache: one ResourceCache per stored resource, the revision up to which all of them are current, and the wait for it.
Called by: app (run), object_store, handlers, informers. Never does: write.

One watch over everything, not one per resource: then "the cache is at revision N" is one number, and a read without
resourceVersion is consistent once that number has reached the store's.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable, Iterable

from k1s.api.catalog import Resource
from k1s.server.apiserver.delivery import Delivery
from k1s.server.apiserver.entries import splice
from k1s.server.apiserver.resource_cache import ResourceCache
from k1s.storage.errors import Expired
from k1s.storage.interface import Event, Store

log = logging.getLogger("k1s.apiserver")

_ROOT = "/registry/"
# Keys that are read in one go at start.
_PAGE = 2000


class WatchCache:
    """`run` loads and follows the store; until it says ready every `wait` waits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._caches: dict[str, ResourceCache] = {}
        # Empty caches of definitions that have gone: kept for those who hold an informer of them.
        self._parked: dict[str, ResourceCache] = {}
        # -1 until the first list is in.
        self.revision = -1
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._sequence = itertools.count()
        self._delivery = Delivery()

    def add(self, resource: Resource) -> ResourceCache:
        """The cache of a stored resource, made if need be (an added custom resource is filled by `fill`)."""
        prefix = resource.storage_prefix
        cache = self._caches.get(prefix)
        if cache is None:
            # A definition that comes back finds the informers that followed the one before.
            parked = self._parked.pop(prefix, None)
            cache = parked if parked is not None else ResourceCache(resource, self._delivery)
            cache.describe(resource)
            cache.begin(max(self.revision, 0))
            self._caches[prefix] = cache
        return cache

    def drop(self, resource: Resource) -> None:
        """Forget a custom resource; its watches end."""
        cache = self._caches.pop(resource.storage_prefix, None)
        if cache is not None:
            for key in cache.all_keys():
                cache.remove(key, self.revision)
            cache.restart(self.revision)
            self._parked[resource.storage_prefix] = cache

    async def fill(self, cache: ResourceCache) -> None:
        """Load a resource that was added while running."""
        while True:
            await self.fresh()
            listing = await self._store.list(cache.prefix)
            # What the feed has passed meanwhile could be a deletion that the list does not know of: list again.
            if self.revision <= listing.revision:
                break
        known = set(cache.all_keys())
        for item in listing.items:
            key = item.key[len(cache.prefix) :]
            if key not in known:
                cache.put(key, item.value, item.revision, item.create_revision)
        cache.begin(listing.revision)

    def cache(self, resource: Resource) -> ResourceCache:
        return self._caches[resource.storage_prefix]

    def caches(self) -> Iterable[ResourceCache]:
        return list(self._caches.values())

    async def wait(self, revision: int) -> None:
        """Return once every cache is at `revision` or beyond."""
        if self.revision >= revision:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (revision, next(self._sequence), future))
        await future

    async def fresh(self) -> None:
        """Return once every cache shows what the store has acknowledged up to now."""
        if self.revision < self._store.revision or self.revision < 0:
            await self.wait(max(self._store.revision, 0))

    async def run(self, ready: Callable[[], None]) -> None:
        """Follow the store for ever. A gap in its watch (Expired) is bridged by a new list."""
        await self._load()
        ready()
        while True:
            try:
                # Everything, not only objects: the store's revision moves with its own bookkeeping too, and `fresh` waits for it.
                async for events in self._store.watch("/", after=self.revision):
                    self._feed(events)
            except Expired as error:
                log.warning("the watch of the store has a gap, listing again: %s", error)
                await self._reload()

    async def _load(self) -> None:
        at, after = 0, ""
        while True:
            page = await self._store.list(_ROOT, after=after, limit=_PAGE, revision=at)
            at = page.revision
            for item in page.items:
                cache, key = self._place(item.key)
                if cache is not None:
                    cache.load(key, item.value, item.revision, item.create_revision)
            if not page.remaining or not page.items:
                break
            after = page.items[-1].key
        for cache in self._caches.values():
            cache.loaded(at)
        self._advance(at)

    async def _reload(self) -> None:
        listing = await self._store.list(_ROOT)
        left = {(cache.prefix, key) for cache in self._caches.values() for key in cache.all_keys()}
        for cache in self._caches.values():
            cache.restart(listing.revision)
        for item in sorted(listing.items, key=lambda item: item.revision):
            found, key = self._place(item.key)
            if found is None:
                continue
            left.discard((found.prefix, key))
            known = found.get(key)
            if known is None or known.revision != item.revision:
                found.put(key, item.value, item.revision, item.create_revision)
        for prefix, key in sorted(left):
            self._caches[prefix].remove(key, listing.revision)
        for cache in self._caches.values():
            cache.begin(listing.revision)
        self._advance(listing.revision)

    def _feed(self, events: Iterable[Event]) -> None:
        revision = self.revision
        for event in events:
            cache, key = self._place(event.key)
            if cache is not None:
                if event.deleted:
                    cache.remove(key, event.revision)
                else:
                    cache.put(key, event.value, event.revision, event.create_revision)
            revision = event.revision
        self._advance(revision)

    def _place(self, key: str) -> tuple[ResourceCache | None, str]:
        """Which cache a key belongs to, and its key in there: `/registry/pods/ns/name`, `/registry/apps/deployments/ns/name`."""
        second = key.find("/", len(_ROOT)) + 1
        cache = self._caches.get(key[:second])
        if cache is not None:
            return cache, key[second:]
        third = key.find("/", second) + 1
        return self._caches.get(key[:third]), key[third:]

    def _advance(self, revision: int) -> None:
        self.revision = revision
        waiters = self._waiters
        while waiters and waiters[0][0] <= revision:
            future = heapq.heappop(waiters)[2]
            if not future.done():
                future.set_result(None)


def encoded(cache: ResourceCache, value: bytes, revision: int) -> bytes:
    """Stored bytes as clients get them."""
    return splice(value, cache.head, revision)
