"""A watch of which the caller keeps a little of each object: all pods of a cluster, but only labels and addresses.

Owns: Projection: the initial events and what follows as (key, what `read` made of it) calls, going on from the last version
when a watch ends, from the start after 410. Called by: agent.network.policy_watch.
Never does: hold an object, or a second copy of what `read` returned. One object is decoded at a time, also at the start, so
that a large cluster costs its readers no peak of memory as a list would.
Bound: one short string per object.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing
from typing import Generic, TypeVar

from k1s.api.catalog import Resource
from k1s.api.errors import ApiError
from k1s.base.clock import Clock
from k1s.client.informer import WATCH_SECONDS
from k1s.client.interface import Client, Object
from k1s.client.reconnect import Reconnect

T = TypeVar("T")
_END_OF_INITIAL = "k8s.io/initial-events-end"


class Projection(Generic[T]):
    """`read` makes of an object what is worth keeping, None: nothing. `changed` gets it, None when it is gone."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        clock: Clock,
        *,
        read: Callable[[Object], T | None],
        changed: Callable[[str, T | None], None],
        field_selector: str = "",
    ) -> None:
        self._client, self._resource, self._clock = client, resource, clock
        self._read, self._changed, self._fields = read, changed, field_selector
        self._keys: set[str] = set()
        self._version = ""
        self._synced = asyncio.Event()

    async def synced(self) -> None:
        """Return once everything that was there at the start is in."""
        await self._synced.wait()

    async def run(self) -> None:
        """Follow until cancelled. A server that cannot be reached is tried again for ever, with growing delays."""
        retry = Reconnect(self._client, self._clock, self._resource.qualified)
        while True:
            retry.begin()
            try:
                await self._follow()
                await retry.ended()
            except ApiError as error:
                if await retry.ended(error):
                    self._version = ""

    async def _follow(self) -> None:
        initial = not self._version
        unseen = set(self._keys) if initial else set()
        events = self._client.watch(
            self._resource,
            resource_version=self._version,
            field_selector=self._fields,
            timeout_seconds=int(WATCH_SECONDS * (1 + random.random())),
            initial_events=initial,
        )
        async with aclosing(events) as pairs:
            async for kind, obj in pairs:
                meta = obj["metadata"]
                if kind == "BOOKMARK":
                    if (meta.get("annotations") or {}).get(_END_OF_INITIAL) == "true":
                        initial = False
                        for key in unseen:
                            self._put(key, None)
                        self._synced.set()
                else:
                    key = f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])
                    unseen.discard(key)
                    self._put(key, self._read(obj) if kind in ("ADDED", "MODIFIED") else None)
                # Until everything was seen there is no version to go on from.
                if not initial:
                    self._version = meta.get("resourceVersion") or self._version

    def _put(self, key: str, value: T | None) -> None:
        if value is not None:
            self._keys.add(key)
        elif key in self._keys:
            self._keys.discard(key)
        else:
            return
        self._changed(key, value)
