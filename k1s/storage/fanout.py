"""Who hears of a change.

Owns: the ring of recent events and one cursor per watch. Called by: the stores' writers (`publish`) and their `watch`.
Never does: wait for a watcher.

Bounds and drop rules. The ring keeps the last RING_EVENTS events but at most RING_BYTES; the oldest fall out. A cursor that is
up to date collects at most PENDING_EVENTS events or PENDING_BYTES that its reader has not taken; beyond that they are dropped
and the cursor is behind: it reads on from the ring, or from the store's log, at the reader's own pace. A reader so slow that
the log is compacted under it gets Expired. So no watcher costs more than its bound, and none slows the writer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from k1s.storage.errors import StoreError
from k1s.storage.interface import Event

RING_EVENTS = 1024
RING_BYTES = 2 * 1024 * 1024
PENDING_EVENTS = 1024
PENDING_BYTES = 4 * 1024 * 1024

# (prefix, after, up to) -> events in order, and the revision up to which they are complete.
ReadHistory = Callable[[str, int, int], Awaitable[tuple[Sequence[Event], int]]]


class Fanout:
    """`read` reads the log; `check` raises Expired for a revision that can no longer be read on from."""

    def __init__(self, read: ReadHistory, check: Callable[[int], None]) -> None:
        self._read = read
        self.check = check
        self._ring: deque[Event] = deque()
        self._ring_bytes = 0
        self._ring_floor = 0
        self._revision = 0
        self._cursors: dict[str, list[_Cursor]] = {}
        self._closed = False

    def start(self, revision: int) -> None:
        """Begin after `revision`: what came before stands only in the log."""
        self._revision = self._ring_floor = revision

    def publish(self, events: Sequence[Event]) -> None:
        """Hand out events, in order; all of them are visible in the store already."""
        for event in events:
            self._ring.append(event)
            self._ring_bytes += _size(event)
            self._revision = event.revision
            for prefix, cursors in self._cursors.items():
                if event.key.startswith(prefix):
                    for cursor in cursors:
                        cursor.offer(event)
        while len(self._ring) > RING_EVENTS or self._ring_bytes > RING_BYTES:
            oldest = self._ring.popleft()
            self._ring_bytes -= _size(oldest)
            self._ring_floor = oldest.revision

    def watch(self, prefix: str, after: int) -> Watch:
        """Raises Expired at once if `after` is compacted."""
        self.check(after)
        cursor = _Cursor(prefix, after)
        self._cursors.setdefault(prefix, []).append(cursor)
        return Watch(self, cursor)

    def forget(self, cursor: _Cursor) -> None:
        cursors = self._cursors.get(cursor.prefix, [])
        if cursor in cursors:
            cursors.remove(cursor)
        if not cursors:
            self._cursors.pop(cursor.prefix, None)

    def close(self) -> None:
        """End every watch."""
        self._closed = True
        for cursors in self._cursors.values():
            for cursor in cursors:
                cursor.wake()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def watchers(self) -> int:
        return sum(len(cursors) for cursors in self._cursors.values())

    async def catch_up(self, cursor: _Cursor) -> Sequence[Event]:
        """Bring a cursor that is behind nearer: from the ring it becomes live at once, from the log by a piece."""
        if cursor.position >= self._ring_floor:
            # No await between reading the ring and going live: nothing can fall between.
            found = [e for e in self._ring if e.revision > cursor.position and e.key.startswith(cursor.prefix)]
            cursor.position = max(cursor.position, self._revision)
            cursor.live = True
            return found
        events, complete = await self._read(cursor.prefix, cursor.position, self._revision)
        self.check(cursor.position)  # compacted while we read: the piece may have holes
        cursor.position = max(cursor.position, complete)
        return events


class Watch(AsyncIterator[Sequence[Event]]):
    """One watch: batches of events. `aclose` (or dropping it) ends it; so does the store's close."""

    def __init__(self, fanout: Fanout, cursor: _Cursor) -> None:
        self._fanout = fanout
        self._cursor = cursor

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Sequence[Event]:
        cursor = self._cursor
        while not (self._fanout.closed or cursor.done):
            if not cursor.live:
                try:
                    self._fanout.check(cursor.position)
                    events = await self._fanout.catch_up(cursor)
                except StoreError:
                    await self.aclose()
                    raise
                if events:
                    return events
            elif cursor.pending:
                return cursor.take()
            else:
                await cursor.wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._cursor.done = True
        self._cursor.wake()
        self._fanout.forget(self._cursor)

    def __del__(self) -> None:
        self._fanout.forget(self._cursor)


class _Cursor:
    """How far one watch has got. Every event up to `position` under the prefix was delivered, or was never wanted."""

    __slots__ = ("_bytes", "_waiter", "done", "live", "pending", "position", "prefix")

    def __init__(self, prefix: str, position: int) -> None:
        self.prefix = prefix
        self.position = position
        self.live = False
        self.done = False
        self.pending: list[Event] = []
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def offer(self, event: Event) -> None:
        if not self.live or event.revision <= self.position:
            return
        self._bytes += _size(event)
        if len(self.pending) >= PENDING_EVENTS or (self.pending and self._bytes > PENDING_BYTES):
            # Everything before the first pending event was delivered: read on from there.
            self.position = max(self.position, self.pending[0].revision - 1)
            self.pending = []
            self._bytes = 0
            self.live = False
        else:
            self.pending.append(event)
        self.wake()

    def take(self) -> list[Event]:
        events, self.pending, self._bytes = self.pending, [], 0
        self.position = max(self.position, events[-1].revision)
        return events

    async def wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _size(event: Event) -> int:
    return len(event.value) + len(event.previous) + len(event.key)
