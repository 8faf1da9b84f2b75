"""The ConfigMaps and Secrets that this node's pods refer to, and no others.

Owns: one watch per referenced object, shared by all pods that refer to it. Called by: volumes, pods/start (env, pull secrets).
Never does: list a whole namespace: a node may read only what its pods name, and memory should hold only that.
Bounds: one watch per distinct object referenced; it ends when the last pod that refers to it goes. Reconnects back off to 30 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from k1s.agent.pods.model import Object
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.clock import Clock
from k1s.client.interface import Client
from k1s.client.reconnect import Reconnect

# (kind, namespace, name)
Key = tuple[str, str, str]
_FIRST_ANSWER = 60.0


class ObjectUnavailable(Exception):
    """The API did not say whether the object exists."""


@dataclass(slots=True)
class _Entry:
    owners: set[str] = field(default_factory=set)
    obj: Object | None = None
    known: asyncio.Event = field(default_factory=asyncio.Event)
    fault: str = ""
    task: asyncio.Task[None] | None = None


class ObjectCache:
    """One for the agent. `acquire` before `get`; `release` when the pod goes."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client, self._clock = client, clock
        self._entries: dict[Key, _Entry] = {}
        self._handlers: list[Callable[[Key, set[str]], None]] = []

    def on_change(self, handler: Callable[[Key, set[str]], None]) -> None:
        """Called with the key and the uids of the pods that refer to it whenever an object changes."""
        self._handlers.append(handler)

    def acquire(self, owner: str, keys: Iterable[Key]) -> None:
        """The pod `owner` refers to exactly `keys` from now on."""
        wanted = set(keys)
        for key in wanted:
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = _Entry()
                entry.task = asyncio.create_task(self._follow(key, entry), name=f"object-{key[1]}/{key[2]}")
            entry.owners.add(owner)
        for key in [k for k, e in self._entries.items() if owner in e.owners and k not in wanted]:
            self._drop(key, owner)

    def release(self, owner: str) -> None:
        for key in [k for k, e in self._entries.items() if owner in e.owners]:
            self._drop(key, owner)

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object, None if there is none; waits for the API's first answer. Raises ObjectUnavailable."""
        entry = self._entries[kind, namespace, name]
        try:
            await asyncio.wait_for(entry.known.wait(), _FIRST_ANSWER)
        except TimeoutError as error:
            raise ObjectUnavailable(f"failed to sync {kind.lower()} {namespace}/{name}: {entry.fault or 'timed out'}") from error
        return entry.obj

    def peek(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object as it is known now."""
        entry = self._entries.get((kind, namespace, name))
        return entry.obj if entry is not None else None

    async def close(self) -> None:
        tasks = [e.task for e in self._entries.values() if e.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._entries.clear()

    def _drop(self, key: Key, owner: str) -> None:
        entry = self._entries[key]
        entry.owners.discard(owner)
        if not entry.owners:
            if entry.task is not None:
                entry.task.cancel()
            del self._entries[key]

    async def _follow(self, key: Key, entry: _Entry) -> None:
        kind, namespace, name = key
        retry = Reconnect(self._client, self._clock, f"{kind} {namespace}/{name}")
        while True:
            retry.begin()
            try:
                await self._watch(key, entry)
                await retry.ended()
            except ApiError as error:
                entry.fault = str(error)
                await retry.ended(error, watching=entry.known.is_set())

    async def _watch(self, key: Key, entry: _Entry) -> None:
        kind, namespace, name = key
        resource = builtin(kind)
        try:
            obj: Object | None = await self._client.get(resource, name, namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            obj = None
        self._put(key, entry, obj)
        version = obj["metadata"].get("resourceVersion", "") if obj is not None else ""
        watch: Any = self._client.watch(resource, namespace, resource_version=version, field_selector=f"metadata.name={name}")
        async with aclosing(watch) as pairs:
            async for event, changed in pairs:
                if event in ("ADDED", "MODIFIED"):
                    self._put(key, entry, changed)
                elif event == "DELETED":
                    self._put(key, entry, None)

    def _put(self, key: Key, entry: _Entry, obj: Object | None) -> None:
        before = entry.obj
        entry.obj = obj
        first = not entry.known.is_set()
        entry.known.set()
        same = (before or {}).get("metadata", {}).get("resourceVersion") == (obj or {}).get("metadata", {}).get("resourceVersion")
        if not first and not same:
            for handler in self._handlers:
                handler(key, set(entry.owners))


def references(pod: Object) -> set[Key]:
    """Every ConfigMap and Secret that the pod's spec names."""
    namespace, spec = pod["metadata"]["namespace"], pod["spec"]
    out: set[Key] = set()
    for field_name in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(field_name) or []:
            for entry in container.get("env") or []:
                source = entry.get("valueFrom") or {}
                _add(out, namespace, source.get("configMapKeyRef"), source.get("secretKeyRef"))
            for source in container.get("envFrom") or []:
                _add(out, namespace, source.get("configMapRef"), source.get("secretRef"))
    for volume in spec.get("volumes") or []:
        _add(out, namespace, volume.get("configMap"), _named(volume.get("secret"), "secretName"))
        for source in (volume.get("projected") or {}).get("sources") or []:
            _add(out, namespace, source.get("configMap"), source.get("secret"))
    for secret in spec.get("imagePullSecrets") or []:
        _add(out, namespace, None, secret)
    return out


def _named(source: Object | None, field_name: str) -> Object | None:
    return {"name": source.get(field_name)} if source is not None else None


def _add(out: set[Key], namespace: str, config_map: Object | None, secret: Object | None) -> None:
    if config_map is not None and config_map.get("name"):
        out.add(("ConfigMap", namespace, config_map["name"]))
    if secret is not None and secret.get("name"):
        out.add(("Secret", namespace, secret["name"]))
