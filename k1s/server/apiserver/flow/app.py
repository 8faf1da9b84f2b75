"""Priority and fairness: a request finds its FlowSchema, and a seat in that schema's priority level, or waits, or is refused.

Owns: FlowControl. Called by: apiserver/app, for every request that comes over the wire. Never does: count what runs for long
(exec, logs, proxies); a watch holds its seat only until it begins. Source: KEP-1040, flowcontrol.apiserver.k8s.io/v1.

Without contention a request costs one look-up by who asks for what (at most CACHE_ENTRIES of those are kept) and four additions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from k1s.api.catalog import builtin
from k1s.base.clock import Clock
from k1s.base.http import Request, Response
from k1s.client.interface import InformerFactory
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.flow.level import Level, deal
from k1s.server.apiserver.flow.matching import Schema, matches, schema_of
from k1s.server.apiserver.flow.pool import Pool
from k1s.server.apiserver.flow.shares import limits, part_of

Object = dict[str, Any]

CACHE_ENTRIES = 4096
# A stranger chooses what stands in a path: flows of longer ones are looked for each time.
LONGEST_PATH = 512
# A quarter of a request's time, as upstream.
QUEUE_SECONDS = 15.0
# A list takes a seat for so many objects, at most so many seats.
OBJECTS_PER_SEAT = 100
MOST_SEATS = 10

_READS = frozenset(("get", "list", "watch", "head", "options"))
# What upstream's server has even if nobody wrote it yet.
_MANDATORY_LEVELS: dict[str, Object] = {
    "exempt": {"type": "Exempt"},
    "catch-all": {"type": "Limited", "limited": {"nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}}},
}
_EVERYTHING = {
    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
}


def _mandatory(name: str, precedence: int, distinguisher: str, *groups: str) -> Schema:
    subjects = [{"kind": "Group", "group": {"name": group}} for group in groups]
    return Schema(name, "", name, precedence, distinguisher, ({"subjects": subjects, **_EVERYTHING},))


_MANDATORY_SCHEMAS = (
    _mandatory("exempt", 1, "", "system:masters"),
    _mandatory("catch-all", 10000, "ByUser", "system:unauthenticated", "system:authenticated"),
)


class Counts:
    """What a FlowSchema's requests have come to. `waits`: seconds that requests stood in a queue."""

    __slots__ = ("dispatched", "rejected", "waits")

    def __init__(self) -> None:
        self.dispatched = 0
        self.rejected: dict[str, int] = {}
        self.waits: list[tuple[float, bool]] = []


class Flow:
    """Where requests of one kind from one caller go."""

    __slots__ = ("_hand", "_key", "counts", "headers", "level", "schema")

    def __init__(self, schema: Schema, level: Level, counts: Counts, key: str) -> None:
        self.schema, self.level, self.counts = schema.name, level, counts
        self._key, self._hand = key, ()
        pairs = (("X-Kubernetes-PF-FlowSchema-UID", schema.uid), ("X-Kubernetes-PF-PriorityLevel-UID", level.uid))
        self.headers: tuple[tuple[str, str], ...] = tuple(pair for pair in pairs if pair[1])

    def hand(self) -> tuple[int, ...]:
        if not self._hand:
            self._hand = deal(self.schema, self._key, self.level.queues, self.level.hand)
        return self._hand

    _hand: tuple[int, ...]


class Sizes(Protocol):
    """How many objects a list would read."""

    def __call__(self, info: RequestInfo) -> int: ...


class FlowControl:
    """`classify` and `width`, then `enter`; when that was True, `leave`. When it was False, `refusal` is the answer."""

    def __init__(
        self,
        informers: InformerFactory,
        clock: Clock,
        *,
        reads: int = 400,
        writes: int = 200,
        size: Sizes = lambda info: 0,
        patience: float = QUEUE_SECONDS,
    ) -> None:
        self._clock, self._size, self._patience = clock, size, patience
        self._levels = informers.informer(builtin("PriorityLevelConfiguration"))
        self._schemas = informers.informer(builtin("FlowSchema"))
        self.pool = Pool(reads + writes)
        self.counts: dict[tuple[str, str], Counts] = {}
        self.reading = self.writing = 0
        self._order: list[tuple[Schema, Level, Counts]] = []
        self._cache: dict[tuple[object, ...], Flow] = {}
        self._flows: dict[tuple[str, str], Flow] = {}
        self._stale = True
        self._levels.add_handler(self._changed)
        self._schemas.add_handler(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        self._stale = True

    def classify(self, info: RequestInfo, user: UserInfo) -> Flow:
        """The flow of a request: the first schema, by precedence and name, that matches."""
        if self._stale:
            self._rebuild()
        if info.is_resource:
            key: tuple[object, ...] = (
                user.name, user.groups, info.verb, info.group, info.plural, info.subresource, info.namespace,
            )  # fmt: skip
        else:
            key = (user.name, user.groups, info.verb, info.path)
        found = self._cache.get(key)
        if found is None:
            keep = len(info.path) <= LONGEST_PATH
            if keep and len(self._cache) >= CACHE_ENTRIES:
                self._cache.clear()
                self._flows.clear()
            found = self._find(info, user, keep)
            if keep:
                self._cache[key] = found
        return found

    def _find(self, info: RequestInfo, user: UserInfo, keep: bool) -> Flow:
        schema, level, counts = next(
            (entry for entry in self._order if matches(entry[0], info, user)),
            # Authenticators give everybody a group that catch-all names; who has none is no better off.
            next(entry for entry in self._order if entry[0].name == "catch-all"),
        )
        key = schema.flow_of(info, user)
        flow = self._flows.get((schema.name, key))
        if flow is None:
            flow = Flow(schema, level, counts, key)
            if keep:
                self._flows[schema.name, key] = flow
        return flow

    def width(self, info: RequestInfo) -> int:
        """How many seats a request takes."""
        if info.verb != "list":
            return 1
        return min(MOST_SEATS, -(-self._size(info) // OBJECTS_PER_SEAT) or 1)

    async def enter(self, flow: Flow, width: int, verb: str) -> bool:
        """Take the seats, at once or after a wait; False if there are none to be had."""
        if not self.pool.admit(flow.level, width) and not await self._queued(flow, width):
            return False
        flow.counts.dispatched += 1
        if verb in _READS:
            self.reading += 1
        else:
            self.writing += 1
        return True

    def leave(self, flow: Flow, width: int, verb: str) -> None:
        if verb in _READS:
            self.reading -= 1
        else:
            self.writing -= 1
        self.pool.leave(flow.level, width)

    async def _queued(self, flow: Flow, width: int) -> bool:
        level, counts = flow.level, flow.counts
        if not level.queues:
            return self._reject(flow, "concurrency-limit")
        waiter = self.pool.wait(level, flow.hand(), width)
        if waiter is None:
            return self._reject(flow, "queue-full")
        began = self._clock.monotonic()
        timer = asyncio.get_running_loop().call_later(self._patience, _tired, waiter.seated)
        try:
            await waiter.seated
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if waiter.seated.cancelled():  # it still stands in its queue
                self.pool.give_up(level, waiter)
            else:
                self.pool.leave(level, width)
            if task is not None and task.cancelling():
                raise
            level.timed_out += 1
            self._waited(counts, began, False)
            return self._reject(flow, "time-out")
        finally:
            timer.cancel()
        self._waited(counts, began, True)
        return True

    def _waited(self, counts: Counts, began: float, ran: bool) -> None:
        if len(counts.waits) < CACHE_ENTRIES:  # emptied by whoever reads the metrics
            counts.waits.append((self._clock.monotonic() - began, ran))

    def _reject(self, flow: Flow, reason: str) -> bool:
        flow.counts.rejected[reason] = flow.counts.rejected.get(reason, 0) + 1
        flow.level.drop(self._clock.monotonic())
        return False

    def refusal(self, flow: Flow) -> Response:
        """429 as upstream's filter writes it, which is no Status."""
        headers = [("Retry-After", str(flow.level.retry_after)), ("X-Content-Type-Options", "nosniff")]
        return Response(429, b"Too many requests, please try again later.\n", "text/plain; charset=utf-8", headers)

    def _rebuild(self) -> None:
        self._stale = False
        levels = {obj["metadata"]["name"]: obj for obj in self._levels.list()}
        specs: dict[str, Object] = {name: obj.get("spec") or {} for name, obj in levels.items()}
        specs = {**_MANDATORY_LEVELS, **specs}
        found = limits(specs, self.pool.total)
        self.pool.configure(
            {
                name: (
                    levels[name]["metadata"].get("uid", "") if name in levels else "",
                    spec.get("type") == "Exempt",
                    found[name],
                    _queuing(spec),
                )
                for name, spec in specs.items()
            }
        )
        schemas = {obj["metadata"]["name"]: schema_of(obj) for obj in self._schemas.list()}
        for schema in _MANDATORY_SCHEMAS:
            schemas.setdefault(schema.name, schema)
        ordered = sorted(schemas.values(), key=lambda schema: (schema.precedence, schema.name))
        # One that names a level which is not there is passed over, as upstream.
        self._order = [(s, self.pool.levels[s.level], self._counts(s)) for s in ordered if s.level in specs]
        kept = {(schema.level, schema.name) for schema, _, _ in self._order}
        self.counts = {key: counts for key, counts in self.counts.items() if key in kept}
        self._cache.clear()
        self._flows.clear()

    def _counts(self, schema: Schema) -> Counts:
        return self.counts.setdefault((schema.level, schema.name), Counts())

    def paths(self) -> dict[str, Callable[[Request], Any]]:
        """Upstream's debugging pages."""
        from k1s.server.apiserver.flow.dump import pages

        return pages(self.pool)


def _tired(seated: asyncio.Future[None]) -> None:
    if not seated.done():
        seated.cancel()


def _queuing(spec: Object) -> tuple[int, int, int]:
    response = part_of(spec).get("limitResponse") or {}
    if response.get("type") != "Queue":
        return 0, 0, 0
    queuing = response.get("queuing") or {}
    return (
        int(queuing.get("queues") or 64),
        int(queuing.get("handSize") or 8),
        int(queuing.get("queueLengthLimit") or 50),
    )
