"""A local cache of a resource, kept current by list and watch.

Owns: WatchInformers (implements interface.InformerFactory): one shared WatchInformer per (resource, namespace, field
selector), and its reflector: list, watch, go on from the last version when a watch ends, list again after 410, or
when the server is behind what we have seen.
Called by: the agent, addons, tests; inside the server the watch cache gives the same protocol without a second copy.
Never does: poll, write. A server that cannot be reached is tried again for ever, with growing delays.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing

from k1s.api.catalog import Resource
from k1s.api.errors import ApiError
from k1s.api.selectors import LabelSelector
from k1s.base.clock import REAL_CLOCK, Clock
from k1s.client.interface import ChangeHandler, Informer, Object
from k1s.client.reconnect import Reconnect
from k1s.client.rest import RestClient
from k1s.client.store import ObjectStore

# The server ends a watch after this long (jittered to twice), so that load spreads over replicas; as client-go does.
WATCH_SECONDS = 300
Trim = Callable[[Object], None]
NO_TRIMS: Mapping[tuple[str, str], Trim] = {}


class WatchInformer:
    """One resource's cache. Made by WatchInformers."""

    def __init__(
        self,
        client: RestClient,
        resource: Resource,
        namespace: str,
        field_selector: str,
        clock: Clock,
        trim: bool,
        more: Trim | None,
    ) -> None:
        self._client, self._resource, self._namespace, self._fields = client, resource, namespace, field_selector
        self._clock, self._trim, self._trim_more = clock, trim, more
        self._store = ObjectStore()
        self._synced = asyncio.Event()
        self._version = ""

    @property
    def resource(self) -> Resource:
        return self._resource

    async def synced(self) -> None:
        await self._synced.wait()

    def get(self, name: str, namespace: str = "") -> Object | None:
        return self._store.get(name, namespace)

    def list(self, namespace: str = "", selector: LabelSelector | None = None) -> Iterable[Object]:
        return self._store.list(namespace, selector)

    def by_index(self, index: str, value: str) -> Iterable[Object]:
        return self._store.by_index(index, value)

    def add_index(self, name: str, values: Callable[[Object], Iterable[str]]) -> None:
        self._store.add_index(name, values)

    def add_handler(self, handler: ChangeHandler) -> None:
        self._store.add_handler(handler)

    async def run(self) -> None:
        """Reflect until cancelled."""
        retry = Reconnect(self._client, self._clock, self._resource.qualified)
        while True:
            retry.begin()
            try:
                if not self._version:
                    await self._relist()
                await self._follow()
                await retry.ended()
            except ApiError as error:
                if await retry.ended(error, watching=bool(self._version)):
                    self._version = ""

    async def _relist(self) -> None:
        # The first list may come out of the server's cache; after a 410 it must not be older than what we have seen.
        version = "" if self._synced.is_set() else "0"
        items, self._version = await self._client.list_at(
            self._resource, self._namespace, resource_version=version, field_selector=self._fields
        )
        self._store.replace(self._trimmed(item) for item in items)
        self._synced.set()

    async def _follow(self) -> None:
        events = self._client.watch(
            self._resource,
            self._namespace,
            resource_version=self._version,
            field_selector=self._fields,
            timeout_seconds=int(WATCH_SECONDS * (1 + random.random())),
        )
        async with aclosing(events) as pairs:
            async for kind, obj in pairs:
                meta = obj["metadata"]
                if kind in ("ADDED", "MODIFIED"):
                    self._store.put(self._trimmed(obj))
                elif kind == "DELETED":
                    self._store.remove(meta.get("namespace") or "", meta["name"], self._trimmed(obj))
                self._version = meta.get("resourceVersion") or self._version

    def _trimmed(self, obj: Object) -> Object:
        if self._trim:
            obj["metadata"].pop("managedFields", None)
            if self._resource.kind == "Node":
                # Most of a Node's bytes; only the scheduler reads them, in the server's own cache. Every node watches all Nodes.
                (obj.get("status") or {}).pop("images", None)
            if self._trim_more is not None:
                self._trim_more(obj)
        return obj


class WatchInformers:
    """The factory; `run` (one task) keeps every informer it hands out current. Informers may be asked for before or after.

    `drop_managed_fields` saves about a third of the memory (and drops the image lists of Nodes); set it to False where objects
    are written back whole by update. `trims`: (group, plural) -> what else to take out of an object before it is kept.
    """

    def __init__(
        self,
        client: RestClient,
        *,
        clock: Clock = REAL_CLOCK,
        drop_managed_fields: bool = True,
        trims: Mapping[tuple[str, str], Trim] = NO_TRIMS,
    ) -> None:
        self._client, self._clock, self._trim, self._trims = client, clock, drop_managed_fields, trims
        self._informers: dict[tuple[str, str, str, str, str], WatchInformer] = {}
        self._group: asyncio.TaskGroup | None = None

    def informer(self, resource: Resource, *, namespace: str = "", field_selector: str = "") -> Informer:
        key = (resource.group, resource.version, resource.plural, namespace, field_selector)
        informer = self._informers.get(key)
        if informer is None:
            more = self._trims.get((resource.group, resource.plural))
            informer = WatchInformer(self._client, resource, namespace, field_selector, self._clock, self._trim, more)
            self._informers[key] = informer
            if self._group is not None:
                self._spawn(self._group, informer)
        return informer

    async def run(self) -> None:
        """Until cancelled; ends with an error only if a handler or this code has one."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers.values():
                self._spawn(group, informer)
            self._group = group
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None

    @staticmethod
    def _spawn(group: asyncio.TaskGroup, informer: WatchInformer) -> None:
        group.create_task(informer.run(), name=f"informer-{informer.resource.qualified}")
