"""Events: what `kubectl describe` tells the user.

Owns: EventRecorder (queues, correlates and writes core/v1 Events). Called by: controllers, scheduler, agent.
Never does: make its caller wait or fail. Bounds: QUEUE_SIZE events wait (also for a server
that is away), more are dropped and counted; the correlator remembers
CACHE_SIZE event keys and as many objects (least recently used go first).
Source: client-go tools/record: the same event again patches count and lastTimestamp; ten similar ones within ten minutes are
told as one; an object may cause 25 events at once, then one every five minutes.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import os
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.clock import REAL_CLOCK, Clock, rfc3339
from k1s.client.interface import Client, Object
from k1s.client.servers import ServerAway

log = logging.getLogger("k1s.client.events")

QUEUE_SIZE = 1000
CACHE_SIZE = 4096
SIMILAR_LIMIT = 10
SIMILAR_SECONDS = 600.0
SPAM_BURST = 25.0
SPAM_SECONDS = 300.0
MAX_MESSAGE = 1024
AWAY_SECONDS = 60.0


@dataclass(slots=True)
class _Seen:
    """An event already written: where it is and how often it happened."""

    name: str
    namespace: str
    first: str
    count: int


@dataclass(slots=True)
class _Similar:
    messages: set[str]
    last: float


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class EventRecorder:
    """`event` may be called from anywhere; the owner runs `run()` in a task."""

    def __init__(self, client: Client, component: str, *, host: str = "", clock: Clock = REAL_CLOCK) -> None:
        self._client, self._component, self._host, self._clock = client, component, host, clock
        self._resource = builtin("Event", "")
        self._queue: asyncio.Queue[Object] = asyncio.Queue(QUEUE_SIZE)
        self._seen: OrderedDict[tuple[str, ...], _Seen] = OrderedDict()
        self._similar: OrderedDict[tuple[str, ...], _Similar] = OrderedDict()
        self._buckets: OrderedDict[tuple[str, str], _Bucket] = OrderedDict()
        self.dropped = 0

    def named(self, component: str) -> EventRecorder:
        """The same queue and memory under another name; only the first recorder is run."""
        other = copy.copy(self)
        other._component = component
        return other

    def event(self, obj: Object, type: str, reason: str, message: str, *, field_path: str = "") -> None:
        """Record that something happened to `obj` (an object with kind, or an ObjectReference). `type`: Normal or Warning."""
        reference = _reference(obj, field_path)
        stamp = rfc3339(self._clock.now())
        event: Object = {
            "involvedObject": reference,
            "reason": reason,
            "message": message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 3] + "...",
            "source": {"component": self._component, **({"host": self._host} if self._host else {})},
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "type": type,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.dropped += 1

    async def run(self) -> None:
        """Write queued events until cancelled."""
        while True:
            event = await self._queue.get()
            if self._allowed(event):
                while not await self._write(event):
                    # The queue fills meanwhile, and keeps what came first.
                    await self._client.pause(AWAY_SECONDS)
            else:
                self.dropped += 1
            self._queue.task_done()

    async def flush(self) -> None:
        """Wait until everything queued so far is written (tests, orderly shutdown)."""
        await self._queue.join()

    async def _write(self, event: Object) -> bool:
        """False: there is no server now."""
        key = self._key(event)
        try:
            seen = self._seen.get(key)
            if seen is not None and await self._count_up(seen, event):
                self._seen.move_to_end(key)
                return True
            reference = event["involvedObject"]
            namespace = reference.get("namespace") or "default"
            name = f"{reference['name']}.{int(self._clock.now() * 1e9):x}{os.urandom(2).hex()}"
            await self._client.create(
                self._resource, {"metadata": {"name": name, "namespace": namespace}, **event, "count": 1}, namespace
            )
            self._seen[key] = _Seen(name, namespace, event["firstTimestamp"], 1)
            _trim(self._seen)
        except ServerAway:
            return False
        except ApiError as error:
            # Events are best effort (as upstream); a namespace that is going away refuses them, for one.
            log.debug("event %s on %s not written: %s", event["reason"], event["involvedObject"].get("name"), error)
        return True

    async def _count_up(self, seen: _Seen, event: Object) -> bool:
        """Patch the event that says the same; False if it has expired."""
        patch = {"count": seen.count + 1, "lastTimestamp": event["lastTimestamp"], "message": event["message"]}
        try:
            await self._client.patch(self._resource, seen.name, seen.namespace, patch)
        except ApiError as error:
            if error.code == 404:
                return False
            raise
        seen.count += 1
        return True

    def _key(self, event: Object) -> tuple[str, ...]:
        """What makes two events the same; many similar ones get one message and so one key."""
        reference = event["involvedObject"]
        group = (
            *(reference.get(f, "") for f in ("kind", "namespace", "name", "uid", "apiVersion", "fieldPath")),
            event["type"],
            event["reason"],
            event["reportingComponent"],
        )
        now = self._clock.monotonic()
        similar = self._similar.get(group)
        if similar is None or now - similar.last > SIMILAR_SECONDS:
            similar = self._similar[group] = _Similar(set(), now)
        similar.last = now
        self._similar.move_to_end(group)
        _trim(self._similar)
        if len(similar.messages) < SIMILAR_LIMIT:
            similar.messages.add(event["message"])
        if len(similar.messages) >= SIMILAR_LIMIT:
            event["message"] = f"(combined from similar events): {event['message']}"
            return group
        return (*group, event["message"])

    def _allowed(self, event: Object) -> bool:
        reference = event["involvedObject"]
        key = (reference.get("uid") or f"{reference.get('namespace', '')}/{reference.get('name', '')}", reference.get("kind", ""))
        now = self._clock.monotonic()
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(SPAM_BURST, now)
            _trim(self._buckets)
        self._buckets.move_to_end(key)
        bucket.tokens = min(SPAM_BURST, bucket.tokens + (now - bucket.at) / SPAM_SECONDS)
        bucket.at = now
        if bucket.tokens < 1.0:
            return False
        bucket.tokens -= 1.0
        return True


def _trim(cache: OrderedDict[Any, Any]) -> None:
    while len(cache) > CACHE_SIZE:
        cache.popitem(last=False)


def _reference(obj: Object, field_path: str) -> Object:
    """The ObjectReference of an object; a reference passes as it is."""
    meta = obj.get("metadata")
    if meta is None:
        reference = dict(obj)
    else:
        pairs = {
            "kind": obj.get("kind"),
            "namespace": meta.get("namespace"),
            "name": meta["name"],
            "uid": meta.get("uid"),
            "apiVersion": obj.get("apiVersion"),
            "resourceVersion": meta.get("resourceVersion"),
        }
        reference = {key: value for key, value in pairs.items() if value}
    if field_path:
        reference["fieldPath"] = field_path
    return reference
