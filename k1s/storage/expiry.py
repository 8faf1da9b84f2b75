"""Keys that live for a while: a TTL on a prefix.

Owns: the deletion of keys `ttl` seconds after their last change. Called by: server/app (events). Never does: a tick per key,
or any tick while there is no key.

One watch, one timer. Keys stand in the order of their last change, which is the order of their deadlines; the timer waits for
the first one, and then at least GRAIN seconds, so that keys that die together die in one commit. How old a key is after a
restart is told by marks (time, revision), written beside the keys at most every MARK seconds, and only when keys change: a key
that was last changed at or before a mark's revision is at least as old as the mark.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from k1s.base.clock import Clock
from k1s.storage.errors import Closed, Expired, KeyNotFound, RevisionConflict, StoreFull
from k1s.storage.interface import Event, KeyValue, Origin, Store

GRAIN = 30.0
MARK = 300.0
# Deletions at once: one batch of the writer.
AT_ONCE = 64
BY = Origin("system:expiry", "expire")
_MARKS = "/k1s/expiry"


class Expiry:
    """Deletes keys under `prefix` `ttl` seconds after their last change."""

    def __init__(self, store: Store, clock: Clock, *, prefix: str, ttl: float) -> None:
        self._store, self._clock, self._prefix, self._ttl = store, clock, prefix, ttl
        self._deadlines: dict[str, tuple[float, int]] = {}
        self._marks: list[tuple[int, int]] = []
        self._marks_key = _MARKS + prefix
        self._changed = asyncio.Event()

    async def run(self, ready: Callable[[], None]) -> None:
        """Eternal; raises what the store raises (Closed when it is closed)."""
        revision = await self._load()
        ready()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(revision), name="expiry-watch")
            group.create_task(self._expire(), name="expiry-timer")

    async def _load(self) -> int:
        """Every key with its deadline; returns the revision to watch from."""
        kept = await self._store.get(self._marks_key)
        self._marks = _decode(kept.value) if kept else []
        revision, after, found = 0, "", list[KeyValue]()
        while True:
            page = await self._store.list(self._prefix, after=after, limit=500)
            revision = revision or page.revision  # the watch repeats what happened between the pages
            found += (item._replace(value=b"") for item in page.items)
            if not page.remaining:
                break
            after = page.items[-1].key
        self._deadlines.clear()
        for item in sorted(found, key=lambda item: item.revision):
            self._deadlines[item.key] = (self._changed_by(item.revision) + self._ttl, item.revision)
        return revision

    def _changed_by(self, revision: int) -> float:
        """The earliest time by which that revision surely had happened; now, if no mark tells."""
        now = self._clock.now()
        return min(next((float(time) for time, mark in self._marks if mark >= revision), now), now)

    async def _follow(self, revision: int) -> None:
        while True:
            try:
                async for events in self._store.watch(self._prefix, after=revision):
                    for event in events:
                        self._note(event)
                    self._changed.set()
                    await self._mark()
                raise Closed("the store was closed")
            except Expired:
                revision = await self._load()

    def _note(self, event: Event) -> None:
        # Taken out first: a dict keeps the place of a key that is set again.
        self._deadlines.pop(event.key, None)
        if not event.deleted:
            self._deadlines[event.key] = (self._clock.now() + self._ttl, event.revision)

    async def _mark(self) -> None:
        now = int(self._clock.now())
        if self._marks and now - self._marks[-1][0] < MARK:
            return
        self._marks = [mark for mark in self._marks if mark[0] > now - self._ttl - MARK]
        self._marks.append((now, self._store.revision))
        value = b",".join(b"%d:%d" % mark for mark in self._marks)
        kept = await self._store.get(self._marks_key)
        if kept is None:
            await self._store.create(self._marks_key, value, origin=BY, volatile=True)
        else:
            await self._store.update(self._marks_key, value, expected=kept.revision, origin=BY, volatile=True)

    async def _expire(self) -> None:
        while True:
            while not self._deadlines:
                self._changed.clear()
                await self._changed.wait()
            first = next(iter(self._deadlines.values()))[0]
            if first > self._clock.now():
                # Rounded up, so that what dies soon after dies with it.
                await self._clock.sleep(first - self._clock.now() + GRAIN)
            now = self._clock.now()
            dead: list[tuple[str, int]] = []
            for key, (deadline, revision) in self._deadlines.items():
                if deadline > now or len(dead) == AT_ONCE:
                    break
                dead.append((key, revision))
            try:
                await asyncio.gather(*(self._delete(key, revision) for key, revision in dead))
            except StoreFull:
                await self._clock.sleep(GRAIN)

    async def _delete(self, key: str, revision: int) -> None:
        try:
            await self._store.delete(key, expected=revision, origin=BY, volatile=True)
        except (KeyNotFound, RevisionConflict):
            pass  # someone was faster; the watch tells what the key is now
        if self._deadlines.get(key, (0.0, 0))[1] == revision:
            del self._deadlines[key]


def _decode(value: bytes) -> list[tuple[int, int]]:
    pairs = (mark.split(b":") for mark in value.split(b",") if mark)
    return [(int(time), int(revision)) for time, revision in pairs]
