"""Informers for controllers in this process: views of the watch cache, no second copy, no second decode.

Owns: CacheInformers and CacheInformer (client.interface.InformerFactory and Informer).
Called by: server/app hands it to controllers, scheduler, admission. Never does: I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from k1s.api.catalog import Resource
from k1s.api.selectors import LabelSelector, parse_fields
from k1s.client.interface import ChangeHandler, Object
from k1s.server.apiserver.entries import Entry
from k1s.server.apiserver.resource_cache import ResourceCache
from k1s.server.apiserver.selection import Selection
from k1s.server.apiserver.watch_cache import WatchCache


class CacheInformer:
    """One view. Handlers run while the change is taken in: they must be quick, and they cannot await."""

    def __init__(self, cache: ResourceCache, hub: WatchCache, selection: Selection) -> None:
        self._cache, self._hub, self._selection = cache, hub, selection
        self._narrow = bool(selection.namespace) or not selection.everything

    @property
    def resource(self) -> Resource:
        return self._cache.resource

    async def synced(self) -> None:
        await self._hub.fresh()

    def get(self, name: str, namespace: str = "") -> Object | None:
        # Reading one object is no reason to keep all of its kind decoded, as `read` does.
        entry = self._cache.get(f"{namespace}/{name}" if namespace else name)
        if entry is None or (self._narrow and not self._selection.matches(entry)):
            return None
        return entry.obj()

    def list(self, namespace: str = "", selector: LabelSelector | None = None) -> Iterable[Object]:
        self._cache.read = True
        found = (entry.obj() for entry in self._mine(self._cache.entries(namespace or self._selection.namespace)))
        if selector is None:
            return list(found)
        return [obj for obj in found if selector.matches(obj["metadata"].get("labels") or {})]

    def by_index(self, index: str, value: str) -> Iterable[Object]:
        self._cache.read = True
        return [entry.obj() for entry in self._mine(self._cache.indexed(index, value))]

    def add_index(self, name: str, values: Callable[[Object], Iterable[str]]) -> None:
        self._cache.add_index(name, values)

    def add_handler(self, handler: ChangeHandler) -> None:
        if not self._narrow:
            self._cache.add_handler(handler)
            return
        matches = self._matches

        def narrowed(old: Object | None, new: Object | None) -> None:
            before = old if old is not None and matches(old) else None
            after = new if new is not None and matches(new) else None
            if before is not None or after is not None:
                handler(before, after)

        self._cache.add_handler(narrowed)

    def _matches(self, obj: Object) -> bool:
        namespace = self._selection.namespace
        if namespace and obj["metadata"].get("namespace") != namespace:
            return False
        return self._selection.matches_object(obj)

    def _mine(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        if not self._narrow:
            return entries
        return (entry for entry in entries if self._selection.matches(entry))


class CacheInformers:
    """The factory: one view per resource and selection. Only storage versions: the cache holds no others."""

    def __init__(self, hub: WatchCache) -> None:
        self._hub = hub
        self._views: dict[tuple[str, str, str], CacheInformer] = {}

    def informer(self, resource: Resource, *, namespace: str = "", field_selector: str = "") -> CacheInformer:
        cache = self._hub.cache(resource)
        if resource.api_version != cache.resource.api_version:
            raise ValueError(f"{resource.qualified} is stored as {cache.resource.api_version}: watch that version")
        slot = (resource.storage_prefix, namespace, field_selector)
        view = self._views.get(slot)
        if view is None:
            fields = parse_fields(field_selector) if field_selector else None
            view = self._views[slot] = CacheInformer(cache, self._hub, Selection(resource, namespace, fields=fields))
        return view
